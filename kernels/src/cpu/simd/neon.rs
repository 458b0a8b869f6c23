//! NEON with the dot products of Armv8.2: a vector is four registers.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Kernel, LANES, Simd};

/// Exists only where [`run`] was called, that is, where the features are present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

/// Runs a kernel with the features of [`crate::Isa::Neon`].
///
/// # Safety
/// The machine must have them.
#[target_feature(enable = "neon,dotprod")]
#[inline(never)]
pub(crate) unsafe fn run(kernel: impl Kernel) {
    kernel.run(Neon(()));
}

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

/// The same for each of the four registers, `$i` being its number.
macro_rules! quarters {
    (|$i:ident| $body:expr) => {{
        macro_rules! quarter {
            ($n:literal) => {{
                let $i: usize = $n;
                $body
            }};
        }
        [quarter!(0), quarter!(1), quarter!(2), quarter!(3)]
    }};
}

/// Defines methods, four registers each.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = |$i:ident| $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: `self` proves that the machine has the features; references are valid for
            // the whole of what is read.
            unsafe { quarters!(|$i| $body) }
        }
    )*};
}

impl Simd for Neon {
    type F = F;
    type I = I;
    const WIDE: bool = false;
    const SIGNED: bool = true;
    const FOUR_ROWS: bool = true;

    methods! {
        fn splat(x: f32) -> F = |_i| vdupq_n_f32(x);
        fn load(x: &[f32; LANES]) -> F = |i| vld1q_f32(x[4 * i..].as_ptr());
        fn load_f16(x: &[u16; LANES]) -> F = |i| widen_f16(vld1_u16(x[4 * i..].as_ptr()));
        fn load_bf16(x: &[u16; LANES]) -> F =
            |i| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x[4 * i..].as_ptr())));
        fn add(a: F, b: F) -> F = |i| vaddq_f32(a[i], b[i]);
        fn sub(a: F, b: F) -> F = |i| vsubq_f32(a[i], b[i]);
        fn mul(a: F, b: F) -> F = |i| vmulq_f32(a[i], b[i]);
        fn div(a: F, b: F) -> F = |i| vdivq_f32(a[i], b[i]);
        fn fma(a: F, b: F, c: F) -> F = |i| vfmaq_f32(c[i], a[i], b[i]);
        // Not `vmaxq_f32`, which gives NaN whenever there is one.
        fn max(a: F, b: F) -> F = |i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]);
        fn min(a: F, b: F) -> F = |i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]);
        fn bits(x: F) -> I = |i| vreinterpretq_s32_f32(x[i]);
        fn reinterpret(x: I) -> F = |i| vreinterpretq_f32_s32(x[i]);
        fn splat_i(x: i32) -> I = |_i| vdupq_n_s32(x);
        fn load_bytes(x: &[u8; 64]) -> I =
            |i| vreinterpretq_s32_u8(vld1q_u8(x[16 * i..].as_ptr()));
        fn load_u8(x: &[u8; LANES]) -> I = |i| {
            let x = u32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]);
            let x = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(x)));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x)))
        };
        fn load_i8(x: &[u8; LANES]) -> I = |i| {
            let x = u32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]);
            let x = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(x)));
            vmovl_s16(vget_low_s16(x))
        };
        fn and(a: I, b: I) -> I = |i| vandq_s32(a[i], b[i]);
        fn or(a: I, b: I) -> I = |i| vorrq_s32(a[i], b[i]);
        fn xor(a: I, b: I) -> I = |i| veorq_s32(a[i], b[i]);
        fn add_i(a: I, b: I) -> I = |i| vaddq_s32(a[i], b[i]);
        fn shr(a: I, n: u32) -> I = |i| {
            let n = vdupq_n_s32(-n.cast_signed());
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[i]), n))
        };
        fn shl(a: I, n: u32) -> I = |i| vshlq_s32(a[i], vdupq_n_s32(n.cast_signed()));
        fn to_f(a: I) -> F = |i| vcvtq_f32_s32(a[i]);
        fn lookup(codes: I, table: &[u8; 16]) -> I = |i| {
            let table = vld1q_u8(table.as_ptr());
            vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(codes[i])))
        };
    }

    #[inline(always)]
    fn apart(self, kernel: impl Kernel) {
        // SAFETY: `self` proves that the machine has the features.
        unsafe { run(kernel) }
    }

    #[inline(always)]
    fn store(self, x: F, out: &mut [f32; LANES]) {
        for (x, out) in x.into_iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: as in `methods`; `out` is exclusively borrowed.
            unsafe { vst1q_f32(out.as_mut_ptr(), x) }
        }
    }

    #[inline(always)]
    fn narrow(self, x: I) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as in `store`.
        unsafe {
            let words = |a, b| vcombine_s16(vmovn_s32(a), vmovn_s32(b));
            let low = vmovn_s16(words(x[0], x[1]));
            let high = vmovn_s16(words(x[2], x[3]));
            vst1q_u8(
                bytes.as_mut_ptr(),
                vreinterpretq_u8_s8(vcombine_s8(low, high)),
            );
        }
        bytes
    }

    #[inline(always)]
    fn dot(self, acc: I, u: I, s: I) -> I {
        // SAFETY: as in `methods`. Bytes below 128 are the same signed.
        unsafe { quarters!(|i| sdot(acc[i], u[i], s[i])) }
    }
}

/// `acc + sum of four products of signed bytes`; the intrinsic is not stable yet.
///
/// # Safety
/// Needs the dot products.
#[inline(always)]
unsafe fn sdot(acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let mut out = acc;
    // SAFETY: the caller has the instruction, which reads and writes registers only.
    unsafe {
        asm!(
            "sdot {out:v}.4s, {a:v}.16b, {b:v}.16b",
            out = inout(vreg) out,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}

/// Four f16, widened.
///
/// # Safety
/// Needs NEON.
#[inline(always)]
unsafe fn widen_f16(x: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: as above; the instruction is part of Armv8.0.
    unsafe {
        asm!(
            "fcvtl {out:v}.4s, {x:v}.4h",
            out = lateout(vreg) out,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    out
}
