//! AVX2 with FMA and F16C, and with or without VNNI: a vector is two registers.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd, dots_one_by_one};

/// Exists only where [`run`] or (with `DOTS`) [`run_dots`] was called, that is, where the features
/// are present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2<const DOTS: bool>(());

/// Runs a kernel with the features of [`crate::Isa::Avx2`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
pub(crate) unsafe fn run(kernel: impl Kernel) {
    kernel.run(Avx2::<false>(()));
}

/// Runs a kernel with the features of [`crate::Isa::AvxVnni`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
#[inline(never)]
pub(crate) unsafe fn run_dots(kernel: impl Kernel) {
    kernel.run(Avx2::<true>(()));
}

type F = [__m256; 2];
type I = [__m256i; 2];

/// Defines methods that do the same to both halves.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: `self` proves that the machine has the features; references are valid for
            // the whole of what is read.
            unsafe { $body }
        }
    )*};
}

impl<const DOTS: bool> Simd for Avx2<DOTS> {
    type F = F;
    type I = I;
    const WIDE: bool = false;
    const BYTES: bool = DOTS;
    const FOUR_ROWS: bool = DOTS;

    methods! {
        fn splat(x: f32) -> F = [_mm256_set1_ps(x); 2];
        fn load(x: &[f32; LANES]) -> F =
            [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())];
        fn load_f16(x: &[u16; LANES]) -> F = [
            _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(x[8..].as_ptr().cast())),
        ];
        fn load_bf16(x: &[u16; LANES]) -> F = [
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
                _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()))
            )),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
                _mm256_cvtepu16_epi32(_mm_loadu_si128(x[8..].as_ptr().cast()))
            )),
        ];
        fn add(a: F, b: F) -> F = [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])];
        fn sub(a: F, b: F) -> F = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
        fn mul(a: F, b: F) -> F = [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])];
        fn div(a: F, b: F) -> F = [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])];
        fn fma(a: F, b: F, c: F) -> F =
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
        fn max(a: F, b: F) -> F = [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])];
        fn min(a: F, b: F) -> F = [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])];
        fn bits(x: F) -> I = [_mm256_castps_si256(x[0]), _mm256_castps_si256(x[1])];
        fn reinterpret(x: I) -> F = [_mm256_castsi256_ps(x[0]), _mm256_castsi256_ps(x[1])];
        fn splat_i(x: i32) -> I = [_mm256_set1_epi32(x); 2];
        fn load_bytes(x: &[u8; 64]) -> I = [
            _mm256_loadu_si256(x.as_ptr().cast()),
            _mm256_loadu_si256(x[32..].as_ptr().cast()),
        ];
        fn load_u8(x: &[u8; LANES]) -> I = [
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(x[8..].as_ptr().cast())),
        ];
        fn load_i8(x: &[u8; LANES]) -> I = [
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(x[8..].as_ptr().cast())),
        ];
        fn and(a: I, b: I) -> I = [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])];
        fn or(a: I, b: I) -> I = [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])];
        fn xor(a: I, b: I) -> I = [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])];
        fn add_i(a: I, b: I) -> I = [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])];
        fn shr(a: I, n: u32) -> I = {
            let n = _mm256_set1_epi32(n.cast_signed());
            [_mm256_srlv_epi32(a[0], n), _mm256_srlv_epi32(a[1], n)]
        };
        fn shl(a: I, n: u32) -> I = {
            let n = _mm256_set1_epi32(n.cast_signed());
            [_mm256_sllv_epi32(a[0], n), _mm256_sllv_epi32(a[1], n)]
        };
        fn to_f(a: I) -> F = [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])];
        fn lookup(codes: I, table: &[u8; 16]) -> I = {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, codes[0]), _mm256_shuffle_epi8(table, codes[1])]
        };
    }

    #[inline(always)]
    fn apart(self, kernel: impl Kernel) {
        // SAFETY: `self` proves that the machine has the features.
        unsafe {
            if DOTS {
                run_dots(kernel);
            } else {
                run(kernel);
            }
        }
    }

    #[inline(always)]
    fn store(self, x: F, out: &mut [f32; LANES]) {
        // SAFETY: as in `methods`; `out` is exclusively borrowed.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), x[1]);
        }
    }

    #[inline(always)]
    fn narrow(self, x: I) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as in `store`.
        unsafe {
            let byte = _mm256_set1_epi32(0xff);
            let lanes = x.map(|x| _mm256_and_si256(x, byte));
            // Each half of the one beside that of the other.
            let words = _mm256_packus_epi32(lanes[0], lanes[1]);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let (low, high) = (
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm_packus_epi16(low, high));
        }
        bytes
    }

    /// Without VNNI: two products of a code below 128 and an int8 add up to at most 32512 in size,
    /// which int16 holds.
    #[inline(always)]
    fn dot(self, acc: I, u: I, s: I) -> I {
        // SAFETY: as in `methods`; with `DOTS`, `self` proves that the machine has VNNI.
        unsafe {
            if DOTS {
                return [
                    _mm256_dpbusd_avx_epi32(acc[0], u[0], s[0]),
                    _mm256_dpbusd_avx_epi32(acc[1], u[1], s[1]),
                ];
            }
            let pairs = [
                _mm256_maddubs_epi16(u[0], s[0]),
                _mm256_maddubs_epi16(u[1], s[1]),
            ];
            widen_and_add(acc, pairs)
        }
    }

    /// Without VNNI: the fewer bits a code has, the more products int16 holds the sum of.
    #[inline(always)]
    fn dots<const R: usize>(self, mut acc: [I; R], u: &[I], s: [&[i32]; R], bits: usize) -> [I; R] {
        if DOTS {
            return dots_one_by_one(self, acc, u, s);
        }
        let most = 127 * ((1 << bits) - 1);
        let n_quads = i16::MAX as usize / (2 * most);
        let mut first = 0;
        while first < u.len() {
            let end = u.len().min(first + n_quads);
            // SAFETY: as in `methods`.
            unsafe {
                let mut pairs = [[_mm256_setzero_si256(); 2]; R];
                for i in first..end {
                    for r in 0..R {
                        let s = _mm256_set1_epi32(s[r][i]);
                        for half in 0..2 {
                            let products = _mm256_maddubs_epi16(u[i][half], s);
                            pairs[r][half] = in_order(_mm256_add_epi16(pairs[r][half], products));
                        }
                    }
                }
                for r in 0..R {
                    acc[r] = widen_and_add(acc[r], pairs[r]);
                }
            }
            first = end;
        }
        acc
    }
}

/// `x`, of which the compiler knows nothing: it would add up in the shape of a
/// tree, for which there are not enough registers.
///
/// # Safety
/// Needs AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn in_order(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {x} */", x = inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

/// Adds each two int16 to an int32.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
unsafe fn widen_and_add(acc: I, pairs: I) -> I {
    // SAFETY: the caller has AVX2.
    unsafe {
        let one = _mm256_set1_epi16(1);
        [
            _mm256_add_epi32(acc[0], _mm256_madd_epi16(pairs[0], one)),
            _mm256_add_epi32(acc[1], _mm256_madd_epi16(pairs[1], one)),
        ]
    }
}
