//! Instruction sets of CPUs.

use std::fmt;

use crate::cpu::{amx, simd};

/// Instruction sets with versions of their own, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: every machine.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI: dot products of bytes, on processors without AVX-512 too.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// The same with BF16: products of bf16 in pairs.
    Avx512Bf16,
    /// The same with AMX: tiles of int8 and bf16, on Linux.
    Amx,
    /// NEON with dot products (Armv8.2).
    Neon,
}

impl Isa {
    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            match self {
                Self::Scalar => true,
                Self::Avx2 => avx2,
                Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Self::Avx512 => avx512,
                Self::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
                Self::Amx => amx::is_available(),
                Self::Neon => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Self::Scalar => true,
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Bf16 => false,
            Self::Amx => amx::is_available(),
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Scalar
        }
    }

    /// What this machine has, plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            Self::Scalar,
            Self::Avx2,
            Self::AvxVnni,
            Self::Avx512,
            Self::Avx512Bf16,
            Self::Amx,
            Self::Neon,
        ]
        .into_iter()
        .filter(|isa| isa.is_available())
    }

    /// The fastest that this machine has: the widest, but for pairs of bf16, which some machines
    /// multiply at a quarter of the rate of others.
    pub fn best() -> Self {
        let gains = |isa: &Self| *isa != Self::Avx512Bf16 || simd::pairs_are_fast();
        Self::available()
            .filter(gains)
            .last()
            .unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX2 VNNI",
            Self::Avx512 => "AVX-512 VNNI",
            Self::Avx512Bf16 => "AVX-512 VNNI BF16",
            Self::Amx => "AVX-512 AMX",
            Self::Neon => "NEON",
        })
    }
}
