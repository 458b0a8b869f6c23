//! Several adapters at once.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Adapter, AdapterError};

/// Adapters and their weights: the model's weights become `W + sum_i weight_i * delta_i`, where
/// `delta_i` is what adapter `i` alone changes. Exact: weights are applied as they are, and no
/// products between adapters appear.
#[derive(Clone, Debug)]
pub struct AdapterStack {
    parts: Vec<(Arc<Adapter>, f32)>,
    digest: [u8; 32],
}

impl AdapterStack {
    /// One adapter as it was trained.
    pub fn single(adapter: Arc<Adapter>) -> Self {
        Self::of_parts(vec![(adapter, 1.0)])
    }

    /// # Errors
    /// No adapters, a weight that is not a finite number, or adapters of different models.
    pub fn new(parts: Vec<(Arc<Adapter>, f32)>) -> Result<Self, AdapterError> {
        let refused = |message: &str| AdapterError::refused(Path::new("adapter stack"), message);
        let Some((first, _)) = parts.first() else {
            return Err(refused("no adapters"));
        };
        if parts.iter().any(|(_, weight)| !weight.is_finite()) {
            return Err(refused("a weight is not a finite number"));
        }
        if parts
            .iter()
            .any(|(adapter, _)| !adapter.target.is_same(&first.target))
        {
            return Err(refused("the adapters belong to different models"));
        }
        Ok(Self::of_parts(parts))
    }

    fn of_parts(parts: Vec<(Arc<Adapter>, f32)>) -> Self {
        let mut hash = Sha256::new();
        for (adapter, weight) in &parts {
            hash.update(adapter.digest());
            hash.update(weight.to_le_bytes());
        }
        Self {
            parts,
            digest: hash.finalize().into(),
        }
    }

    /// Adapters and weights, in order.
    pub fn parts(&self) -> &[(Arc<Adapter>, f32)] {
        &self.parts
    }

    /// Identity by content: of the adapters, their weights and their order.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The prefix root of requests that use this stack, where those of the base have `base`.
    pub fn kv_root(&self, base: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(base.to_le_bytes());
        hash.update(self.digest);
        let bytes = hash.finalize();
        u64::from_le_bytes(bytes[..8].try_into().expect("SHA-256 has 32 bytes"))
    }
}
