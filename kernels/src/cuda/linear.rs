//! Launches of linear layers: one weight for all rows, or groups of rows with a weight each
//! (experts, adapters).

use super::launch::{DevicePtr, Fields, Launch, Params};
use super::{format_code, int};
use crate::WeightType;

/// Rows from which the version for many rows is faster; both give the same bits.
pub const LARGE_FROM: usize = 33;

/// Columns of a block of threads, and its rows, for few and for many rows.
const SMALL: (usize, usize) = (16, 32);
const LARGE: (usize, usize) = (128, 64);

/// 16-bit types that activations are converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows16 {
    Bf16,
    F16,
}

/// Rows of `n_in` f32 to 16 bits, each filled up with zeros to whole chunks of 32.
pub fn convert_rows(
    ty: Rows16,
    x: DevicePtr,
    n_in: usize,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let kernel = match ty {
        Rows16::Bf16 => "convert_rows_bf16",
        Rows16::F16 => "convert_rows_f16",
    };
    let params = Params::new().ptr(x).int(int(n_in)).ptr(out);
    Launch::new("convert_rows", kernel, params).over_rows(n_rows, n_in)
}

/// Rows of `n_in` f32 (a multiple of 32) to int8 in groups of 32: 32 bytes of codes and 8 bytes
/// of scale and sums a group.
pub fn quantize_rows(
    x: DevicePtr,
    n_in: usize,
    n_rows: usize,
    codes: DevicePtr,
    meta: DevicePtr,
) -> Launch {
    assert!(n_in.is_multiple_of(32), "groups are whole");
    let n_groups = n_in / 32 * n_rows;
    let params = Params::new().ptr(x).int(int(n_groups)).ptr(codes).ptr(meta);
    Launch::new("convert_rows", "quantize_rows", params)
        .threads(256)
        .grid([n_groups.div_ceil(8), 1, 1])
}

/// A weight and what comes with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    pub weight: DevicePtr,
    /// Of block formats.
    pub scales: DevicePtr,
    /// May be null.
    pub bias: DevicePtr,
    pub n_out: usize,
    /// Chunks of 32 inputs.
    pub n_chunks: usize,
    /// For [`Ending::AddScaled`].
    pub scale: f32,
}

impl Group {
    /// As it lies in a table of groups on the device.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .ptr(self.weight)
            .ptr(self.scales)
            .ptr(self.bias)
            .int(int(self.n_out))
            .int(int(self.n_chunks))
            .float(self.scale)
    }
}

/// What becomes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// `out = sum + bias`.
    Store,
    /// `out += scale * sum`.
    AddScaled,
    /// `out = bf16(sum)`, filled up with zeros to whole chunks of 32: the input of another layer.
    StoreBf16,
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearLaunch {
    pub ty: WeightType,
    /// What [`convert_rows`] or [`quantize_rows`] gave; f32 rows for [`linear_exact`].
    pub x: DevicePtr,
    /// The scales and sums of [`quantize_rows`].
    pub meta: DevicePtr,
    /// Chunks from one row of `x` to the next.
    pub x_chunks: usize,
    pub ending: Ending,
    /// Which row of `x` (of `out`) a row is; null: its own number. A row of `out` occurs once.
    pub rows_in: DevicePtr,
    pub rows_out: DevicePtr,
    pub out: DevicePtr,
    /// Values from one row of `out` to the next.
    pub out_stride: usize,
    /// With groups, of the largest group (rows and columns): others may have fewer.
    pub n_rows: usize,
    /// With groups, only `n_out` counts: the largest.
    pub one: Group,
    /// Table of [`Group`]s, 40 bytes each; null: `one` for all rows.
    pub groups: DevicePtr,
    /// `[n_groups + 1]`: where each group's rows begin.
    pub offsets: DevicePtr,
    pub n_groups: usize,
}

impl LinearLaunch {
    pub(super) fn fields(&self) -> Fields {
        let ending = match self.ending {
            Ending::Store => 0,
            Ending::AddScaled => 1,
            Ending::StoreBf16 => 2,
        };
        Fields::new()
            .ptr(self.x)
            .ptr(self.meta)
            .int(int(self.x_chunks))
            .int(ending)
            .ptr(self.rows_in)
            .ptr(self.rows_out)
            .ptr(self.out)
            .int(int(self.out_stride))
            .int(int(self.n_rows))
            .fields(&self.one.fields())
            .ptr(self.groups)
            .ptr(self.offsets)
    }

    /// Blocks of so many columns and rows.
    pub(super) fn grid(&self, (columns, rows): (usize, usize)) -> [usize; 3] {
        let n_groups = if self.groups == DevicePtr::NULL {
            1
        } else {
            self.n_groups
        };
        [
            self.one.n_out.next_multiple_of(32).div_ceil(columns),
            self.n_rows.div_ceil(rows),
            n_groups,
        ]
    }
}

/// On tensor cores: 16-bit weights with 16-bit activations, block formats with int8 ones.
///
/// # Panics
/// For f32 weights.
pub fn linear(op: &LinearLaunch) -> Launch {
    let large = op.n_rows >= LARGE_FROM;
    let (image, [small_name, large_name]) = names(op.ty);
    let kernel = if large { large_name } else { small_name };
    Launch::new(image, kernel, Params::new().value(&op.fields())).grid(op.grid(if large {
        LARGE
    } else {
        SMALL
    }))
}

/// f32 activations and weights of any format, widened exactly. `n_in` is that of every group.
pub fn linear_exact(op: &LinearLaunch, n_in: usize) -> Launch {
    let params = Params::new()
        .int(format_code(op.ty))
        .int(int(n_in))
        .value(&op.fields());
    Launch::new("linear_exact", "linear_exact", params).grid(op.grid((16, 8)))
}

fn names(ty: WeightType) -> (&'static str, [&'static str; 2]) {
    use WeightType as W;
    match ty {
        W::BF16 => ("linear_dense", ["linear_bf16_small", "linear_bf16_large"]),
        W::F16 => ("linear_dense", ["linear_f16_small", "linear_f16_large"]),
        W::Q4_0 => ("linear_quant32", ["linear_q4_0_small", "linear_q4_0_large"]),
        W::Q4_1 => ("linear_quant32", ["linear_q4_1_small", "linear_q4_1_large"]),
        W::Q5_0 => ("linear_quant32", ["linear_q5_0_small", "linear_q5_0_large"]),
        W::Q5_1 => ("linear_quant32", ["linear_q5_1_small", "linear_q5_1_large"]),
        W::Q8_0 => ("linear_quant32", ["linear_q8_0_small", "linear_q8_0_large"]),
        W::IQ4_NL => (
            "linear_quant32",
            ["linear_iq4_nl_small", "linear_iq4_nl_large"],
        ),
        W::Q2_K => (
            "linear_quant256",
            ["linear_q2_k_small", "linear_q2_k_large"],
        ),
        W::Q3_K => (
            "linear_quant256",
            ["linear_q3_k_small", "linear_q3_k_large"],
        ),
        W::Q4_K => (
            "linear_quant256",
            ["linear_q4_k_small", "linear_q4_k_large"],
        ),
        W::Q5_K => (
            "linear_quant256",
            ["linear_q5_k_small", "linear_q5_k_large"],
        ),
        W::Q6_K => (
            "linear_quant256",
            ["linear_q6_k_small", "linear_q6_k_large"],
        ),
        W::F32 => panic!("f32 weights are summed by `linear_exact`"),
    }
}
