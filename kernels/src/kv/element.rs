//! How one value of the cache is stored.

use crate::cpu::simd::{LANES, Simd};
use crate::memory::Plain;

/// A storage type of the cache.
pub(crate) trait KvElement: Plain + Default {
    /// The largest value that is stored, for types with scales: what a head has in a slot is
    /// scaled so that its largest value becomes this. `None`: values are stored as they are.
    const MAX: Option<f32> = None;
    /// What [`load`](Self::load) gives is the stored value divided by this.
    const UNIT: f32 = 1.0;
    /// Whether it is bf16: then so is what keys and values are multiplied by, and machines that
    /// multiply bf16 in pairs do.
    const BF16: bool = false;
    /// The type without scales whose widened values are computed with alike: f32, or bf16's bits.
    type Like: KvElement;

    /// Rounds to the nearest.
    fn from_f32(x: f32) -> Self;
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F;

    /// What values are multiplied by before they are stored, and what loaded ones are to be
    /// multiplied by. A value that is not a number makes the whole slot so.
    #[inline(always)]
    fn scales(values: &[f32]) -> (f32, f32) {
        let Some(most) = Self::MAX else {
            return (1.0, 1.0);
        };
        if !values.iter().all(|x| x.is_finite()) {
            return (0.0, f32::NAN);
        }
        let largest = values
            .iter()
            .fold(0.0_f32, |largest, x| largest.max(x.abs()));
        // Smaller ones would divide to infinity; they are as good as zero.
        if largest < f32::MIN_POSITIVE * most {
            (0.0, 0.0)
        } else {
            (most / largest, largest / most * Self::UNIT)
        }
    }
}

impl KvElement for f32 {
    type Like = Self;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F {
        s.load(x)
    }
}

/// The bits of a bf16.
impl KvElement for u16 {
    const BF16: bool = true;
    type Like = Self;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        half::bf16::from_f32(x).to_bits()
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F {
        s.load_bf16(x)
    }
}

/// Two's complement, from -127 to 127.
impl KvElement for u8 {
    const MAX: Option<f32> = Some(127.0);
    type Like = f32;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let rounded = x.round_ties_even().clamp(-127.0, 127.0);
        (rounded as i8).cast_unsigned()
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F {
        s.to_f(s.load_i8(x))
    }
}

/// The bits of a float of 8 bits: a sign, four of exponent (bias 7) and three of mantissa. The two
/// patterns that are not numbers are never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct E4m3(pub(crate) u8);

impl KvElement for E4m3 {
    const MAX: Option<f32> = Some(448.0);
    const UNIT: f32 = 256.0;
    type Like = f32;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        let x = x.abs().min(448.0);
        // Below the least normal value, codes count steps of 2^-9.
        let code = if x < 0.015_625 {
            (x * 512.0).round_ties_even() as u8
        } else {
            let bits = x.to_bits();
            // Half of what is cut off is added, or a little less before an even code.
            let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
            ((rounded >> 20) - (120 << 3)) as u8
        };
        Self(sign | code)
    }

    /// Moved to the places of an f16, the same bits mean the value times 2^-8.
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F {
        // No `map`: a closure would not get the caller's instructions.
        let mut halves = [0; LANES];
        for (half, x) in halves.iter_mut().zip(x) {
            *half = u16::from(x.0 & 0x80) << 8 | u16::from(x.0 & 0x7f) << 7;
        }
        s.load_f16(&halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a code, from its definition.
    fn value(code: u8) -> f32 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let size = match exponent {
            0 => mantissa / 8.0 * 2.0_f32.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
        };
        if code & 0x80 == 0 { size } else { -size }
    }

    #[test]
    fn every_code_is_its_own_nearest_and_ties_go_to_even() {
        for code in (0..=0xfe_u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(E4m3::from_f32(value(code)), E4m3(code));
            if code & 0x7f < 0x7e {
                let middle = (value(code) + value(code + 1)) / 2.0;
                let even = if code & 1 == 0 { code } else { code + 1 };
                assert_eq!(E4m3::from_f32(middle), E4m3(even), "between {code:#x}");
                let beyond = middle + (value(code + 1) - middle) / 100.0;
                assert_eq!(E4m3::from_f32(beyond), E4m3(code + 1));
            }
        }
        assert_eq!(value(0x7e), 448.0);
        assert_eq!(E4m3::from_f32(1e9), E4m3(0x7e));
    }

    #[test]
    fn a_slot_of_no_numbers_stays_so_and_zeros_stay_zeros() {
        assert!(u8::scales(&[1.0, f32::NAN]).1.is_nan());
        assert!(E4m3::scales(&[f32::INFINITY, 1.0]).1.is_nan());
        assert_eq!(u8::scales(&[0.0, 0.0]), (0.0, 0.0));
        assert_eq!(u8::scales(&[1e-42, 0.0]), (0.0, 0.0));
        assert_eq!(u8::scales(&[-254.0, 3.0]), (0.5, 2.0));
    }
}
