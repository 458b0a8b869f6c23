//! A stack of adapters in use.

use std::sync::Arc;

use models::{AdapterStack, AdapterTable};
use scheduler::AdapterId;

/// Weights that requests are answered with. As long as anybody holds it, batches may name its id;
/// with the last holder, the id and its memory are gone.
#[derive(Debug)]
pub struct Lease {
    id: AdapterId,
    label: Arc<str>,
    kv_root: u64,
    digest: [u8; 32],
    table: AdapterTable,
}

impl Lease {
    /// Makes `stack` known under `id`, which nothing else ever has. `base_root` is the root of
    /// the base model's KV keys.
    pub(super) fn new(
        table: AdapterTable,
        id: AdapterId,
        label: &str,
        stack: AdapterStack,
        base_root: u64,
    ) -> Arc<Self> {
        let lease = Self {
            id,
            label: Arc::from(label),
            kv_root: stack.kv_root(base_root),
            digest: stack.digest(),
            table: table.clone(),
        };
        table.insert(id, stack);
        Arc::new(lease)
    }

    pub fn id(&self) -> AdapterId {
        self.id
    }

    /// What figures call it: the adapter's name, or `stack`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Root of the KV keys of requests that it answers.
    pub fn kv_root(&self) -> u64 {
        self.kv_root
    }

    /// Identity by content.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
