//! What one instruction multiplies: an f32, or a pair of bf16.
//!
//! Queries and weights are rounded to bf16 where the cache is bf16, since keys and values are no
//! better. Products are added one after the other in f32. An instruction that adds two, the first
//! of a pair before the second, gives the same bits as two that add one each; so what is kept in
//! pairs where there is such an instruction is kept widened where there is none.

use crate::cpu::simd::Simd;
use crate::kv::KvElement;

/// The half of a lane where the first of a pair is, and that of the second.
pub(super) const FIRST: u32 = 0xffff_0000;
pub(super) const SECOND: u32 = 0x0000_ffff;

/// Whether an f32 stands for a pair of bf16: two dimensions of a query or of keys, two positions of
/// weights or of values.
#[inline(always)]
pub(super) fn is_paired<S: Simd, E: KvElement>() -> bool {
    S::PAIRS && E::BF16
}

/// Steps that `n` dimensions or positions take.
#[inline(always)]
pub(super) fn n_steps<S: Simd, E: KvElement>(n: usize) -> usize {
    if is_paired::<S, E>() {
        n.div_ceil(2)
    } else {
        n
    }
}

/// `sum` plus the products of a step.
#[inline(always)]
pub(super) fn step<S: Simd, E: KvElement>(s: S, sum: S::F, x: S::F, y: f32) -> S::F {
    if is_paired::<S, E>() {
        s.dot_bf16(sum, s.bits(x), s.splat_i(y.to_bits().cast_signed()))
    } else {
        s.fma(x, s.splat(y), sum)
    }
}

/// `sum` plus the product of one half of a pair. What is in the other half may be no number.
#[inline(always)]
pub(super) fn step_half<S: Simd, const HALF: u32>(s: S, sum: S::F, x: S::F, y: f32) -> S::F {
    let x = s.and(s.bits(x), s.splat_i(HALF.cast_signed()));
    let y = y.to_bits() & HALF;
    s.dot_bf16(sum, x, s.splat_i(y.cast_signed()))
}
