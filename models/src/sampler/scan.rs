//! Passes over all logits, written in lanes so that they become vector code.

const LANES: usize = 8;

/// The greatest of some numbers; negative infinity of none.
pub(super) fn greatest(logits: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for values in whole {
        for (lane, &value) in lanes.iter_mut().zip(values) {
            *lane = greater(value, *lane);
        }
    }
    let all = lanes.iter().chain(rest).copied();
    all.fold(f32::NEG_INFINITY, greater)
}

/// Whether all are numbers below infinity. Negative infinity is fine: it means never.
pub(super) fn are_usable(logits: &[f32]) -> bool {
    logits
        .iter()
        .fold(true, |all, &x| all & (x < f32::INFINITY))
}
