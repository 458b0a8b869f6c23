//! Types that low-rank matrices are stored in.

use super::super::simd::{LANES, Simd};
use crate::memory::Plain;

/// How values are stored.
pub(super) trait Dense: Plain {
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F;

    /// Up to sixteen values; the lanes after them are zero.
    #[inline(always)]
    fn load_part<S: Simd>(s: S, values: &[Self]) -> S::F {
        match values.first_chunk() {
            Some(values) => Self::load(s, values),
            None => {
                let mut padded = [Self::ZERO; LANES];
                padded[..values.len()].copy_from_slice(values);
                Self::load(s, &padded)
            }
        }
    }

    const ZERO: Self;
}

impl Dense for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        s.load(values)
    }
}

/// The bits of an f16.
pub(super) type F16 = u16;

impl Dense for F16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        s.load_f16(values)
    }
}

/// The bits of a bf16.
pub(super) type Bf16 = [u16; 1];

impl Dense for Bf16 {
    const ZERO: Self = [0];

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        match values.as_flattened().first_chunk() {
            Some(values) => s.load_bf16(values),
            None => s.zero(),
        }
    }
}
