//! The op vocabulary: what models are made of, for every device.
//!
//! Model code calls the methods of [`Device`] and holds no `cfg`. For each op there is a naive
//! f64 [`mod@reference`], versions for the CPU chosen at run time ([`Isa`]), and the bound that
//! tests hold them to. Ops write into buffers that the caller owns: nothing is allocated in a
//! step but scratch that grows to its largest size once.
//!
//! Every output row is computed in an order fixed by its own shape, so a row's bits do not
//! depend on how many other rows there are: batch invariance starts here.

#![expect(
    unsafe_code,
    reason = "vector instructions, mapped memory and threads' shared slices live here"
)]

pub mod cuda;
pub mod reference;

mod buffer;
mod cpu;
mod device;
mod file;
mod format;
mod isa;
mod kv;
mod linear;
mod low_rank;
mod memory;
mod ops;
mod sample;
mod weight;

pub use buffer::Buffer;
pub use cpu::peak::Peak;
pub use cuda::CudaError;
pub use device::{CpuOptions, CudaOptions, Device, DeviceFailed, Part, SampleLimits};
pub use file::MappedFile;
pub use format::{encode_block, quantize};
pub use isa::Isa;
pub use kv::{KvCache, KvError, KvShape, KvType, StoredKv};
pub use linear::{Linear, LinearCall, Numerics, PackError};
pub use low_rank::{
    LinearDelta, LowRank, LowRankError, LowRankSource, LowRankTarget, OutputDelta, RowGroups,
};
pub use memory::{MemoryKind, OutOfMemory};
pub use ops::{
    Activation, AttentionRow, Norm, NormKind, PagedAttention, RopeAngles, RopeStyle, RopeWriteKv,
    RouteGroups, RouteScore, Routes, Routing, StridedCopy,
};
pub use sample::{Ask, Draw, LogitChange, RowLogprobs, SampleRow, SampledRow};
pub use weight::{WeightSource, WeightType, dequantize};
