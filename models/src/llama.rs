//! The Llama family.

use kernels::{Device, Numerics, WeightType};

use crate::{Checkpoint, LoadError, ModelConfig};

/// A loaded model.
#[derive(Debug)]
pub struct Model {}

impl Model {
    /// Packs all weights for `device`. `dense`: store unquantized weights in this type instead
    /// of the checkpoint's.
    pub fn load(
        _checkpoint: &Checkpoint,
        _device: &Device,
        _numerics: Numerics,
        _dense: Option<WeightType>,
    ) -> Result<Self, LoadError> {
        unimplemented!()
    }

    pub fn config(&self) -> &ModelConfig {
        unimplemented!()
    }

    /// Bytes of packed weights.
    pub fn n_bytes(&self) -> usize {
        unimplemented!()
    }
}
