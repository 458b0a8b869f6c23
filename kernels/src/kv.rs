//! Paged memory for keys and values.

use std::mem::size_of;

use crate::Device;
use crate::memory::{OutOfMemory, Pages, Plain};

/// Storage type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    Bf16,
    F32,
}

impl KvType {
    fn n_bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
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
        2 * self.n_layers * self.block_size * self.n_kv_heads * self.head_dim * ty.n_bytes()
    }

    /// Elements of the keys (or values) of one layer.
    fn layer_len(&self) -> usize {
        self.n_blocks * self.n_kv_heads * self.block_size * self.head_dim
    }
}

/// Keys and values of all layers. A slot is `block * block_size + offset`.
///
/// In each layer, keys and values are apart, and what one kv head has in one block is one
/// contiguous run: keys `[head_dim][block_size]`, so that the lanes of a vector are positions
/// and scores need no sums across lanes; values `[block_size][head_dim]`, so that the lanes of
/// the output are dimensions.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    ty: KvType,
    keys: Pages,
    values: Pages,
}

impl KvCache {
    /// Reserves the whole cache; the system fills it in as blocks are first written. Errors when
    /// the memory cannot be had.
    pub fn new(_device: &Device, shape: KvShape, ty: KvType) -> Result<Self, OutOfMemory> {
        let dimensions = [
            shape.n_layers,
            shape.n_blocks,
            shape.block_size,
            shape.n_kv_heads,
            shape.head_dim,
            ty.n_bytes(),
        ];
        let n_bytes = dimensions
            .into_iter()
            .try_fold(1_usize, usize::checked_mul)
            .ok_or(OutOfMemory { bytes: usize::MAX })?;
        Ok(Self {
            shape,
            ty,
            keys: Pages::zeroed(n_bytes)?,
            values: Pages::zeroed(n_bytes)?,
        })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub(crate) fn ty(&self) -> KvType {
        self.ty
    }

    /// Keys and values of a layer, `[n_blocks][n_kv_heads][block_size * head_dim]` each.
    pub(crate) fn layer<E: KvElement>(&self, layer: usize) -> (&[E], &[E]) {
        assert_eq!(size_of::<E>(), self.ty.n_bytes());
        let len = self.shape.layer_len();
        (
            &self.keys.as_slice()[layer * len..][..len],
            &self.values.as_slice()[layer * len..][..len],
        )
    }

    pub(crate) fn layer_mut<E: KvElement>(&mut self, layer: usize) -> (&mut [E], &mut [E]) {
        assert_eq!(size_of::<E>(), self.ty.n_bytes());
        let len = self.shape.layer_len();
        (
            &mut self.keys.as_mut_slice()[layer * len..][..len],
            &mut self.values.as_mut_slice()[layer * len..][..len],
        )
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }
}

/// Where the run of a head in a block begins within a layer.
#[inline(always)]
pub(crate) fn head_offset(shape: KvShape, block: usize, head: usize) -> usize {
    (block * shape.n_kv_heads + head) * shape.block_size * shape.head_dim
}

/// A storage type of the cache.
pub(crate) trait KvElement: Plain + Default {
    fn from_f32(x: f32) -> Self;
    fn load<S: crate::cpu::simd::Simd>(s: S, x: &[Self; 16]) -> S::F;
}

impl KvElement for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load<S: crate::cpu::simd::Simd>(s: S, x: &[Self; 16]) -> S::F {
        s.load(x)
    }
}

/// The bits of a bf16.
impl KvElement for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        half::bf16::from_f32(x).to_bits()
    }

    #[inline(always)]
    fn load<S: crate::cpu::simd::Simd>(s: S, x: &[Self; 16]) -> S::F {
        s.load_bf16(x)
    }
}
