//! Quantized weights times activations: the kernels of `Numerics::Native` (int8 activations,
//! exact int32 sums) and of `Numerics::F32` (weights widened exactly, f32 activations).
//!
//! Both take a block of `T` tiles by `R` rows. Whatever T and R are, one output sums its groups
//! in order into one accumulator, so its bits depend on its own row and column alone.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::ops::Range;

use super::activations::ActGroup;
use super::simd::{LANES, Simd};
use crate::format::IQ4_NL_VALUES;
use crate::format::layout::{GROUP, LINE, Layout, SUPER, ScaleKind, TILE};

/// A format, as something that kernels are compiled for.
pub(crate) trait Format {
    const LAYOUT: Layout;
}

/// The packed bytes of one tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileBytes<'a> {
    /// `[n_groups][n_lines]`.
    pub(crate) lines: &'a [[u8; LINE]],
    pub(crate) scales: &'a [u8],
}

/// Quads of a group.
const QUADS: usize = GROUP / 4;

/// IQ4_NL's values, made unsigned by adding 128.
const CODEBOOK: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = IQ4_NL_VALUES[i].cast_unsigned() ^ 0x80;
        i += 1;
    }
    table
};

/// What eight groups of a tile share, where a format has that: widened once for all of them.
#[derive(Clone, Copy)]
pub(crate) struct Super<S: Simd> {
    scale: S::F,
    /// Minus the scale of minima.
    min: S::F,
}

/// A group of a tile with its scales read.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a, S: Simd> {
    lines: &'a [[u8; LINE]],
    pub(crate) scale: [S::F; 2],
    pub(crate) min: [S::F; 2],
}

#[inline(always)]
fn f16_at<S: Simd>(s: S, scales: &[u8], at: usize) -> S::F {
    let bytes: &[[u8; 2]] = scales[at..at + 2 * TILE].as_chunks().0;
    let mut bits = [0; LANES];
    for i in 0..LANES {
        bits[i] = u16::from_le_bytes(bytes[i]);
    }
    s.load_f16(&bits)
}

#[inline(always)]
fn bytes_at(scales: &[u8], at: usize) -> &[u8; TILE] {
    scales[at..].first_chunk().expect("scales of a whole group")
}

impl<S: Simd> Super<S> {
    #[inline(always)]
    pub(crate) fn none(s: S) -> Self {
        Self {
            scale: s.zero(),
            min: s.zero(),
        }
    }

    #[inline(always)]
    pub(crate) fn read<Q: Format>(s: S, tile: TileBytes<'_>, group: usize) -> Self {
        let at = Q::LAYOUT.super_offset(group);
        let min = match Q::LAYOUT.scales {
            ScaleKind::Super32Min | ScaleKind::Super16Min => {
                s.sub(s.zero(), f16_at(s, tile.scales, at + 2 * TILE))
            }
            _ => s.zero(),
        };
        Self {
            scale: f16_at(s, tile.scales, at),
            min,
        }
    }
}

impl<'a, S: Simd> Group<'a, S> {
    #[inline(always)]
    pub(crate) fn read<Q: Format>(s: S, tile: TileBytes<'a>, of: Super<S>, group: usize) -> Self {
        let layout = Q::LAYOUT;
        let n_lines = layout.n_lines();
        let lines = &tile.lines[group * n_lines..group * n_lines + n_lines];
        let at = layout.group_offset(group);
        let zero = s.zero();
        let (d, m) = (of.scale, of.min);
        let (scale, min) = match layout.scales {
            ScaleKind::PerGroup => ([f16_at(s, tile.scales, at), zero], [zero; 2]),
            ScaleKind::PerGroupMin => (
                [f16_at(s, tile.scales, at), zero],
                [f16_at(s, tile.scales, at + 32), zero],
            ),
            ScaleKind::Super32Min => {
                let scale = s.to_f(s.load_u8(bytes_at(tile.scales, at)));
                let min = s.to_f(s.load_u8(bytes_at(tile.scales, at + TILE)));
                ([s.mul(d, scale), zero], [s.mul(m, min), zero])
            }
            ScaleKind::Super16 => {
                let first = s.to_f(s.load_i8(bytes_at(tile.scales, at)));
                let second = s.to_f(s.load_i8(bytes_at(tile.scales, at + TILE)));
                ([s.mul(d, first), s.mul(d, second)], [zero; 2])
            }
            ScaleKind::Super16Min => {
                let nibble = s.splat_i(15);
                let first = s.load_u8(bytes_at(tile.scales, at));
                let second = s.load_u8(bytes_at(tile.scales, at + TILE));
                (
                    [
                        s.mul(d, s.to_f(s.and(first, nibble))),
                        s.mul(d, s.to_f(s.and(second, nibble))),
                    ],
                    [
                        s.mul(m, s.to_f(s.shr(first, 4))),
                        s.mul(m, s.to_f(s.shr(second, 4))),
                    ],
                )
            }
        };
        Self { lines, scale, min }
    }

