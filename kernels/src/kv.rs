//! Paged memory for keys and values.

mod element;

use std::mem::size_of;

use crate::Device;
use crate::memory::{OutOfMemory, Pages};

pub(crate) use element::{E4m3, KvElement};

/// Storage type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    Bf16,
    F32,
    /// Integers, with a scale for what one kv head has in one slot.
    Int8,
    /// Floats of four bits of exponent and three of mantissa (E4M3 of the Open Compute Project's
    /// 8-bit floating point specification), with scales as above.
    Fp8,
}

impl KvType {
    fn n_bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
            Self::Int8 | Self::Fp8 => 1,
        }
    }

    fn has_scales(self) -> bool {
        matches!(self, Self::Int8 | Self::Fp8)
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
        let n_scale_bytes = if ty.has_scales() { size_of::<f32>() } else { 0 };
        let n_head_bytes = self.head_dim * ty.n_bytes() + n_scale_bytes;
        2 * self.n_layers * self.block_size * self.n_kv_heads * n_head_bytes
    }

    /// Scales of the keys (or values) of one layer.
    fn layer_scales(&self) -> usize {
        self.n_blocks * self.n_kv_heads * self.block_size
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
/// the output are dimensions. Scales, where the type has them, are `[block_size]` for each head and
/// block: what is stored is multiplied by the scale of its slot.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    ty: KvType,
    keys: Pages,
    values: Pages,
    key_scales: Pages,
    value_scales: Pages,
}

/// Keys and values of one layer, `[n_blocks][n_kv_heads][block_size * head_dim]` each, and their
/// scales, `[n_blocks][n_kv_heads][block_size]` each, empty where the type has none.
#[derive(Debug)]
pub(crate) struct KvLayer<'a, E> {
    pub(crate) keys: &'a [E],
    pub(crate) values: &'a [E],
    pub(crate) key_scales: &'a [f32],
    pub(crate) value_scales: &'a [f32],
}

/// As [`KvLayer`], to be written.
#[derive(Debug)]
pub(crate) struct KvLayerMut<'a, E> {
    pub(crate) keys: &'a mut [E],
    pub(crate) values: &'a mut [E],
    pub(crate) key_scales: &'a mut [f32],
    pub(crate) value_scales: &'a mut [f32],
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
        let all_scales = [shape.n_layers, shape.layer_scales(), size_of::<f32>()];
        let n_scale_bytes = match ty.has_scales() {
            true => all_scales
                .into_iter()
                .try_fold(1_usize, usize::checked_mul)
                .ok_or(OutOfMemory { bytes: usize::MAX })?,
            false => 0,
        };
        Ok(Self {
            shape,
            ty,
            keys: Pages::zeroed(n_bytes)?,
            values: Pages::zeroed(n_bytes)?,
            key_scales: Pages::zeroed(n_scale_bytes)?,
            value_scales: Pages::zeroed(n_scale_bytes)?,
        })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub(crate) fn ty(&self) -> KvType {
        self.ty
    }

    /// Scales of each layer: none or one a slot and head.
    fn n_scales(&self) -> usize {
        if self.ty.has_scales() {
            self.shape.layer_scales()
        } else {
            0
        }
    }

    pub(crate) fn layer<E: KvElement>(&self, layer: usize) -> KvLayer<'_, E> {
        assert_eq!(size_of::<E>(), self.ty.n_bytes());
        let (len, n_scales) = (self.shape.layer_len(), self.n_scales());
        KvLayer {
            keys: &self.keys.as_slice()[layer * len..][..len],
            values: &self.values.as_slice()[layer * len..][..len],
            key_scales: &self.key_scales.as_slice()[layer * n_scales..][..n_scales],
            value_scales: &self.value_scales.as_slice()[layer * n_scales..][..n_scales],
        }
    }

    pub(crate) fn layer_mut<E: KvElement>(&mut self, layer: usize) -> KvLayerMut<'_, E> {
        assert_eq!(size_of::<E>(), self.ty.n_bytes());
        let (len, n_scales) = (self.shape.layer_len(), self.n_scales());
        KvLayerMut {
            keys: &mut self.keys.as_mut_slice()[layer * len..][..len],
            values: &mut self.values.as_mut_slice()[layer * len..][..len],
            key_scales: &mut self.key_scales.as_mut_slice()[layer * n_scales..][..n_scales],
            value_scales: &mut self.value_scales.as_mut_slice()[layer * n_scales..][..n_scales],
        }
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.key_scales.clear();
        self.value_scales.clear();
    }
}

/// Where the run of a head in a block begins within a layer.
#[inline(always)]
pub(crate) fn head_offset(shape: KvShape, block: usize, head: usize) -> usize {
    (block * shape.n_kv_heads + head) * shape.block_size * shape.head_dim
}

/// Where the scales of a head in a block begin within a layer.
#[inline(always)]
pub(crate) fn scale_offset(shape: KvShape, block: usize, head: usize) -> usize {
    (block * shape.n_kv_heads + head) * shape.block_size
}
