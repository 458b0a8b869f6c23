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
    let power = ((logit - greatest) * scale * std::f32::consts::LOG2_E).max(-126.0);
    let whole = (power + 0.5).floor();
    let part = (power - whole) * std::f32::consts::LN_2;
    let series = 1.0 / 720.0;
    let series = series * part + 1.0 / 120.0;
    let series = series * part + 1.0 / 24.0;
    let series = series * part + 1.0 / 6.0;
    let series = series * part + 0.5;
    let series = series * part + 1.0;
    let series = series * part + 1.0;
    // The exponent's bits of a power of two; `whole` is within -126..=0 as `logit <= greatest`.
    let two_to_whole = f32::from_bits(((whole as i32 + 127) as u32) << 23);
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