    /// Quad `j` of the group, its planes put together: unsigned codes.
    #[inline(always)]
    pub(crate) fn quad<Q: Format>(&self, s: S, j: usize) -> S::I {
        let layout = Q::LAYOUT;
        let (low_bits, high_bits) = (layout.low_bits, layout.high_bits);
        let mut codes = s.load_bytes(&self.lines[j % low_bits]);
        if low_bits < 8 {
            let mask = ((1_i32 << low_bits) - 1) * 0x0101_0101;
            codes = s.shr(codes, (low_bits * (j / low_bits)) as u32);
            codes = s.and(codes, s.splat_i(mask));
        }
        if high_bits > 0 {
            // Moved so that the wanted bits land just above the low ones, in one shift.
            let line = s.load_bytes(&self.lines[low_bits + j % high_bits]);
            let from = high_bits * (j / high_bits);
            let line = if from >= low_bits {
                s.shr(line, (from - low_bits) as u32)
            } else {
                s.shl(line, (low_bits - from) as u32)
            };
            let mask = (((1_i32 << high_bits) - 1) << low_bits) * 0x0101_0101;
            codes = s.or(codes, s.and(line, s.splat_i(mask)));
        }
        if layout.codebook {
            codes = s.lookup(codes, &CODEBOOK);
        }
        codes
    }
}

/// The codes of a group as [`Simd::dots`] takes them, for all rows of a block.
#[derive(Clone, Copy)]
struct Codes<S: Simd> {
    low: [S::I; QUADS],
    /// The upper four of eight bits, where a dot product does not take bytes.
    high: [S::I; QUADS],
}

impl<S: Simd> Codes<S> {
    #[inline(always)]
    fn are_split<Q: Format>() -> bool {
        !S::BYTES && !S::SIGNED && !Q::LAYOUT.is_small()
    }

    #[inline(always)]
    fn read<Q: Format>(s: S, group: &Group<'_, S>) -> Self {
        let nibble = s.splat_i(0x0f0f_0f0f);
        let mut codes = Self {
            low: [s.splat_i(0); QUADS],
            high: [s.splat_i(0); QUADS],
        };
        for j in 0..QUADS {
            codes.low[j] = group.quad::<Q>(s, j);
            if is_centred::<S, Q>() {
                codes.low[j] = s.xor(codes.low[j], s.splat_i(0x8080_8080_u32.cast_signed()));
            }
            if Self::are_split::<Q>() {
                codes.high[j] = s.and(s.shr(codes.low[j], 4), nibble);
                codes.low[j] = s.and(codes.low[j], nibble);
            }
        }
        codes
    }

    /// `acc` plus some quads times those of some rows.
    #[inline(always)]
    fn dots<Q: Format, const R: usize>(
        &self,
        s: S,
        mut acc: [S::I; R],
        acts: [&ActGroup; R],
        quads: Range<usize>,
    ) -> [S::I; R] {
        let of_rows: [&[i32]; R] = std::array::from_fn(|r| &acts[r].quads[quads.clone()]);
        let mut bits = Q::LAYOUT.n_lines();
        if Self::are_split::<Q>() {
            bits = 4;
            let zero = [s.splat_i(0); R];
            let high = s.dots(zero, &self.high[quads.clone()], of_rows, bits);
            for r in 0..R {
                acc[r] = s.add_i(acc[r], s.shl(high[r], 4));
            }
        }
        s.dots(acc, &self.low[quads], of_rows, bits)
    }

