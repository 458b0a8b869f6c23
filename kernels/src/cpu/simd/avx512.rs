//! AVX-512 with VNNI, and with or without BF16: a vector is one register.

use std::arch::x86_64::*;
use std::time::{Duration, Instant};

use super::{Kernel, LANES, Simd, dot_halves};

/// Exists only where [`run`] or (with `PAIRS`) [`run_pairs`] was called, that is, where the features
/// are present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512<const PAIRS: bool>(());

/// Runs a kernel with the features of [`crate::Isa::Avx512`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
#[inline(never)]
pub(crate) unsafe fn run(kernel: impl Kernel) {
    kernel.run(Avx512::<false>(()));
}

/// Runs a kernel with the features of [`crate::Isa::Avx512Bf16`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
#[inline(never)]
pub(crate) unsafe fn run_pairs(kernel: impl Kernel) {
    kernel.run(Avx512::<true>(()));
}

/// Compares the best of some short runs: what else the machine does only adds to a time.
pub(super) fn pairs_are_fast() -> bool {
    let best = |run: unsafe fn() -> f32| {
        let time = |_| {
            let began = Instant::now();
            // SAFETY: the caller has seen the features of `Isa::Avx512Bf16`.
            std::hint::black_box(unsafe { run() });
            began.elapsed()
        };
        (0..16).map(time).min().unwrap_or(Duration::MAX)
    };
    best(products::<true>) < best(products::<false>)
}

/// The same number of products of bf16 in pairs or of f32 one by one, in sums enough to hide the
/// latency of each.
///
/// # Safety
/// The machine must have the features.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn products<const PAIRS: bool>() -> f32 {
    let x = std::hint::black_box(_mm512_set1_ps(0.0));
    let mut sums = [x; 16];
    for _ in 0..1000 {
        for sum in &mut sums {
            *sum = if PAIRS {
                // SAFETY: the same 64 bytes, seen as bf16.
                let pairs = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
                _mm512_dpbf16_ps(*sum, pairs, pairs)
            } else {
                _mm512_fmadd_ps(x, x, _mm512_fmadd_ps(x, x, *sum))
            };
        }
    }
    let total = sums.into_iter().fold(x, |a, b| _mm512_add_ps(a, b));
    _mm512_reduce_add_ps(total)
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

impl<const PAIRS: bool> Simd for Avx512<PAIRS> {
    type F = __m512;
    type I = __m512i;
    const WIDE: bool = true;
    const BYTES: bool = true;
    const PAIRS: bool = PAIRS;

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
        fn xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
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
    fn apart(self, kernel: impl Kernel) {
        // SAFETY: `self` proves that the machine has the features.
        unsafe {
            if PAIRS {
                run_pairs(kernel);
            } else {
                run(kernel);
            }
        }
    }

    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; LANES]) {
        // SAFETY: as in `methods`; `out` is exclusively borrowed.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn store_pairs(self, x: __m512i, out: &mut [f32; LANES / 2]) {
        // SAFETY: as in `store`.
        unsafe {
            let pairs = _mm512_or_si512(x, _mm512_srli_epi64::<48>(x));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi64_epi32(pairs));
        }
    }

    #[inline(always)]
    fn narrow(self, x: __m512i) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as in `store`.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x)) }
        bytes
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, u: __m512i, s: __m512i) -> __m512i {
        // SAFETY: as in `methods`. VNNI sums in int32 without saturation.
        unsafe { _mm512_dpbusd_epi32(acc, u, s) }
    }

    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        if PAIRS {
            // SAFETY: with `PAIRS`, `self` proves that the machine has BF16; registers of the same
            // size are seen as bf16.
            unsafe {
                _mm512_dpbf16_ps(
                    acc,
                    std::mem::transmute::<__m512i, __m512bh>(a),
                    std::mem::transmute::<__m512i, __m512bh>(b),
                )
            }
        } else {
            dot_halves(self, acc, a, b)
        }
    }
}
