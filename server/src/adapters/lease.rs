//! A stack of adapters in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    n_waiting: AtomicUsize,
    n_running: AtomicUsize,
}

/// A lease as a request holds it, which waits first and then runs.
#[derive(Debug)]
pub struct LeaseInUse {
    lease: Arc<Lease>,
    runs: bool,
}

impl LeaseInUse {
    pub fn waiting(lease: Arc<Lease>) -> Self {
        lease.n_waiting.fetch_add(1, Ordering::Relaxed);
        Self { lease, runs: false }
    }

    /// See [`Lease::label`].
    pub fn label(&self) -> &Arc<str> {
        self.lease.label()
    }

    /// A step works on the request.
    pub fn start(&mut self) {
        if !std::mem::replace(&mut self.runs, true) {
            self.lease.n_waiting.fetch_sub(1, Ordering::Relaxed);
            self.lease.n_running.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for LeaseInUse {
    fn drop(&mut self) {
        let count = if self.runs {
            &self.lease.n_running
        } else {
            &self.lease.n_waiting
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }
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
            n_waiting: AtomicUsize::new(0),
            n_running: AtomicUsize::new(0),
        };
        table.insert(id, stack);
        Arc::new(lease)
    }

    /// Whether steps work on a request of it.
    pub fn runs(&self) -> bool {
        self.n_running.load(Ordering::Relaxed) > 0
    }

    /// Whether a request of it waits for its first step.
    pub fn waits(&self) -> bool {
        self.n_waiting.load(Ordering::Relaxed) > 0
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
