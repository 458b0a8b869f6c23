//! Paged memory for keys and values.

use crate::Device;

/// Storage type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    Bf16,
    F32,
}

/// Dimensions of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub n_layers: usize,
    pub n_blocks: usize,
    /// Positions in a block.
    pub block_size: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes that one block takes over all layers, keys and values together.
    pub fn bytes_per_block(&self, ty: KvType) -> usize {
        let element = match ty {
            KvType::Bf16 => 2,
            KvType::F32 => 4,
        };
        2 * self.n_layers * self.block_size * self.n_kv_heads * self.head_dim * element
    }
}

/// Keys and values of all layers. A slot is `block * block_size + offset`.
#[derive(Debug)]
pub struct KvCache {}

impl KvCache {
    /// Reserves the whole cache. Errors when the memory cannot be had.
    pub fn new(
        _device: &Device,
        _shape: KvShape,
        _ty: KvType,
    ) -> Result<Self, std::collections::TryReserveError> {
        unimplemented!()
    }

    pub fn shape(&self) -> KvShape {
        unimplemented!()
    }
}
