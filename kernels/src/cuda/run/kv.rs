//! The paged cache on a GPU.

use std::sync::Arc;

use super::driver::{Allocation, text};
use super::gpu::Gpu;
use crate::cuda::{DevicePtr, KvStorage, has_head_dim};
use crate::{KvError, KvShape, KvType};

/// Keys and values, each `[n_layers][n_blocks][n_kv_heads][block_size][head_dim]`.
#[derive(Debug)]
pub(crate) struct CudaKv {
    keys: Allocation,
    values: Allocation,
    pub(crate) storage: KvStorage,
    layer_bytes: usize,
}

/// Largest heads of `attention_rows`.
const MOST_HEAD_DIM: usize = 576;

impl Gpu {
    /// Makes a cache all zero, after what was noted.
    pub(crate) fn clear_kv(&self, kv: &CudaKv) {
        let mut step = self.step();
        step.wait();
        if let Err(error) = kv.clear() {
            step.fail(error);
        }
    }
}

impl CudaKv {
    /// `n_bytes`: of keys, and of values.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        shape: KvShape,
        ty: KvType,
        n_bytes: usize,
    ) -> Result<Self, KvError> {
        let storage = match ty {
            KvType::Bf16 => KvStorage::Bf16,
            KvType::F32 => KvStorage::F32,
            // The kernels' own 8-bit cache has no scales: other numbers than the CPU's.
            KvType::Int8 | KvType::Fp8 => {
                return Err(KvError::Unsupported(format!(
                    "a KV cache in {ty:?} is for the CPU; on a GPU it is in Bf16 or F32"
                )));
            }
        };
        if shape.head_dim > MOST_HEAD_DIM {
            return Err(KvError::Unsupported(format!(
                "attention on a GPU has heads of at most {MOST_HEAD_DIM} values, the model's have {}",
                shape.head_dim
            )));
        }
        let attention = if storage == KvStorage::Bf16 && has_head_dim(shape.head_dim) {
            "attention"
        } else {
            "attention_rows"
        };
        for image in [
            attention,
            "rope_write_kv",
            "norm_rows",
            "activate",
            "elementwise",
            "rows",
            "embed",
            "convert_rows",
        ] {
            let prepared = gpu.prepare(image);
            prepared.map_err(|error| KvError::Unsupported(error.to_string()))?;
        }
        let (keys, values) = (gpu.driver.alloc(n_bytes)?, gpu.driver.alloc(n_bytes)?);
        let kv = Self {
            keys,
            values,
            storage,
            layer_bytes: n_bytes / shape.n_layers.max(1),
        };
        kv.clear().map_err(KvError::Unsupported)?;
        Ok(kv)
    }

    /// Makes everything zero. No step is at work.
    pub(crate) fn clear(&self) -> Result<(), String> {
        let cleared = self.keys.clear().and_then(|()| self.values.clear());
        cleared.map_err(|error| format!("clearing the cache: {}", text(error)))
    }

    /// Keys and values of a layer.
    pub(crate) fn layer(&self, layer: usize) -> (DevicePtr, DevicePtr) {
        let offset = layer * self.layer_bytes;
        (
            DevicePtr(self.keys.at()).offset(offset),
            DevicePtr(self.values.at()).offset(offset),
        )
    }
}
