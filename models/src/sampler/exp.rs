//! Sums of exponentials over a vocabulary.

/// Terms are summed in f32 exponentials and f64 sums, chunk by chunk, so that a caller can find
/// a point of the cumulative sum without computing it twice.
pub(super) const CHUNK: usize = 256;

/// `exp((logit - greatest) * scale)`.
///
/// Scaled to base 2, split into a whole and a fractional power, the latter by a polynomial with
/// a relative error below 3e-7. Plain arithmetic, so that loops of it become vector code.
#[inline]
pub(super) fn exp(logit: f32, greatest: f32, scale: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let power = (logit - greatest) * scale * std::f32::consts::LOG2_E;
    // Anything smaller is as good as this. Written so that no number but a number passes.
    let power = if power > -126.0 { power } else { -126.0 };
    let shifted = power + ROUND;
    let part = (power - (shifted - ROUND)) * std::f32::consts::LN_2;
    let series = 1.0 / 720.0;
    let series = series * part + 1.0 / 120.0;
    let series = series * part + 1.0 / 24.0;
    let series = series * part + 1.0 / 6.0;
    let series = series * part + 0.5;
    let series = series * part + 1.0;
    let series = series * part + 1.0;
    // The exponent's bits of a power of two; the whole power is within -126..=0.
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let two_to_whole = f32::from_bits(whole.wrapping_add(127) << 23);
    let value = series * two_to_whole;
    if logit == f32::NEG_INFINITY {
        0.0
    } else {
        value
    }
}

/// The sum over one chunk, in an order fixed by its length.
pub(super) fn sum(logits: &[f32], greatest: f32, scale: f32) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f64; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for values in whole {
        for (lane, &logit) in lanes.iter_mut().zip(values) {
            *lane += f64::from(exp(logit, greatest, scale));
        }
    }
    let mut total: f64 = lanes.iter().sum();
    for &logit in rest {
        total += f64::from(exp(logit, greatest, scale));
    }
    total
}
