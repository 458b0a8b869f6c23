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
    /// Two bf16 each, see [`Simd::pair`]; one widened each, where the machine has no dot product of
    /// pairs.
    rounded: Vec<f32>,
    rounded_per_row: usize,
}

impl Activations {
    /// Quantizes `n_rows` rows of `n_in` values, a multiple of 32.
    pub(crate) fn quantize(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        debug_assert!(n_in.is_multiple_of(GROUP));
        let per_row = n_in / GROUP;
        self.groups_per_row = per_row;
        let stride = apart(per_row);
        if self.groups.len() < n_rows * stride {
            self.groups.resize(n_rows * stride, ActGroup::default());
        }
        let groups = SharedMut::new(&mut self.groups[..n_rows * stride]);
        // Some rows, or a part of one.
        let rows_per_chunk = (CHUNK / per_row.max(1)).max(1);
        let parts = per_row.div_ceil(CHUNK);
        cpu.pool
            .run(n_rows.div_ceil(rows_per_chunk) * parts, &|chunk, _| {
                let first_row = chunk / parts * rows_per_chunk;
                let first = chunk % parts * CHUNK;
                let n = CHUNK.min(per_row - first);
                for row in first_row..n_rows.min(first_row + rows_per_chunk) {
                    cpu.isa.run(Quantize {
                        x: &x[row * n_in + first * GROUP..][..n * GROUP],
                        // SAFETY: parts do not overlap.
                        groups: unsafe { groups.part(row * stride + first, n) },
                    });
                }
            });
    }

    /// Rounds `n_rows` rows to bf16, two values to an element where the machine takes them so; half
    /// of the last is zero where their number is odd.
    pub(crate) fn round(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        let per_row = if cpu.isa.has_pairs() {
            n_in.div_ceil(2)
        } else {
            n_in
        };
        self.rounded_per_row = per_row;
        let stride = rounded_stride(per_row);
        if self.rounded.len() < n_rows * stride {
            self.rounded.resize(n_rows * stride, 0.0);
        }
        let rounded = SharedMut::new(&mut self.rounded[..n_rows * stride]);
        let rows_per_chunk = (CHUNK * GROUP).div_ceil(n_in.max(1));
        cpu.pool.run(n_rows.div_ceil(rows_per_chunk), &|chunk, _| {
            let first = chunk * rows_per_chunk;
            let n = rows_per_chunk.min(n_rows - first);
            cpu.isa.run(Round {
                x: &x[first * n_in..][..n * n_in],
                n_in,
                // SAFETY: chunks do not overlap.
                rounded: unsafe { rounded.part(first * stride, n * stride) },
                per_row,
            });
        });
    }

    /// A row as [`Activations::quantize`] made it.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[ActGroup] {
        &self.groups[row * apart(self.groups_per_row)..][..self.groups_per_row]
    }

    /// A row as [`Activations::round`] made it.
    #[inline(always)]
    pub(crate) fn rounded_row(&self, row: usize) -> &[f32] {
        let per_row = self.rounded_per_row;
        &self.rounded[row * rounded_stride(per_row)..][..per_row]
    }
}

/// Lines from one row to the next: an odd number of them, so that the same place of many rows is not
/// in the same set of a cache.
fn apart(lines_per_row: usize) -> usize {
    lines_per_row | 1
}

/// Elements from one rounded row to the next.
fn rounded_stride(per_row: usize) -> usize {
    LANES * apart(per_row.div_ceil(LANES))
}

/// Rows of `n_in` values to rows of pairs or of rounded values.
struct Round<'a> {
    x: &'a [f32],
    n_in: usize,
    rounded: &'a mut [f32],
    /// Elements of `rounded` that a row has.
    per_row: usize,
}

impl Kernel for Round<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact(self.n_in.max(1));
        let rounded = self.rounded.chunks_exact_mut(rounded_stride(self.per_row));
        for (x, rounded) in rows.zip(rounded) {
            let rounded = &mut rounded[..self.per_row];
            if !S::PAIRS {
                for (x, rounded) in x.chunks(LANES).zip(rounded.chunks_mut(LANES)) {
                    s.store_part(s.reinterpret(s.round_bf16(s.load_part(x))), rounded);
                }
                continue;
            }
            for (x, pairs) in x.chunks(LANES).zip(rounded.chunks_mut(LANES / 2)) {
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
            let mut sums = [0; 2];
            for (half, x) in [a, b].into_iter().enumerate() {
                let y = s.sub(s.fma(x, s.splat(inverse), round), round);
                let y = s.min(s.max(y, s.splat(-127.0)), s.splat(127.0));
                let codes = s.narrow(s.bits(s.add(y, round)));
                for (quad, codes) in group.quads[4 * half..].iter_mut().zip(codes.as_chunks().0) {
                    *quad = i32::from_le_bytes(*codes);
                }
                // Of small integers: exact.
                sums[half] = s.sum(y) as i32;
            }
            let scale = largest / 127.0 + taint;
            group.scale = scale;
            group.sums = [sums[0], sums[1], sums[0] + sums[1]];
            group.scaled_sums = group.sums.map(|sum| sum as f32 * scale);
        }
    }
}
