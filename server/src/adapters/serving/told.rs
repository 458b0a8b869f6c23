//! What is told of adapters: to clients by name, to routers by what their requests do.

use std::collections::BTreeSet;
use std::sync::Arc;

use models::Adapter;

use super::Adapters;
use crate::adapters::lease::Lease;
use crate::adapters::registry::State;

/// What is told of an adapter.
#[derive(Clone, Debug)]
pub struct Served {
    pub name: String,
    pub created: u64,
    pub generation: u64,
    pub is_pinned: bool,
    /// `loaded`, `on_disk` or `failed`.
    pub state: &'static str,
    /// Of those in memory.
    pub adapter: Option<Arc<Adapter>>,
    /// Why it cannot be loaded, or its files cannot take the place of what is loaded.
    pub failure: Option<String>,
}

/// Adapters by what their requests do. A stack is called `stack`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdaptersInUse {
    pub running: Vec<String>,
    pub waiting: Vec<String>,
    /// How many may be in memory.
    pub max_loaded: usize,
}

impl Adapters {
    /// All of them by name.
    pub fn list(&self) -> Vec<Served> {
        let Some(shared) = &self.shared else {
            return Vec::new();
        };
        if let Err(error) = shared.scan() {
            tracing::warn!(%error, "adapters cannot be listed");
        }
        let registry = shared.lock();
        let served = registry.iter().map(|(name, entry)| {
            let (state, adapter, failure) = match &entry.state {
                State::OnDisk => ("on_disk", None, None),
                State::Loaded { adapter, .. } => {
                    let failure = entry.refused.as_ref().map(|(_, message)| message.clone());
                    ("loaded", Some(Arc::clone(adapter)), failure)
                }
                State::Failed(message) => ("failed", None, Some(message.clone())),
            };
            Served {
                name: name.clone(),
                created: entry.created,
                generation: entry.generation,
                is_pinned: entry.is_pinned,
                state,
                adapter,
                failure,
            }
        });
        served.collect()
    }

    /// Names of adapters whose requests run and wait, and how many may be in memory.
    pub fn in_use(&self) -> AdaptersInUse {
        let Some(shared) = &self.shared else {
            return AdaptersInUse::default();
        };
        let registry = shared.lock();
        let leases = registry.leases();
        let named = |is_meant: fn(&Lease) -> bool| {
            let meant = leases.iter().filter(|lease| is_meant(lease));
            let names: BTreeSet<String> = meant.map(|lease| lease.label().to_string()).collect();
            names.into_iter().collect()
        };
        AdaptersInUse {
            running: named(Lease::runs),
            waiting: named(Lease::waits),
            max_loaded: shared.options.max_loaded,
        }
    }
}
