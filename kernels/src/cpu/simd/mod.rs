//! Sixteen lanes, whatever the machine has.
//!
//! Ops are written once against [`Simd`] and compiled once per instruction set: [`Kernel`] is
//! the body of an op, and [`ActiveIsa::run`] calls it inside a function that has the
//! instruction set's features, into which everything is inlined. All versions do the same
//! arithmetic in the same order, so they agree bit for bit, and the plainest one proves the
//! others.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::Isa;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 (`F`) or sixteen i32, also seen as 64 bytes (`I`).
///
/// A value of an implementing type is the proof that the machine has the instructions.
pub(crate) trait Simd: Copy {
    type F: Copy;
    type I: Copy;
    /// Whether there are registers for 4 x 4 accumulators.
    const WIDE: bool;
    /// Whether it is what other versions are compared with and little else: compiled for few blocks.
    const PLAIN: bool = false;
    /// Whether [`Simd::dot`] takes all unsigned bytes.
    const BYTES: bool = false;
    /// Whether [`Simd::dot`] takes all signed bytes instead.
    const SIGNED: bool = false;
    /// Whether [`Simd::dots`] has registers for four rows at a time.
    const FOUR_ROWS: bool = false;
    /// Whether [`Simd::dot_bf16`] is one instruction.
    const PAIRS: bool = false;

    /// Runs a kernel as a function of its own: within a large one, loops have too few registers, and
    /// the compiler takes long.
    fn apart(self, kernel: impl Kernel);

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn load_f16(self, x: &[u16; LANES]) -> Self::F;
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F;
    fn store(self, x: Self::F, out: &mut [f32; LANES]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn bits(self, x: Self::F) -> Self::I;
    /// The other way of `bits`.
    fn reinterpret(self, x: Self::I) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    fn load_bytes(self, x: &[u8; 64]) -> Self::I;
    /// Sixteen unsigned bytes, widened.
    fn load_u8(self, x: &[u8; LANES]) -> Self::I;
    /// Sixteen signed bytes, widened.
    fn load_i8(self, x: &[u8; LANES]) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each 32-bit lane shifted, zeros coming in.
    fn shr(self, a: Self::I, n: u32) -> Self::I;
    fn shl(self, a: Self::I, n: u32) -> Self::I;
    /// The i32 lanes as f32.
    fn to_f(self, a: Self::I) -> Self::F;
    /// Replaces each byte (0..16) by its entry in the table.
    fn lookup(self, codes: Self::I, table: &[u8; 16]) -> Self::I;
    /// `acc + sum of four products of bytes of u with signed bytes of s`, exactly. The bytes of `u`
    /// are unsigned: all with [`Simd::BYTES`], else those below 128; with [`Simd::SIGNED`], they are
    /// signed.
    fn dot(self, acc: Self::I, u: Self::I, s: Self::I) -> Self::I;

    /// The same of quads `u`, whose bytes have only some low bits (or are any that `dot` takes), for
    /// some rows of quads of bytes from -127 to 127, each the same for all lanes.
    #[inline(always)]
    fn dots<const R: usize>(
        self,
        acc: [Self::I; R],
        u: &[Self::I],
        s: [&[i32]; R],
        _bits: usize,
    ) -> [Self::I; R] {
        dots_one_by_one(self, acc, u, s)
    }

    /// `acc` plus the products of the upper halves of the lanes, then plus those of the lower
    /// ones, all of them bf16; each of the two is added with one rounding. Subnormal numbers may
    /// count as zeros.
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::I, b: Self::I) -> Self::F {
        dot_halves(self, acc, a, b)
    }

    /// The nearest bf16 of each lane, ties to even, in its upper half; the lower one is zero.
    /// Infinities become NaN, as do NaN.
    #[inline(always)]
    fn round_bf16(self, x: Self::F) -> Self::I {
        // Zero, or what is no number, which rounding may have carried into one.
        let taint = self.and(self.bits(self.mul(x, self.zero())), self.splat_i(i32::MAX));
        self.and(self.or(self.nearest_bf16(x), taint), self.splat_i(!0xffff))
    }

    /// The same of finite numbers.
    #[inline(always)]
    fn nearest_bf16(self, x: Self::F) -> Self::I {
        let bits = self.bits(x);
        let odd = self.and(self.shr(bits, 16), self.splat_i(1));
        let rounded = self.add_i(self.add_i(bits, self.splat_i(0x7fff)), odd);
        self.and(rounded, self.splat_i(!0xffff))
    }

    /// A pair of bf16 in each lane: `first` in the upper half, so that [`Simd::dot_bf16`] takes it
    /// before `second`.
    #[inline(always)]
    fn pair(self, first: Self::F, second: Self::F) -> Self::I {
        self.or(self.bits(first), self.shr(self.bits(second), 16))
    }

    /// Stores each two lanes, which are bf16, as a pair.
    #[inline(always)]
    fn store_pairs(self, x: Self::I, out: &mut [f32; LANES / 2]) {
        let mut lanes = [0.0_f32; LANES];
        self.store(self.reinterpret(x), &mut lanes);
        for (out, [first, second]) in out.iter_mut().zip(lanes.as_chunks().0) {
            *out = f32::from_bits(first.to_bits() | second.to_bits() >> 16);
        }
    }

