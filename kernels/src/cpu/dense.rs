//! Dense weights times activations, accumulated in f32: f32 activations, or for bf16 weights
//! and `Numerics::Native` bf16 ones in pairs.
//!
//! Packed in tiles of 16 output columns: `[k][16]` for f32 and f16, `[k / 2][16][2]` for bf16
//! (the pairs that instructions take, which add the upper half of a lane first: so the first of a
//! pair comes after the second in memory). Every output sums its inputs in order into one
//! accumulator, whatever the block of rows and tiles.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::ops::Range;

use super::simd::{LANES, Simd};
use crate::WeightType;
use crate::format::layout::TILE;
use crate::memory::Plain;

/// A dense storage type, as something that kernels are compiled for. A step of `STEP` inputs is
/// one element of packed memory.
pub(crate) trait DenseFormat {
    type Packed: Plain;
    const STEP: usize;

    /// The weights of all columns for input `k` of a step.
    fn load<S: Simd>(s: S, packed: &Self::Packed, k: usize) -> S::F;
}

/// Inputs that one element of packed memory holds, and its bytes.
pub(crate) fn step(ty: WeightType) -> (usize, usize) {
    match ty {
        WeightType::F32 => (1, 4 * TILE),
        WeightType::F16 => (1, 2 * TILE),
        WeightType::BF16 => (2, 4 * TILE),
        _ => unreachable!("{ty:?} is not dense"),
    }
}

/// Packs up to 16 rows of `n_in` values into one zeroed tile.
pub(crate) fn pack(ty: WeightType, rows: &[u8], n_in: usize, tile: &mut [u8]) {
    match ty {
        WeightType::F16 => pack_units::<2>(rows, n_in * 2, tile, |unit| unit),
        WeightType::BF16 => pack_units::<4>(rows, n_in * 2, tile, |[a, b, c, d]| [c, d, a, b]),
        WeightType::F32 => pack_units::<4>(rows, n_in * 4, tile, |unit| unit),
        _ => unreachable!("{ty:?} is not dense"),
    }
}

/// Deals out units of `N` bytes (what one column has in one step): unit `i` of column `c` goes
/// to place `i * 16 + c`, in the order of bytes that `arrange` makes. Some units of all columns at
/// a time, so that lines are filled while they are near.
fn pack_units<const N: usize>(
    rows: &[u8],
    row_bytes: usize,
    tile: &mut [u8],
    arrange: impl Fn([u8; N]) -> [u8; N],
) {
    const NEAR: usize = 128;
    let (places, _) = tile.as_chunks_mut::<N>();
    for (part, places) in places.chunks_mut(NEAR * TILE).enumerate() {
        for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (units, rest) = row.as_chunks::<N>();
            let units = &units[(part * NEAR).min(units.len())..];
            let steps = places.chunks_exact_mut(TILE);
            let n_steps = steps.len();
            for (step, unit) in steps.zip(units) {
                step[column] = arrange(*unit);
            }
            if units.len() < n_steps {
                // Half a pair of bf16 at the end of an odd row.
                let mut unit = [0; N];
                unit[..rest.len()].copy_from_slice(rest);
                places[units.len() * TILE + column] = arrange(unit);
            }
        }
    }
}

/// Where the value of `column` for input `k` lies in a tile.
pub(crate) fn value_offset(ty: WeightType, column: usize, k: usize) -> usize {
    let (step, step_bytes) = step(ty);
    k / step * step_bytes + (column * step + step - 1 - k % step) * ty.block_bytes()
}

#[derive(Debug)]
pub(crate) struct F32;
#[derive(Debug)]
pub(crate) struct F16;
#[derive(Debug)]
pub(crate) struct Bf16;

impl DenseFormat for F32 {
    type Packed = [f32; LANES];
    const STEP: usize = 1;

    #[inline(always)]
    fn load<S: Simd>(s: S, packed: &Self::Packed, _k: usize) -> S::F {
        s.load(packed)
    }
}

impl DenseFormat for F16 {
    type Packed = [u16; LANES];
    const STEP: usize = 1;

