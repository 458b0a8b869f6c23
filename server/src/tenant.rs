//! Whose request it is: for fairness, for limits and for figures.
//!
//! A tenant is an API key. `user` and `safety_identifier` are not: a client can write there what
//! it likes, and would get a new share of the machine with every new name.

use std::sync::Arc;

use scheduler::{AdapterId, FlowId};

use crate::auth::{Exceeded, Grant, Meter, Moment};

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
#[derive(Clone, Debug)]
pub struct Tenant {
    /// 0: nobody in particular; keys count from 1 in the order in which they were first given.
    index: u32,
    /// For figures; tells nothing about the key.
    label: Arc<str>,
    owner: Owner,
    grant: Arc<Grant>,
    /// `None`: it may ask for as much as it likes.
    meter: Option<Arc<Meter>>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            index: 0,
            label: Arc::from("anonymous"),
            owner: Owner::default(),
            grant: Arc::default(),
            meter: None,
        }
    }
}

impl Tenant {
    /// The owner of key `number`, which begins at 0.
    pub(crate) fn of_key(
        number: u32,
        label: Arc<str>,
        owner: Owner,
        grant: Arc<Grant>,
        meter: Option<Arc<Meter>>,
    ) -> Self {
        Self {
            index: number + 1,
            label,
            owner,
            grant,
            meter,
        }
    }

    /// Nobody: copies of requests that a client does not know of.
    pub(crate) fn shadow() -> Self {
        Self {
            index: u32::MAX >> 1,
            label: Arc::from("shadow"),
            ..Self::default()
        }
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// What the key may do.
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// What the key may use, if that is limited.
    pub fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.as_ref()
    }

    /// Charges prompts of so many tokens together, or refuses them.
    pub(crate) fn charge_prompt(&self, n_tokens: usize) -> Result<(), Exceeded> {
        match &self.meter {
            Some(meter) => meter.charge_prompt(n_tokens as u64, Moment::now()),
            None => Ok(()),
        }
    }

    /// Charges a token that was generated.
    pub(crate) fn charge_token(&self) {
        if let Some(meter) = &self.meter {
            meter.charge_generated(1, Moment::now());
        }
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
        let of_key = |number| {
            let label = Arc::from("a");
            Tenant::of_key(number, label, Owner(1), Arc::default(), None)
        };
        let (one, other) = (of_key(0), of_key(1));
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
