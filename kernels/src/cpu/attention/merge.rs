//! What a span gives for one pair, and how such results become one.
//!
//! A result is a vector of weighted values, then in one more vector the maximum of the scores and
//! the sum of their exponentials relative to it. A sum of zero: the pair saw nothing.

use crate::cpu::math::exp;
use crate::cpu::simd::{LANES, Simd};

/// Values that one result takes.
pub(super) const fn width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES) + LANES
}

/// The weighted values and `[maximum, sum, ..]` of a result.
#[inline(always)]
pub(super) fn split(result: &mut [f32]) -> (&mut [f32], &mut [f32; LANES]) {
    result
        .split_last_chunk_mut()
        .expect("a result ends with a vector")
}

#[inline(always)]
fn split_ref(result: &[f32]) -> (&[f32], &[f32; LANES]) {
    result
        .split_last_chunk()
        .expect("a result ends with a vector")
}

/// Makes it the result of nothing seen.
#[inline(always)]
pub(super) fn clear(result: &mut [f32]) {
    split(result).1[..2].copy_from_slice(&[f32::NEG_INFINITY, 0.0]);
}

/// Adds the result of a later span to `total`.
#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, total: &mut [f32], later: &[f32]) {
    let (later_values, &[later_max, later_sum, ..]) = split_ref(later);
    if later_sum == 0.0 {
        return;
    }
    let (values, end) = split(total);
    let [max, sum, ..] = *end;
    if sum == 0.0 {
        values.copy_from_slice(later_values);
        (end[0], end[1]) = (later_max, later_sum);
        return;
    }
    let new_max = if max > later_max { max } else { later_max };
    let (old, new) = (s.splat(max - new_max), s.splat(later_max - new_max));
    let (old, new) = (exp(s, old), exp(s, new));
    let pairs = values.as_chunks_mut::<LANES>().0.iter_mut();
    for (values, later) in pairs.zip(later_values.as_chunks::<LANES>().0) {
        let kept = s.mul(s.load(values), old);
        s.store(s.fma(s.load(later), new, kept), values);
    }
    let sums = s.fma(s.splat(later_sum), new, s.mul(s.splat(sum), old));
    (end[0], end[1]) = (new_max, s.max_lane(sums));
}

/// Divides by the sum. A sink is one more score, which takes its share of the sum and weighs
/// nothing.
#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, total: &[f32], sink: Option<f32>, out: &mut [f32]) {
    let (values, &[max, sum, ..]) = split_ref(total);
    let factor = match sink {
        None => s.splat(1.0 / sum),
        Some(sink) => {
            let new_max = if max > sink { max } else { sink };
            let kept = exp(s, s.splat(max - new_max));
            let sum = s.fma(s.splat(sum), kept, exp(s, s.splat(sink - new_max)));
            s.div(kept, sum)
        }
    };
    for (values, out) in values.as_chunks().0.iter().zip(out.chunks_mut(LANES)) {
        s.store_part(s.mul(s.load(values), factor), out);
    }
}
