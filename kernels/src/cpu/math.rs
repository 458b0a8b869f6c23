//! Functions of vectors.

use super::simd::Simd;

/// Adding it leaves the rounded integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x` to about an ulp where the result is a normal number; below `-87.3` it stays at about
/// `1e-38`, above `88.3` at about `2e38`. NaN gives NaN.
///
/// Cody and Waite's reduction to `|r| <= ln 2 / 2`, then the Taylor series to `r^7`, whose
/// remainder is below `2^-28`; the power of two goes into the exponent bits.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-87.3), x);
    let x = s.min(s.splat(88.3), x);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    // ln 2 in two parts; the first has zeros at its end, so n times it is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let terms = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    power(s, &terms, r, shifted)
}

/// `2^n` times a polynomial of `r`, whose highest term comes first; `n` is in the low bits of
/// `shifted`.
#[inline(always)]
fn power<S: Simd, const N: usize>(s: S, terms: &[f32; N], r: S::F, shifted: S::F) -> S::F {
    let mut p = s.splat(terms[0]);
    for &term in &terms[1..] {
        p = s.fma(p, r, s.splat(term));
    }
    s.reinterpret(s.add_i(s.bits(p), s.shl(s.bits(shifted), 23)))
}

/// `e^x` for `x <= 0`, rounded to the nearest bf16; before that it is off by less than 3e-6 of itself
/// where it is a normal number. Below `-87.3` it stays at about `1e-38`; NaN gives NaN.
///
/// As [`exp`], with fewer terms: the Taylor series to `r^5`.
#[inline(always)]
pub(crate) fn exp_bf16<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-87.3), x);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-std::f32::consts::LN_2), x);
    let terms = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let y = power(s, &terms, r, shifted);
    // Where it is NaN, one of bf16 or of arithmetic led to it: rounding carries nothing on.
    s.reinterpret(s.nearest_bf16(y))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// `x` with its sign bit, and without.
#[inline(always)]
fn sign_and_magnitude<S: Simd>(s: S, x: S::F) -> (S::I, S::F) {
    let sign = s.and(s.bits(x), s.splat_i(i32::MIN));
    let magnitude = s.reinterpret(s.and(s.bits(x), s.splat_i(i32::MAX)));
    (sign, magnitude)
}

/// Hyperbolic tangent, to about 1e-7 absolutely.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let (sign, x) = sign_and_magnitude(s, x);
    let e = exp(s, s.mul(x, s.splat(-2.0)));
    let y = s.div(s.sub(one, e), s.add(one, e));
    s.reinterpret(s.or(s.bits(y), sign))
}

/// The standard normal distribution function, to about 2e-7 absolutely: through the error
/// function by formula 7.1.26 of Abramowitz and Stegun.
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let (sign, z) = sign_and_magnitude(s, x);
    let z = s.mul(z, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(one, s.fma(z, s.splat(0.327_591_1), one));
    let mut p = s.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = s.fma(p, t, s.splat(coefficient));
    }
    let tail = s.mul(s.mul(p, t), exp(s, s.sub(s.zero(), s.mul(z, z))));
    let erf = s.reinterpret(s.or(s.bits(s.sub(one, tail)), sign));
    s.fma(erf, s.splat(0.5), s.splat(0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::cpu::simd::{ActiveIsa, Kernel, LANES};

    struct Exp<'a> {
        lanes: &'a mut [f32; LANES],
        to_bf16: bool,
    }

    impl Kernel for Exp<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let x = s.load(self.lanes);
            let y = if self.to_bf16 {
                exp_bf16(s, x)
            } else {
                exp(s, x)
            };
            s.store(y, self.lanes);
        }
    }

    fn on(isa: ActiveIsa, to_bf16: bool, x: f32) -> f32 {
        let mut lanes = [x; LANES];
        isa.run(Exp {
            lanes: &mut lanes,
            to_bf16,
        });
        lanes[7]
    }

    #[test]
    fn exp_of_bf16_is_the_nearest_to_one_that_is_near() {
        for isa in Isa::available().filter_map(ActiveIsa::new) {
            let on = |x: f32| on(isa, true, x);
            let mut x = -87.0_f32;
            while x < 0.0 {
                let exact = f64::from(x).exp();
                let rounded = |error: f64| half::bf16::from_f64(exact * (1.0 + error)).to_f32();
                let y = on(x);
                let near = rounded(-3e-6)..=rounded(3e-6);
                assert!(near.contains(&y), "{isa:?}: e^{x} is not {y}");
                x += 0.003_7;
            }
            assert_eq!(on(0.0), 1.0);
            assert!(on(f32::NAN).is_nan());
            assert!((f32::MIN_POSITIVE..1.3e-38).contains(&on(f32::NEG_INFINITY)));
        }
    }

    fn exp_on(isa: ActiveIsa, x: f32) -> f32 {
        on(isa, false, x)
    }

    #[test]
    fn exp_is_within_two_ulps_on_every_isa() {
        for isa in Isa::available().filter_map(ActiveIsa::new) {
            let mut worst = 0.0_f64;
            let mut x = -87.0_f32;
            while x < 88.0 {
                let exact = f64::from(x).exp();
                let y = f64::from(exp_on(isa, x));
                worst = worst.max((y - exact).abs() / exact);
                x += 0.003_7;
            }
            let ulp = f64::from(f32::EPSILON);
            assert!(worst < 1.5 * ulp, "{isa:?}: {} ulps", worst / ulp);
            assert_eq!(exp_on(isa, 0.0), 1.0);
            assert!(exp_on(isa, f32::NAN).is_nan());
            assert!(exp_on(isa, f32::NEG_INFINITY) < 1.3e-38);
            assert!(exp_on(isa, f32::INFINITY) > 1e38);
        }
    }
}
