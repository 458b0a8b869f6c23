//! Launches of dense linear layers where products of warp groups (`wgmma`) are: compute
//! capability 9.0. Layers of one weight take them whatever the number of rows, because nothing
//! promises that they add up as other matrix instructions do.

use super::images_for;
use super::launch::{Launch, Params};
use super::linear::LinearLaunch;
use crate::WeightType;

/// The image of [`linear_wgmma`].
pub(crate) const IMAGE: &str = "linear_wgmma";

/// Rows from which the version for many rows is taken (modelled to be faster, not measured). Both give
/// the same bits if, as all tensor cores are taken to do, wider instructions sum alike.
pub const WGMMA_LARGE_FROM: usize = 65;

/// A block: warp groups that multiply and one that brings, in a ring of stages of 32 inputs.
struct Shape {
    rows: usize,
    columns: usize,
    stages: usize,
}

const SMALL: Shape = Shape {
    rows: 64,
    columns: 32,
    stages: 16,
};
const LARGE: Shape = Shape {
    rows: 128,
    columns: 128,
    stages: 8,
};

impl Shape {
    /// Four warps for each 64 rows, and four that bring.
    fn threads(&self) -> usize {
        128 * (self.rows / 64 + 1)
    }

    /// Of each stage 64 bytes a row and a column, and two barriers.
    fn shared_bytes(&self) -> usize {
        self.stages * (64 * (self.rows + self.columns) + 16)
    }
}

/// Whether a device of this compute capability has products of warp groups.
pub fn has_wgmma(capability: (u32, u32)) -> bool {
    images_for(capability).any(|image| image.name == IMAGE)
}

/// As [`super::linear`], for 16-bit weights on a device that [`has_wgmma`].
///
/// # Panics
/// For other weights.
pub fn linear_wgmma(op: &LinearLaunch) -> Launch {
    let large = op.n_rows >= WGMMA_LARGE_FROM;
    let kernel = match (op.ty, large) {
        (WeightType::BF16, false) => "linear_bf16_wgmma_small",
        (WeightType::BF16, true) => "linear_bf16_wgmma_large",
        (WeightType::F16, false) => "linear_f16_wgmma_small",
        (WeightType::F16, true) => "linear_f16_wgmma_large",
        (ty, _) => panic!("{ty:?} weights are not multiplied by warp groups"),
    };
    let shape = if large { LARGE } else { SMALL };
    Launch::new(IMAGE, kernel, Params::new().value(&op.fields()))
        .grid(op.grid((shape.columns, shape.rows)))
        .threads(super::uint(shape.threads()))
        .shared(shape.shared_bytes())
}