    /// The lowest byte of each lane.
    #[inline(always)]
    fn narrow(self, x: Self::I) -> [u8; LANES] {
        let mut lanes = [0.0_f32; LANES];
        self.store(self.reinterpret(x), &mut lanes);
        lanes.map(|lane| lane.to_bits() as u8)
    }

    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }

    /// Up to sixteen values; the lanes after them are zero.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F {
        match x.first_chunk() {
            Some(x) => self.load(x),
            None => {
                let mut padded = [0.0; LANES];
                padded[..x.len()].copy_from_slice(x);
                self.load(&padded)
            }
        }
    }

    /// Stores as many of the first lanes as `out` takes (at most sixteen).
    #[inline(always)]
    fn store_part(self, x: Self::F, out: &mut [f32]) {
        match out.first_chunk_mut() {
            Some(out) => self.store(x, out),
            None => {
                let mut padded = [0.0; LANES];
                self.store(x, &mut padded);
                out.copy_from_slice(&padded[..out.len()]);
            }
        }
    }

    /// The sum of the lanes, always in the same order.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lane(self, x: Self::F) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                let (a, b) = (lanes[i], lanes[i + width]);
                lanes[i] = if a > b { a } else { b };
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// [`Simd::dots`] by [`Simd::dot`].
#[inline(always)]
fn dots_one_by_one<S: Simd, const R: usize>(
    s: S,
    mut acc: [S::I; R],
    u: &[S::I],
    rows: [&[i32]; R],
) -> [S::I; R] {
    for i in 0..u.len() {
        for r in 0..R {
            acc[r] = s.dot(acc[r], u[i], s.splat_i(rows[r][i]));
        }
    }
    acc
}

/// [`Simd::dot_bf16`] in two steps.
#[inline(always)]
fn dot_halves<S: Simd>(s: S, acc: S::F, a: S::I, b: S::I) -> S::F {
    let upper = |x| s.reinterpret(s.and(x, s.splat_i(!0xffff)));
    let lower = |x| s.reinterpret(s.shl(x, 16));
    s.fma(lower(a), lower(b), s.fma(upper(a), upper(b), acc))
}

/// Asks for the line at an address, wherever that is.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that reads nothing and never faults; every x86-64 machine has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for what is not needed at once: it leaves the first level to what is.
#[inline(always)]
pub(crate) fn prefetch_later(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch`.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use avx512::run as run_avx512;

/// Whether this machine multiplies bf16 in pairs faster than it multiplies f32: some have the
/// instruction at a quarter of the rate of others. Takes a fraction of a millisecond to find out;
/// results do not depend on it.
pub(crate) fn pairs_are_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Isa::Avx512Bf16.is_available() && avx512::pairs_are_fast()
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The body of an op.
pub(crate) trait Kernel {
    /// Whether it multiplies bf16 in pairs, and is compiled once more for machines that can.
    const PAIRS: bool = false;
    /// Whether it multiplies bytes, and is compiled once more for machines that have dot products of
    /// them without AVX-512.
    const DOTS: bool = false;

    /// Must be `#[inline(always)]`: only then does it get the caller's instructions.
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set that this machine was seen to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveIsa {
    isa: Isa,
    /// Whether bf16 are multiplied in pairs.
    pairs: bool,
}

impl ActiveIsa {
    /// `None`: this machine lacks it.
    pub(crate) fn new(isa: Isa) -> Option<Self> {
        let pairs = || match isa {
            Isa::Avx512Bf16 => true,
            Isa::Amx => pairs_are_fast(),
            _ => false,
        };
        isa.is_available().then(|| Self {
            isa,
            pairs: pairs(),
        })
    }

    pub(crate) fn isa(self) -> Isa {
        self.isa
    }

    /// See [`Simd::PAIRS`].
    pub(crate) fn has_pairs(self) -> bool {
        self.pairs
    }

    /// See [`Simd::WIDE`].
    pub(crate) fn is_wide(self) -> bool {
        matches!(self.isa, Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx)
    }

    /// Runs a kernel with this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self.isa {
            Isa::Scalar => scalar::Scalar.run(kernel),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` has seen the features that `Isa::Avx2` stands for.
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, for `Isa::AvxVnni`, which has all of `Isa::Avx2`.
            Isa::AvxVnni => unsafe {
                if K::DOTS {
                    avx2::run_dots(kernel);
                } else {
                    avx2::run(kernel);
                }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, for `Isa::Avx512`, all of which the wider ones have, and with
            // `pairs` for one that has all of `Isa::Avx512Bf16`.
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe {
                if K::PAIRS && self.pairs {
                    avx512::run_pairs(kernel);
                } else {
                    avx512::run(kernel);
                }
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, for `Isa::Neon`.
            Isa::Neon => unsafe { neon::run(kernel) },
            _ => unreachable!("an instruction set of another machine"),
        }
    }
}
