//! Which adapters the ids in a batch stand for.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use scheduler::AdapterId;

use super::AdapterStack;

/// A handle that server and runner share; clones are the same table. A step keeps what it has
/// looked up, so removing an id never pulls weights from under a running step: they are freed
/// with their last user.
#[derive(Clone, Debug, Default)]
pub struct AdapterTable {
    stacks: Arc<RwLock<BTreeMap<AdapterId, Arc<AdapterStack>>>>,
}

impl AdapterTable {
    /// Steps that begin from now on know `id`; what it stood for before is returned. Requests
    /// already running would change in midstream: give new generations new ids.
    pub fn insert(&self, id: AdapterId, stack: AdapterStack) -> Option<Arc<AdapterStack>> {
        let mut stacks = self.stacks.write().unwrap_or_else(PoisonError::into_inner);
        stacks.insert(id, Arc::new(stack))
    }

    /// Steps that begin from now on fail rows of `id` (those rows only). Returns what it stood
    /// for.
    pub fn remove(&self, id: AdapterId) -> Option<Arc<AdapterStack>> {
        let mut stacks = self.stacks.write().unwrap_or_else(PoisonError::into_inner);
        stacks.remove(&id)
    }

    pub fn get(&self, id: AdapterId) -> Option<Arc<AdapterStack>> {
        let stacks = self.stacks.read().unwrap_or_else(PoisonError::into_inner);
        stacks.get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        let stacks = self.stacks.read().unwrap_or_else(PoisonError::into_inner);
        stacks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
