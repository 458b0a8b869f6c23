//! Activations as int8, for weights that are integers.
//!
//! Each row is quantized in groups of 32 on its own: scale = max |x| / 127, codes rounded to
//! nearest even. The sums of the codes, needed for zero points and minima, come along.

use super::pool::Pool;
use super::shared::SharedMut;
use super::simd::{ActiveIsa, Kernel, LANES, Simd};
use crate::format::layout::GROUP;

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

/// Quantized rows.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    groups: Vec<ActGroup>,
    groups_per_row: usize,
}

impl Activations {
    /// Quantizes `n_rows` rows of `n_in` values, a multiple of 32. The memory is kept.
    pub(crate) fn fill(&mut self, pool: &Pool, isa: ActiveIsa, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        debug_assert!(n_in.is_multiple_of(GROUP));
        self.groups_per_row = n_in / GROUP;
        let n_groups = n_rows * self.groups_per_row;
        if self.groups.len() < n_groups {
            self.groups.resize(n_groups, ActGroup::default());
        }
        /// Groups that are worth a chunk of their own: some microseconds.
        const CHUNK: usize = 96;
        let groups = SharedMut::new(&mut self.groups[..n_groups]);
        pool.run(n_groups.div_ceil(CHUNK), &|chunk, _| {
            let first = chunk * CHUNK;
            let n = CHUNK.min(n_groups - first);
            // SAFETY: chunks do not overlap.
            let groups = unsafe { groups.part(first, n) };
            isa.run(Quantize {
                x: &x[first * GROUP..][..n * GROUP],
                groups,
            });
        });
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[ActGroup] {
        &self.groups[row * self.groups_per_row..][..self.groups_per_row]
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