    /// [`Codes::add_to`] for group `g` of rows from `first` on, `N` at a time as long as there are that
    /// many; the row after.
    #[inline(always)]
    fn meet<Q: Format, const T: usize, const N: usize>(
        &self,
        s: S,
        weights: &Group<'_, S>,
        (rows, g): (&[&[ActGroup]], usize),
        (first, t): (usize, usize),
        out: &mut [[S::F; T]],
    ) -> usize {
        let (some_rows, left) = rows[first..].as_chunks::<N>();
        let (some_out, _) = out[first..].as_chunks_mut::<N>();
        for (rows, out) in some_rows.iter().zip(some_out) {
            let acts = std::array::from_fn(|r| &rows[r][g]);
            self.add_to::<Q, T, N>(s, weights, acts, t, out);
        }
        rows.len() - left.len()
    }

    /// Adds to the outputs of some rows what tile `t` gives.
    #[inline(always)]
    fn add_to<Q: Format, const T: usize, const R: usize>(
        &self,
        s: S,
        weights: &Group<'_, S>,
        acts: [&ActGroup; R],
        t: usize,
        out: &mut [[S::F; T]; R],
    ) {
        let quads_per_half = QUADS / Q::LAYOUT.n_halves();
        for half in 0..Q::LAYOUT.n_halves() {
            let quads = half * quads_per_half..(half + 1) * quads_per_half;
            let part = part_of::<Q>(half);
            let mut sums = [s.splat_i(0); R];
            for r in 0..R {
                sums[r] = Group::zero_sum::<Q>(s, acts[r], part);
            }
            sums = self.dots::<Q, R>(s, sums, acts, quads);
            for r in 0..R {
                out[r][t] = weights.add_scaled::<Q>(s, half, acts[r], sums[r], out[r][t]);
            }
        }
    }
}

impl<S: Simd> Group<'_, S> {
    /// What sums of codes begin at: minus the zero point's share.
    #[inline(always)]
    fn zero_sum<Q: Format>(s: S, act: &ActGroup, part: usize) -> S::I {
        match Q::LAYOUT.zero {
            _ if is_centred::<S, Q>() => s.splat_i(0),
            0 => s.splat_i(0),
            zero => s.splat_i(-zero * act.sums[part]),
        }
    }

    /// `out` plus a sum of codes, scaled, and the share of the minimum.
    #[inline(always)]
    fn add_scaled<Q: Format>(
        &self,
        s: S,
        half: usize,
        act: &ActGroup,
        sum: S::I,
        out: S::F,
    ) -> S::F {
        let scale = s.mul(self.scale[half], s.splat(act.scale));
        let out = s.fma(s.to_f(sum), scale, out);
        if Q::LAYOUT.has_min() {
            let sum = s.splat(act.scaled_sums[part_of::<Q>(half)]);
            return s.fma(self.min[half], sum, out);
        }
        out
    }
}

/// Whether the codes of a group come to dot products as signed bytes, their zero point (128) taken
/// off.
#[inline(always)]
fn is_centred<S: Simd, Q: Format>() -> bool {
    S::SIGNED && !Q::LAYOUT.is_small()
}

/// Which sum of a row's codes belongs to a half of the weights' group: they may have but one.
#[inline(always)]
fn part_of<Q: Format>(half: usize) -> usize {
    if Q::LAYOUT.n_halves() == 1 { 2 } else { half }
}

