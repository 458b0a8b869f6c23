//! The paged cache on a GPU.

use std::sync::Arc;

use super::driver::{Allocation, text};
use super::gpu::Gpu;
use crate::cuda::{DevicePtr, KvScales, KvStorage, has_head_dim};
use crate::{KvError, KvShape, KvType};

/// Keys and values, each `[n_layers][n_blocks][n_kv_heads][block_size][head_dim]`, and their
/// scales, without the last dimension, of no bytes where the type has none.
#[derive(Debug)]
pub(crate) struct CudaKv {
    keys: Allocation,
    values: Allocation,
    key_scales: Allocation,
    value_scales: Allocation,
    pub(crate) storage: KvStorage,
    layer_bytes: usize,
    layer_scale_bytes: usize,
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
    /// `n_bytes`: of keys, and of values; `n_scale_bytes`: of the scales of each.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        shape: KvShape,
        ty: KvType,
        (n_bytes, n_scale_bytes): (usize, usize),
    ) -> Result<Self, KvError> {
        let storage = match ty {
            KvType::Bf16 => KvStorage::Bf16,
            KvType::F32 => KvStorage::F32,
            KvType::Int8 => KvStorage::Int8,
            KvType::Fp8 => KvStorage::Fp8,
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
            "sample",
        ] {
            let prepared = gpu.prepare(image);
            prepared.map_err(|error| KvError::Unsupported(error.to_string()))?;
        }
        let n_layers = shape.n_layers.max(1);
        let kv = Self {
            keys: gpu.driver.alloc(n_bytes)?,
            values: gpu.driver.alloc(n_bytes)?,
            key_scales: gpu.driver.alloc(n_scale_bytes)?,
            value_scales: gpu.driver.alloc(n_scale_bytes)?,
            storage,
            layer_bytes: n_bytes / n_layers,
            layer_scale_bytes: n_scale_bytes / n_layers,
        };
        kv.clear().map_err(KvError::Unsupported)?;
        Ok(kv)
    }

    /// Makes everything zero. No step is at work.
    pub(crate) fn clear(&self) -> Result<(), String> {
        let all = [
            &self.keys,
            &self.values,
            &self.key_scales,
            &self.value_scales,
        ];
        let cleared = all.into_iter().try_for_each(Allocation::clear);
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
    /// Scales of a layer; null where the type has none.
    pub(crate) fn layer_scales(&self, layer: usize) -> KvScales {
        if !self.storage.has_scales() {
            return KvScales::default();
        }
        let offset = layer * self.layer_scale_bytes;
        KvScales {
            keys: DevicePtr(self.key_scales.at()).offset(offset),
            values: DevicePtr(self.value_scales.at()).offset(offset),
        }
    }
}
