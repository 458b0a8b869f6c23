//! Activations in the form that weights meet them in: int8 for weights that are integers, bf16
//! for those that are bf16.
//!
//! For int8, each row is quantized in groups of 32 on its own: scale = max |x| / 127, codes
//! rounded to nearest even. The sums of the codes, needed for zero points and minima, come along.

use super::Cpu;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::format::layout::GROUP;

/// Groups that are worth a chunk of their own: some microseconds.
const CHUNK: usize = 96;

/// A group of 32 quantized values: one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct ActGroup {
    /// Four int8 each, as the bytes of an i32.
    pub(crate) quads: [i32; 8],
    pub(crate) scale: f32,
    /// Sums of the codes of each half, then of both.
    pub(crate) sums: [i32; 3],
    /// The same times `scale`.
    pub(crate) scaled_sums: [f32; 3],
}

/// Rows of activations, of as many kinds as a call needs. The memory is kept.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    groups: Vec<ActGroup>,
    groups_per_row: usize,
    /// Two bf16 each, see [`Simd::pair`].
    pairs: Vec<f32>,
    pairs_per_row: usize,
}

impl Activations {
    /// Quantizes `n_rows` rows of `n_in` values, a multiple of 32.
    pub(crate) fn quantize(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        debug_assert!(n_in.is_multiple_of(GROUP));
        self.groups_per_row = n_in / GROUP;
        let n_groups = n_rows * self.groups_per_row;
        if self.groups.len() < n_groups {
            self.groups.resize(n_groups, ActGroup::default());
        }
        let groups = SharedMut::new(&mut self.groups[..n_groups]);
        cpu.pool.run(n_groups.div_ceil(CHUNK), &|chunk, _| {
            let first = chunk * CHUNK;
            let n = CHUNK.min(n_groups - first);
            // SAFETY: chunks do not overlap.
            let groups = unsafe { groups.part(first, n) };
            cpu.isa.run(Quantize {
                x: &x[first * GROUP..][..n * GROUP],
                groups,
            });
        });
    }

    /// Rounds `n_rows` rows to bf16, two values to an element; half of the last is zero where
    /// their number is odd.
    pub(crate) fn round(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        self.pairs_per_row = n_in.div_ceil(2);
        let n_pairs = n_rows * self.pairs_per_row;
        if self.pairs.len() < n_pairs {
            self.pairs.resize(n_pairs, 0.0);
        }
        let pairs = SharedMut::new(&mut self.pairs[..n_pairs]);
        let rows_per_chunk = (CHUNK * GROUP).div_ceil(n_in.max(1));
        cpu.pool.run(n_rows.div_ceil(rows_per_chunk), &|chunk, _| {
            let first = chunk * rows_per_chunk;
            let n = rows_per_chunk.min(n_rows - first);
            cpu.isa.run(Round {
                x: &x[first * n_in..][..n * n_in],
                n_in,
                // SAFETY: chunks do not overlap.
                pairs: unsafe { pairs.part(first * self.pairs_per_row, n * self.pairs_per_row) },
            });
        });
    }

    /// A row as [`Activations::quantize`] made it.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[ActGroup] {
        &self.groups[row * self.groups_per_row..][..self.groups_per_row]
    }

    /// A row as [`Activations::round`] made it.
    #[inline(always)]
    pub(crate) fn row_of_pairs(&self, row: usize) -> &[f32] {
        &self.pairs[row * self.pairs_per_row..][..self.pairs_per_row]
    }
}

/// Rows of `n_in` values to rows of pairs.
struct Round<'a> {
    x: &'a [f32],
    n_in: usize,
    pairs: &'a mut [f32],
}

impl Kernel for Round<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact(self.n_in.max(1));
        let pairs_of = self.pairs.chunks_exact_mut(self.n_in.div_ceil(2).max(1));
        for (x, pairs) in rows.zip(pairs_of) {
            for (x, pairs) in x.chunks(LANES).zip(pairs.chunks_mut(LANES / 2)) {
                let mut rounded = [0.0; LANES / 2];
                s.store_pairs(s.round_bf16(s.load_part(x)), &mut rounded);
                pairs.copy_from_slice(&rounded[..pairs.len()]);
            }
        }
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    groups: &'a mut [ActGroup],
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Adding it leaves the rounded integer in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let round = s.splat(ROUND);
        for (x, group) in self.x.as_chunks::<GROUP>().0.iter().zip(self.groups) {
            let halves = x.as_chunks::<LANES>().0;
            let (a, b) = (s.load(&halves[0]), s.load(&halves[1]));
            let magnitude = s.splat_i(i32::MAX);
            let abs_a = s.reinterpret(s.and(s.bits(a), magnitude));
            let abs_b = s.reinterpret(s.and(s.bits(b), magnitude));
            let largest = s.max_lane(s.max(abs_a, abs_b));
            // Zero, unless a value is infinite or not a number: then the whole group is not.
            let taint = s.sum(s.fma(a, s.zero(), s.mul(b, s.zero())));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let mut codes = [0_i8; GROUP];
            let mut lanes = [0.0; LANES];
            for (x, codes) in [a, b].into_iter().zip(codes.as_chunks_mut::<LANES>().0) {
                let y = s.sub(s.fma(x, s.splat(inverse), round), round);
                let y = s.min(s.max(y, s.splat(-127.0)), s.splat(127.0));
                s.store(s.add(y, round), &mut lanes);
                *codes = lanes.map(|y: f32| y.to_bits() as i8);
            }
            finish(group, &codes, largest / 127.0 + taint);
        }
    }
}

#[inline(always)]
fn finish(group: &mut ActGroup, codes: &[i8; GROUP], scale: f32) {
    for (quad, codes) in group.quads.iter_mut().zip(codes.as_chunks::<4>().0) {
        *quad = i32::from_le_bytes(codes.map(i8::cast_unsigned));
    }
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
    let (first, second): (i32, i32) = (sum(&codes[..16]), sum(&codes[16..]));
    group.scale = scale;
    group.sums = [first, second, first + second];
    group.scaled_sums = group.sums.map(|sum| sum as f32 * scale);
}