/// Adds to `out` what a range of inputs gives, whole groups from one on that begins a super-block.
///
/// `Numerics::Native`: per group, int32 sums of unsigned codes times int8 activations that begin
/// at minus the zero point's share; then one f32 fused multiply-add for each scale and minimum.
/// Without [`Simd::WIDE`], only the first `n_rows` rows count.
#[inline(always)]
pub(crate) fn native_block<S: Simd, Q: Format, const T: usize, const R: usize>(
    s: S,
    tiles: [TileBytes<'_>; T],
    (rows, n_rows): ([&[ActGroup]; R], usize),
    inputs: Range<usize>,
    mut out: [[S::F; T]; R],
) -> [[S::F; T]; R] {
    let mut supers = [Super::none(s); T];
    for g in inputs.start / GROUP..inputs.end / GROUP {
        if Q::LAYOUT.has_super() && g % SUPER == 0 {
            for t in 0..T {
                supers[t] = Super::read::<Q>(s, tiles[t], g);
            }
        }
        let mut weights = [Group::read::<Q>(s, tiles[0], supers[0], g); T];
        for t in 1..T {
            weights[t] = Group::read::<Q>(s, tiles[t], supers[t], g);
        }
        if S::WIDE {
            let acts = std::array::from_fn(|r| &rows[r][g]);
            all_at_once::<S, Q, T, R>(s, &weights, acts, &mut out);
        } else {
            few_at_once::<S, Q, T>(s, &weights, (&rows[..n_rows], g), &mut out[..n_rows]);
        }
    }
    out
}

/// A group with the sums of all rows and tiles under way, which hides the latency of each.
#[inline(always)]
fn all_at_once<S: Simd, Q: Format, const T: usize, const R: usize>(
    s: S,
    weights: &[Group<'_, S>; T],
    acts: [&ActGroup; R],
    out: &mut [[S::F; T]; R],
) {
    let quads_per_half = QUADS / Q::LAYOUT.n_halves();
    for half in 0..Q::LAYOUT.n_halves() {
        let mut sums = [[s.splat_i(0); T]; R];
        for r in 0..R {
            sums[r] = [Group::zero_sum::<Q>(s, acts[r], part_of::<Q>(half)); T];
        }
        for j in half * quads_per_half..(half + 1) * quads_per_half {
            for t in 0..T {
                let codes = weights[t].quad::<Q>(s, j);
                for r in 0..R {
                    let quad = s.splat_i(acts[r].quads[j]);
                    sums[r][t] = s.dot(sums[r][t], codes, quad);
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                out[r][t] = weights[t].add_scaled::<Q>(s, half, acts[r], sums[r][t], out[r][t]);
            }
        }
    }
}

/// A group where registers hold few sums: its codes are put together once for all rows, and some rows
/// at a time meet them.
#[inline(always)]
fn few_at_once<S: Simd, Q: Format, const T: usize>(
    s: S,
    weights: &[Group<'_, S>; T],
    rows: (&[&[ActGroup]], usize),
    out: &mut [[S::F; T]],
) {
    for t in 0..T {
        let codes = Codes::read::<Q>(s, &weights[t]);
        let mut next = 0;
        // Codes in two planes are twice as much to read: four rows share that, though not all sums fit.
        if S::FOUR_ROWS || Codes::<S>::are_split::<Q>() {
            next = codes.meet::<Q, T, 4>(s, &weights[t], rows, (next, t), out);
        }
        next = codes.meet::<Q, T, 2>(s, &weights[t], rows, (next, t), out);
        codes.meet::<Q, T, 1>(s, &weights[t], rows, (next, t), out);
    }
}

/// The same for `Numerics::F32`: weights widened to exactly what the format defines, summed in
/// input order.
#[inline(always)]
pub(crate) fn f32_block<S: Simd, Q: Format, const T: usize, const R: usize>(
    s: S,
    tiles: [TileBytes<'_>; T],
    (rows, _): ([&[f32]; R], usize),
    inputs: Range<usize>,
    mut out: [[S::F; T]; R],
) -> [[S::F; T]; R] {
    let layout = Q::LAYOUT;
    let quads_per_half = 8 / layout.n_halves();
    let byte = s.splat_i(0xff);
    let zero = s.splat_i(-layout.zero);
    let mut supers = [Super::none(s); T];
    for g in inputs.start / GROUP..inputs.end / GROUP {
        let x: [&[f32]; R] = std::array::from_fn(|r| &rows[r][g * GROUP..g * GROUP + GROUP]);
        for t in 0..T {
            if layout.has_super() && g % SUPER == 0 {
                supers[t] = Super::read::<Q>(s, tiles[t], g);
            }
            let group = Group::read::<Q>(s, tiles[t], supers[t], g);
            for j in 0..8 {
                let half = j / quads_per_half;
                let codes = group.quad::<Q>(s, j);
                for b in 0..4 {
                    let code = s.and(s.shr(codes, 8 * b as u32), byte);
                    let value = s.to_f(s.add_i(code, zero));
                    // The product is exact, so fused or not is the same.
                    let weight = if layout.has_min() {
                        s.fma(group.scale[half], value, group.min[half])
                    } else {
                        s.mul(group.scale[half], value)
                    };
                    for r in 0..R {
                        out[r][t] = s.fma(weight, s.splat(x[r][4 * j + b]), out[r][t]);
                    }
                }
            }
        }
    }
    out
}
