//! Scales for a few values: the search that rounding to nearest leaves open.
//!
//! For a group of values and a range of integer codes, some scales round better than the one
//! that just reaches the largest value. A few are tried; for the codes that each gives, the best
//! scale (and offset) is known by least squares, and the pair with the least squared error wins.

/// Codes and scale for `values[i] ~ scale * codes[i]`, codes within `low..=high`.
///
/// `low` has the larger size, so that the value of largest size gets it exactly at the plain
/// scale. Returns 0 for zeros.
pub(super) fn scale(values: &[f32], low: i32, high: i32) -> f32 {
    let extreme = values
        .iter()
        .copied()
        .fold(0.0_f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if extreme == 0.0 {
        return 0.0;
    }
    let plain = extreme / low as f32;
    let mut best = (squared_error(values, plain, low, high), plain);
    for step in -9..=9_i32 {
        let inverse = (low as f32 - 0.1 * step as f32) / extreme;
        let (mut xq, mut qq) = (0.0_f32, 0.0_f32);
        for x in values {
            let q = (x * inverse).round().clamp(low as f32, high as f32);
            xq += x * q;
            qq += q * q;
        }
        if qq > 0.0 {
            let candidate = xq / qq;
            let error = squared_error(values, candidate, low, high);
            if error < best.0 {
                best = (error, candidate);
            }
        }
    }
    best.1
}

fn squared_error(values: &[f32], scale: f32, low: i32, high: i32) -> f32 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let error = |x: &f32| {
        let q = (x * inverse).round().clamp(low as f32, high as f32);
        (x - scale * q).powi(2)
    };
    values.iter().map(error).sum()
}

/// Scale and minimum for `values[i] ~ scale * codes[i] - minimum`, codes within `0..=high`, the
/// minimum not negative.
pub(super) fn scale_and_min(values: &[f32], high: u8) -> (f32, f32) {
    let low_value = values.iter().copied().fold(0.0_f32, f32::min);
    let high_value = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = high_value - low_value;
    // All alike (or all negative, where nothing is above the minimum but itself).
    if span <= 0.0 {
        return (0.0, -low_value);
    }
    let high = f32::from(high);
    let mut best = (f32::INFINITY, span / high, -low_value);
    for step in 0..=20_i32 {
        let inverse = (high - 1.0 + 0.1 * step as f32) / span;
        let (scale, min) = least_squares(values, inverse, low_value, high);
        if scale <= 0.0 {
            continue;
        }
        let error: f32 = values
            .iter()
            .map(|x| {
                let q = ((x + min) / scale).round().clamp(0.0, high);
                (x - (scale * q - min)).powi(2)
            })
            .sum();
        if error < best.0 {
            best = (error, scale, min);
        }
    }
    (best.1, best.2)
}

/// The line through values over their codes at a trial scale.
fn least_squares(values: &[f32], inverse: f32, low_value: f32, high: f32) -> (f32, f32) {
    let n = values.len() as f32;
    let (mut q1, mut q2, mut x1, mut xq) = (0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32);
    for x in values {
        let q = ((x - low_value) * inverse).round().clamp(0.0, high);
        q1 += q;
        q2 += q * q;
        x1 += x;
        xq += x * q;
    }
    let determinant = n * q2 - q1 * q1;
    if determinant <= 0.0 {
        return (0.0, 0.0);
    }
    let offset = (q2 * x1 - q1 * xq) / determinant;
    if offset > 0.0 {
        // A format cannot raise values: the line through the origin instead.
        return (xq / q2, 0.0);
    }
    ((n * xq - q1 * x1) / determinant, -offset)
}
