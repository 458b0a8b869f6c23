//! Rounding to a format in one direction, from a value and the error left by computing it.

/// A rounding direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Round {
    /// The direction among an opcode's parts; nearest if none is named.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let has = |word: &str| parts.contains(&word);
        if has("rz") {
            Self::Zero
        } else if has("rm") {
            Self::Down
        } else if has("rp") {
            Self::Up
        } else {
            Self::Nearest
        }
    }
}

/// A value as an f32 that rounds on to any 16-bit float as the value itself does: cut off towards
/// zero, its last bit set if anything was cut (rounding to odd). Rounding twice to nearest would
/// go wrong near ties, and so does a conversion that looks at the upper half of an f64 alone.
pub(crate) fn sticky(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() {
        return nearest;
    }
    let bits = nearest.to_bits() - u32::from(back.abs() > value.abs());
    f32::from_bits(bits | 1)
}

/// The exact sum of `a` and `b` as a rounded sum and its error (Knuth's two-sum).
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    if !sum.is_finite() {
        return (sum, 0.0);
    }
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// `value + error` as f32, where `error` is far below the last place of `value`.
pub(crate) fn to_f32((value, error): (f64, f64), round: Round) -> f32 {
    let nearest = value as f32;
    let round = match round {
        Round::Zero if value > 0.0 => Round::Down,
        Round::Zero => Round::Up,
        other => other,
    };
    if !value.is_finite() {
        return nearest;
    }
    let back = f64::from(nearest);
    let above = back > value || back == value && error < 0.0;
    let below = back < value || back == value && error > 0.0;
    match round {
        Round::Down if above => nearest.next_down(),
        Round::Up if below => nearest.next_up(),
        Round::Nearest if back == value || error == 0.0 => nearest,
        // The nearest to `value` may not be the nearest to the sum when `value` is a tie.
        Round::Nearest => nearest_of_tie(value, error, nearest),
        _ => nearest,
    }
}

fn nearest_of_tie(value: f64, error: f64, nearest: f32) -> f32 {
    let back = f64::from(nearest);
    let other = if back > value {
        nearest.next_down()
    } else {
        nearest.next_up()
    };
    let tie = (f64::from(other) - value).abs() == (back - value).abs();
    let toward_other = (error > 0.0) == (f64::from(other) > value);
    if tie && toward_other { other } else { nearest }
}

/// Subnormals become zeros of their sign.
pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() {
        0f32.copysign(value)
    } else {
        value
    }
}

/// Into 0..=1; NaN and negative zero become 0.
pub(crate) fn saturate(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn directions() {
        let third = (1.0 / 3.0, 0.0);
        let down = to_f32(third, Round::Down);
        let up = to_f32(third, Round::Up);
        assert!(f64::from(down) < 1.0 / 3.0 && f64::from(up) > 1.0 / 3.0);
        assert_eq!(down.next_up(), up);
        assert_eq!(to_f32(third, Round::Zero), down);
        assert_eq!(to_f32((-1.0 / 3.0, 0.0), Round::Zero), -down);
        assert_eq!(to_f32((1.0, -1e-30), Round::Down), 1f32.next_down());
        assert_eq!(to_f32((1.0, 1e-30), Round::Up), 1f32.next_up());
        assert_eq!(to_f32((1.0, -1e-30), Round::Up), 1.0);
    }

    #[test]
    fn ties_see_the_error() {
        let tie = 1.0 + f64::from(f32::EPSILON) / 2.0;
        assert_eq!(to_f32((tie, 0.0), Round::Nearest), 1.0);
        assert_eq!(to_f32((tie, 1e-30), Round::Nearest), 1f32.next_up());
        assert_eq!(to_f32((tie, -1e-30), Round::Nearest), 1.0);
    }

    #[test]
    fn sums_are_exact() {
        let (sum, error) = two_sum(1.0, 1e-20);
        assert_eq!((sum, error), (1.0, 1e-20));
    }

    #[test]
    fn sixteen_bits_are_rounded_once() {
        // Just above a tie by less than the upper half of an f64 holds.
        for (tie, above) in [(0x3F80_8000_u32, 0x3F81), (0x3F81_8000, 0x3F82)] {
            for bits in [tie + 1, tie + 7] {
                let value = f64::from(f32::from_bits(bits));
                assert_eq!(bf16::from_f32(sticky(value)).to_bits(), above);
            }
        }
        // Above and below a tie of f16 by less than an f32 holds.
        let tie = 1.0 + 1.0 / 2048.0;
        let off = 1.0 / (1_u64 << 40) as f64;
        assert_eq!(f16::from_f32(sticky(tie + off)).to_bits(), 0x3C01);
        assert_eq!(f16::from_f32(sticky(tie)).to_bits(), 0x3C00);
        assert_eq!(f16::from_f32(sticky(tie - off)).to_bits(), 0x3C00);
        assert_eq!(sticky(f64::INFINITY), f32::INFINITY);
        assert!(f16::from_f32(sticky(1e300)).is_infinite());
        assert!(sticky(f64::NAN).is_nan());
    }
}
