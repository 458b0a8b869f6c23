//! AVX-512 with VNNI: a vector is one register.

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// Exists only where [`run`] was called, that is, where the features are present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// Runs a kernel with the features of [`crate::Isa::Avx512`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) unsafe fn run(kernel: impl Kernel) {
    kernel.run(Avx512(()));
}

/// Defines methods that are intrinsics and no more.
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

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    const WIDE: bool = true;

    methods! {
        fn splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn load(x: &[f32; LANES]) -> __m512 = _mm512_loadu_ps(x.as_ptr());
        fn load_f16(x: &[u16; LANES]) -> __m512 =
            _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()));
        fn load_bf16(x: &[u16; LANES]) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()))
        ));
        fn add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn bits(x: __m512) -> __m512i = _mm512_castps_si512(x);
        fn reinterpret(x: __m512i) -> __m512 = _mm512_castsi512_ps(x);
        fn splat_i(x: i32) -> __m512i = _mm512_set1_epi32(x);
        fn load_bytes(x: &[u8; 64]) -> __m512i = _mm512_loadu_si512(x.as_ptr().cast());
        fn load_u8(x: &[u8; LANES]) -> __m512i =
            _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()));
        fn load_i8(x: &[u8; LANES]) -> __m512i =
            _mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()));
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn add_i(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn shr(a: __m512i, n: u32) -> __m512i =
            _mm512_srlv_epi32(a, _mm512_set1_epi32(n.cast_signed()));
        fn shl(a: __m512i, n: u32) -> __m512i =
            _mm512_sllv_epi32(a, _mm512_set1_epi32(n.cast_signed()));
        fn to_f(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn lookup(codes: __m512i, table: &[u8; 16]) -> __m512i = _mm512_shuffle_epi8(
            _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())),
            codes
        );
    }

    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; LANES]) {
        // SAFETY: as in `methods`; `out` is exclusively borrowed.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn dot<const SMALL: bool>(self, acc: __m512i, u: __m512i, s: __m512i) -> __m512i {
        // SAFETY: as in `methods`. VNNI sums in int32 without saturation.
        unsafe { _mm512_dpbusd_epi32(acc, u, s) }
    }
}
