//! Paged memory for keys and values.

mod ahead;
mod element;
mod stored;

use std::mem::size_of;

use crate::Device;
use crate::cuda::CudaKv;
use crate::memory::{OutOfMemory, Pages};

use ahead::Ahead;
pub(crate) use element::{E4m3, KvElement};
pub use stored::StoredKv;

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
/// block: what is stored is multiplied by the scale of its slot. On a GPU keys lie like values.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    ty: KvType,
    memory: Memory,
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

#[derive(Debug)]
enum Memory {
    Host(HostKv),
    Cuda(CudaKv),
}

/// Scales are empty where the type has none.
#[derive(Debug)]
struct HostKv {
    ahead: Ahead,
    keys: Pages,
    values: Pages,
    key_scales: Pages,
    value_scales: Pages,
}

/// A cache that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The device has no ops for it, or fails.
    #[error("{0}")]
    Unsupported(String),
}

const ELSEWHERE: &str = "a cache of another device";

impl KvCache {
    /// Reserves the whole cache; on the host it becomes real a little ahead of use. Errors when
    /// the memory cannot be had, or when the device has no attention for such heads.
    pub fn new(device: &Device, shape: KvShape, ty: KvType) -> Result<Self, KvError> {
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
            .ok_or(OutOfMemory::host(usize::MAX))?;
        let all_scales = [shape.n_layers, shape.layer_scales(), size_of::<f32>()];
        let n_scale_bytes = match ty.has_scales() {
            true => all_scales
                .into_iter()
                .try_fold(1_usize, usize::checked_mul)
                .ok_or(OutOfMemory::host(usize::MAX))?,
            false => 0,
        };
        let memory = match device.as_cuda() {
            Some(gpu) => Memory::Cuda(CudaKv::new(gpu, shape, ty, (n_bytes, n_scale_bytes))?),
            None => {
                let (keys, values) = (Pages::zeroed(n_bytes)?, Pages::zeroed(n_bytes)?);
                let key_scales = Pages::zeroed(n_scale_bytes)?;
                let value_scales = Pages::zeroed(n_scale_bytes)?;
                Memory::Host(HostKv {
                    // Last, since its thread must not outlive memory that an error gives back.
                    ahead: Ahead::new(shape, ty.n_bytes(), &keys, &values),
                    keys,
                    values,
                    key_scales,
                    value_scales,
                })
            }
        };
        Ok(Self { shape, ty, memory })
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
        let Memory::Host(host) = &self.memory else {
            panic!("{ELSEWHERE}");
        };
        KvLayer {
            keys: &host.keys.as_slice()[layer * len..][..len],
            values: &host.values.as_slice()[layer * len..][..len],
            key_scales: &host.key_scales.as_slice()[layer * n_scales..][..n_scales],
            value_scales: &host.value_scales.as_slice()[layer * n_scales..][..n_scales],
        }
    }

    pub(crate) fn layer_mut<E: KvElement>(&mut self, layer: usize) -> KvLayerMut<'_, E> {
        assert_eq!(size_of::<E>(), self.ty.n_bytes());
        let (len, n_scales) = (self.shape.layer_len(), self.n_scales());
        let Memory::Host(host) = &mut self.memory else {
            panic!("{ELSEWHERE}");
        };
        KvLayerMut {
            keys: &mut host.keys.as_mut_slice()[layer * len..][..len],
            values: &mut host.values.as_mut_slice()[layer * len..][..len],
            key_scales: &mut host.key_scales.as_mut_slice()[layer * n_scales..][..n_scales],
            value_scales: &mut host.value_scales.as_mut_slice()[layer * n_scales..][..n_scales],
        }
    }

    /// Says which slots are about to be written, so that memory after them is ready in time.
    pub(crate) fn will_write(&mut self, slots: &[u32]) {
        let last = slots.iter().max().map_or(0, |&slot| slot as usize);
        if let Memory::Host(host) = &mut self.memory {
            host.ahead.after(last / self.shape.block_size);
        }
    }

    pub(crate) fn clear(&mut self) {
        let Memory::Host(host) = &mut self.memory else {
            panic!("{ELSEWHERE}");
        };
        host.ahead.forget();
        host.keys.clear();
        host.values.clear();
        host.key_scales.clear();
        host.value_scales.clear();
    }

    pub(crate) fn on_cuda(&self) -> &CudaKv {
        match &self.memory {
            Memory::Host(_) => panic!("{ELSEWHERE}"),
            Memory::Cuda(kv) => kv,
        }
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
