//! The two 8-bit float formats: e4m3 (no infinities) and e5m2.

use std::sync::LazyLock;

/// The values of all bytes of both formats, for the tensor cores.
static VALUES: LazyLock<[[f32; 256]; 2]> = LazyLock::new(|| {
    [Fp8::E4m3, Fp8::E5m2].map(|format| std::array::from_fn(|byte| format.decode(byte as u8)))
});

/// An 8-bit float format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fp8 {
    E4m3,
    E5m2,
}

impl Fp8 {
    fn mantissa_bits(self) -> u32 {
        match self {
            Self::E4m3 => 3,
            Self::E5m2 => 2,
        }
    }

    fn bias(self) -> i32 {
        match self {
            Self::E4m3 => 7,
            Self::E5m2 => 15,
        }
    }

    fn max(self) -> f32 {
        match self {
            Self::E4m3 => 448.0,
            Self::E5m2 => 57344.0,
        }
    }

    /// The value of a byte, looked up.
    pub(crate) fn value(self, byte: u8) -> f32 {
        VALUES[self as usize][usize::from(byte)]
    }

    /// The value of a byte.
    pub(crate) fn decode(self, byte: u8) -> f32 {
        let m = self.mantissa_bits();
        let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
        let exponent = i32::from((byte & 0x7F) >> m);
        let mantissa = u32::from(byte) & ((1 << m) - 1);
        match self {
            Self::E4m3 if byte & 0x7F == 0x7F => return f32::NAN,
            Self::E5m2 if exponent == 31 => {
                return if mantissa == 0 {
                    sign * f32::INFINITY
                } else {
                    f32::NAN
                };
            }
            _ => {}
        }
        let fraction = mantissa as f32 / (1 << m) as f32;
        if exponent == 0 {
            sign * fraction * 2f32.powi(1 - self.bias())
        } else {
            sign * (1.0 + fraction) * 2f32.powi(exponent - self.bias())
        }
    }

    /// The byte nearest to a value, ties to even; beyond the range the largest number
    /// (`satfinite`, the only mode conversions have).
    pub(crate) fn encode(self, value: f32) -> u8 {
        let sign = u8::from(value.is_sign_negative()) << 7;
        if value.is_nan() {
            return 0x7F;
        }
        let magnitude = value.abs();
        let m = self.mantissa_bits();
        let largest = self.largest();
        if magnitude >= self.max() {
            return sign | largest;
        }
        let exponent = if magnitude == 0.0 {
            1 - self.bias()
        } else {
            // The exponent of f32, but not below that of subnormals here.
            ((magnitude.to_bits() >> 23) as i32 - 127).max(1 - self.bias())
        };
        let steps = f64::from(magnitude) / 2f64.powi(exponent - m as i32);
        let steps = steps.round_ties_even() as i32;
        // A subnormal has no leading one, and rounding up may carry into the exponent.
        let code = ((exponent + self.bias() - 1) << m) + steps;
        sign | (code as u8).min(largest)
    }

    fn largest(self) -> u8 {
        match self {
            Self::E4m3 => 0x7E,
            Self::E5m2 => 0x7B,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        for format in [Fp8::E4m3, Fp8::E5m2] {
            for byte in 0..=255u8 {
                let value = format.decode(byte);
                if value.is_finite() {
                    assert_eq!(format.encode(value), byte, "{format:?} {byte:#x} {value}");
                }
            }
        }
    }

    #[test]
    fn nearest_by_search() {
        for format in [Fp8::E4m3, Fp8::E5m2] {
            let mut value = 1e-6f32;
            while value < 1e5 {
                let (got, back) = (format.encode(value), format.decode(format.encode(value)));
                let best = (0..128u8)
                    .map(|byte| format.decode(byte))
                    .filter(|other| other.is_finite())
                    .map(|other| (other - value).abs())
                    .fold(f32::INFINITY, f32::min);
                assert!((back - value).abs() <= best, "{format:?} {value} {got:#x}");
                assert_eq!(format.encode(-value), got | 0x80);
                value *= 1.013;
            }
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(Fp8::E4m3.decode(0x38), 1.0);
        assert_eq!(Fp8::E5m2.decode(0x3C), 1.0);
        assert_eq!(Fp8::E4m3.encode(1e9), 0x7E);
        assert_eq!(Fp8::E5m2.encode(f32::NEG_INFINITY), 0xFB);
        assert_eq!(Fp8::E4m3.encode(f32::NAN), 0x7F);
        // Ties to even: halfway between 1.0 and 1.125.
        assert_eq!(Fp8::E4m3.encode(1.0625), 0x38);
        assert_eq!(Fp8::E4m3.encode(1.1875), 0x3A);
    }
}
