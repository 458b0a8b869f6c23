//! Packed matrices that several models have in common.
//!
//! Full fine-tunes of one base often keep some of its tensors, and copies of a model keep all.
//! What is packed from the same bytes in the same way is the same, so models that are loaded with
//! one pool hold it once. The pool itself keeps nothing in memory: with the last model that has a
//! matrix, it is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kernels::{Linear, Numerics, WeightSource, WeightType};
use sha2::{Digest, Sha256};

/// A pool of packed matrices by content, of models on one device.
#[derive(Debug, Default)]
pub struct SharedWeights {
    by_key: Mutex<HashMap<WeightKey, Weak<Linear>>>,
}

/// SHA-256 of a matrix' bytes, and of everything else that decides what it is packed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightKey([u8; 32]);

impl WeightKey {
    /// Of a matrix that is stored as `source` and packed as `ty`.
    pub(crate) fn new(source: &WeightSource<'_>, ty: WeightType, numerics: Numerics) -> Self {
        let (n_out, n_in) = (source.n_out, source.n_in);
        let mut hash = Sha256::new();
        hash.update(format!(
            "{:?}/{ty:?}/{numerics:?}/{n_out}/{n_in}/",
            source.ty
        ));
        hash.update(&source.bytes);
        Self(hash.finalize().into())
    }
}

impl SharedWeights {
    fn lock(&self) -> MutexGuard<'_, HashMap<WeightKey, Weak<Linear>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, key: WeightKey) -> Option<Arc<Linear>> {
        self.lock().get(&key)?.upgrade()
    }

    pub(crate) fn keep(&self, key: WeightKey, weight: &Arc<Linear>) {
        let mut by_key = self.lock();
        by_key.retain(|_, weight| weight.strong_count() > 0);
        by_key.insert(key, Arc::downgrade(weight));
    }

    /// Bytes of all that any model has, each counted once.
    pub fn n_bytes(&self) -> u64 {
        let by_key = self.lock();
        let held = by_key.values().filter_map(Weak::upgrade);
        held.map(|weight| weight.n_bytes() as u64).sum()
    }

    /// Bytes that matrices with these keys and sizes would add.
    pub fn missing_bytes(&self, matrices: &[(WeightKey, u64)]) -> u64 {
        let by_key = self.lock();
        let mut seen = std::collections::HashSet::new();
        let missing = matrices.iter().filter(|(key, _)| {
            let is_held = by_key
                .get(key)
                .is_some_and(|weight| weight.strong_count() > 0);
            !is_held && seen.insert(*key)
        });
        missing.map(|(_, n_bytes)| n_bytes).sum()
    }
}