    #[inline(always)]
    fn load<S: Simd>(s: S, packed: &Self::Packed, _k: usize) -> S::F {
        s.load_f16(packed)
    }
}

impl DenseFormat for Bf16 {
    type Packed = [u8; 4 * LANES];
    const STEP: usize = 2;

    #[inline(always)]
    fn load<S: Simd>(s: S, packed: &Self::Packed, k: usize) -> S::F {
        let pairs = s.load_bytes(packed);
        s.reinterpret(if k == 0 {
            s.and(pairs, s.splat_i(!0xffff))
        } else {
            s.shl(pairs, 16)
        })
    }
}

/// Adds to `sums` what a range of inputs gives, for a block of `T` tiles by `R` rows. The range
/// begins at a multiple of a step.
#[inline(always)]
pub(crate) fn block<S: Simd, D: DenseFormat, const T: usize, const R: usize>(
    s: S,
    tiles: [&[D::Packed]; T],
    rows: [&[f32]; R],
    inputs: Range<usize>,
    sums: [[S::F; T]; R],
) -> [[S::F; T]; R] {
    match D::STEP {
        1 => steps::<S, D, 1, T, R>(s, tiles, rows, inputs, sums),
        2 => steps::<S, D, 2, T, R>(s, tiles, rows, inputs, sums),
        _ => unreachable!("an input or two"),
    }
}

/// [`block`] for formats of `STEP`.
#[inline(always)]
fn steps<S: Simd, D: DenseFormat, const STEP: usize, const T: usize, const R: usize>(
    s: S,
    tiles: [&[D::Packed]; T],
    rows: [&[f32]; R],
    inputs: Range<usize>,
    mut sums: [[S::F; T]; R],
) -> [[S::F; T]; R] {
    let n_steps = inputs.len() / STEP;
    // Cut to lengths that the compiler can see, so that the loop holds no checks.
    let rows: [(&[[f32; STEP]], &[f32]); R] =
        std::array::from_fn(|r| rows[r][inputs.clone()].as_chunks());
    let whole: [&[[f32; STEP]]; R] = std::array::from_fn(|r| &rows[r].0[..n_steps]);
    let first = inputs.start / STEP;
    let tiles: [&[D::Packed]; T] =
        std::array::from_fn(|t| &tiles[t][first..][..inputs.len().div_ceil(STEP)]);
    let whole_tiles: [&[D::Packed]; T] = std::array::from_fn(|t| &tiles[t][..n_steps]);
    for i in 0..n_steps {
        for k in 0..STEP {
            for t in 0..T {
                let weights = D::load(s, &whole_tiles[t][i], k);
                for r in 0..R {
                    sums[r][t] = s.fma(weights, s.splat(whole[r][i][k]), sums[r][t]);
                }
            }
        }
    }
    for k in 0..rows[0].1.len() {
        for t in 0..T {
            let weights = D::load(s, &tiles[t][n_steps], k);
            for r in 0..R {
                sums[r][t] = s.fma(weights, s.splat(rows[r].1[k]), sums[r][t]);
            }
        }
    }
    sums
}

/// The same of bf16 weights and rows of pairs. The range begins at an even input.
#[inline(always)]
pub(crate) fn pairs_block<S: Simd, const T: usize, const R: usize>(
    s: S,
    tiles: [&[[u8; 4 * LANES]]; T],
    rows: [&[f32]; R],
    inputs: Range<usize>,
    mut sums: [[S::F; T]; R],
) -> [[S::F; T]; R] {
    let (first, n_pairs) = (inputs.start / 2, inputs.len().div_ceil(2));
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r][first..][..n_pairs]);
    let tiles: [&[[u8; 4 * LANES]]; T] = std::array::from_fn(|t| &tiles[t][first..][..n_pairs]);
    for i in 0..n_pairs {
        for t in 0..T {
            let weights = s.load_bytes(&tiles[t][i]);
            for r in 0..R {
                sums[r][t] = s.dot_bf16(sums[r][t], weights, s.bits(s.splat(rows[r][i])));
            }
        }
    }
    sums
}
