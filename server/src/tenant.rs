//! Whose request it is, for fairness and for figures.
//!
//! A tenant is an API key. `user` and `safety_identifier` are not: a client can write there what
//! it likes, and would get a new share of the machine with every new name.

use std::sync::Arc;

use scheduler::{AdapterId, FlowId};

/// Whose stored objects are. It stays the same when keys are added or change their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner(u128);

impl Owner {
    pub(crate) fn of_number(number: u128) -> Self {
        Self(number)
    }

    /// 128 bits of a digest of the key; 0 without one.
    pub(crate) fn number(self) -> u128 {
        self.0
    }
}

/// The owner of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// 0: nobody in particular; keys count from 1 in the order that they were given.
    index: u32,
    /// For figures; tells nothing about the key.
    label: Arc<str>,
    owner: Owner,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            index: 0,
            label: Arc::from("anonymous"),
            owner: Owner::default(),
        }
    }
}

impl Tenant {
    /// The owner of key `index`, which begins at 0.
    pub(crate) fn of_key(index: u32, label: Arc<str>, owner: Owner) -> Self {
        Self {
            index: index + 1,
            label,
            owner,
        }
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Tenant and adapter: who shares the machine alike.
    pub fn flow(&self, adapter: Option<AdapterId>) -> FlowId {
        let adapter = adapter.map_or(0, |adapter| u64::from(adapter.0) + 1);
        // An adapter's number plus one needs 33 bits; a key's, far less than the 31 left.
        FlowId(u64::from(self.index) << 33 | adapter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_differ_by_key_and_by_adapter() {
        let one = Tenant::of_key(0, Arc::from("a"), Owner(1));
        let other = Tenant::of_key(1, Arc::from("b"), Owner(2));
        let flows = [
            Tenant::default().flow(None),
            one.flow(None),
            one.flow(Some(AdapterId(0))),
            one.flow(Some(AdapterId(u32::MAX))),
            other.flow(None),
        ];
        for (i, flow) in flows.iter().enumerate() {
            assert!(!flows[..i].contains(flow), "{flow}");
        }
        assert_eq!(one.flow(None), one.flow(None));
    }
}
