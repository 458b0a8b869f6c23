//! The ops for NVIDIA devices: compiled kernels, and what each op launches with which arguments.
//!
//! The kernels (`kernels/cuda/*.cu`) are compiled ahead to PTX that is part of the binary; the
//! driver compiles the newest image that a device can run. A [`Launch`] is plain data: the same
//! launches go to a driver or, in tests, to a simulator that runs the very bytes that ship.

mod attention;
mod experts;
mod images;
mod launch;
mod layout;
mod linear;
mod rows;
mod run;
mod sample;
mod wgmma;

pub use attention::{
    Attention, AttentionItem, AttentionPlan, AttentionRows, Combine, KvScales, Rope, Scoring,
    SequenceRows, combine, has_head_dim, paged_attention, plan, rope_write_kv, row_attention,
};
pub use experts::{Route, combine_experts, deal_rows, route};
pub use launch::{DevicePtr, Fields, Launch, Params};
pub use layout::{PackedWeights, pack};
pub use linear::{
    Ending, Group, LARGE_FROM, LinearLaunch, Rows16, convert_rows, linear, linear_exact,
    quantize_rows,
};
pub use rows::{
    Copied, NormRows, TokensAt, activate, add_gated_rows, add_scaled, adjust_rows, clamp,
    copy_blocks, embed, fill, gather_rows, norm_rows, scale_softcap, scatter_add_rows,
    scatter_rows, strided_copy,
};
pub(crate) use run::{
    AttentionAt, CudaKv, CudaLinear, CudaLowRank, Gpu, NormAt, OutAt, RopeAt, Values,
};
pub use run::{BareGpu, CudaError};
pub use sample::{
    ANSWER_BYTES, MOST_LOGITS, MOST_TOP, MOST_TOP_K, pack_rows, sample_rows, unpack_answer,
};
pub(crate) use wgmma::IMAGE as WGMMA_IMAGE;
pub use wgmma::{WGMMA_LARGE_FROM, has_wgmma, linear_wgmma};

/// How a cache stores keys and values on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvStorage {
    F32,
    Bf16,
    /// Two's complement with a scale for what a kv head has in a slot, as on the CPU.
    Int8,
    /// E4M3 with such scales; they undo that a code is read as 2^-8 of its value.
    Fp8,
}

impl KvStorage {
    pub fn has_scales(self) -> bool {
        matches!(self, Self::Int8 | Self::Fp8)
    }
}

/// One compiled source for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    pub name: &'static str,
    /// The oldest compute capability that it runs on.
    pub capability: (u32, u32),
    /// Whether it runs on no other.
    pub is_exact: bool,
    pub ptx: &'static str,
}

/// The newest image of each name that a device of this compute capability can run; none on a
/// device older than 8.0.
pub fn images_for(capability: (u32, u32)) -> impl Iterator<Item = &'static Image> {
    let runs = move |image: &&Image| {
        if image.is_exact {
            image.capability == capability
        } else {
            image.capability <= capability
        }
    };
    images::IMAGES.iter().filter(runs).filter(move |image| {
        let newer =
            |other: &&Image| other.name == image.name && other.capability > image.capability;
        !images::IMAGES
            .iter()
            .filter(runs)
            .any(|other| newer(&other))
    })
}

/// The number of a format in launches of kernels that take any.
fn format_code(ty: crate::WeightType) -> i32 {
    use crate::WeightType as W;
    match ty {
        W::F32 => 0,
        W::F16 => 1,
        W::BF16 => 2,
        W::Q4_0 => 3,
        W::Q4_1 => 4,
        W::Q5_0 => 5,
        W::Q5_1 => 6,
        W::Q8_0 => 7,
        W::Q2_K => 8,
        W::Q3_K => 9,
        W::Q4_K => 10,
        W::Q5_K => 11,
        W::Q6_K => 12,
        W::IQ4_NL => 13,
    }
}

/// A count of blocks or values as a kernel takes it.
pub(crate) fn int(n: usize) -> i32 {
    i32::try_from(n).expect("shapes of a step fit 31 bits")
}

pub(crate) fn uint(n: usize) -> u32 {
    u32::try_from(n).expect("shapes of a step fit 32 bits")
}
