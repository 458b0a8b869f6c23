//! Weights as files store them.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::format;
use crate::linear::PackError;

/// Storage formats. The block formats are those of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    non_camel_case_types,
    reason = "the names everybody knows these formats by"
)]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
}

impl WeightType {
    /// All that are stored in blocks.
    pub const QUANTIZED: [Self; 11] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
    ];

    /// Values that one block holds (1 for the dense types).
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4_NL => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes that one block takes.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Whether values are stored in blocks with shared scales.
    pub const fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }
}

/// A row-major weight matrix `[n_out, n_in]` as its file stores it.
#[derive(Clone, Debug)]
pub struct WeightSource<'a> {
    pub ty: WeightType,
    pub n_out: usize,
    pub n_in: usize,
    pub bytes: Cow<'a, [u8]>,
}

impl WeightSource<'_> {
    /// Whether the bytes are of this shape.
    pub(crate) fn check(&self) -> Result<(), PackError> {
        let &WeightSource {
            ty, n_out, n_in, ..
        } = self;
        let multiple = ty.block_elements();
        if !n_in.is_multiple_of(multiple) {
            return Err(PackError::RowLength { ty, multiple, n_in });
        }
        let found = self.bytes.len();
        let expected = (n_in / multiple)
            .checked_mul(ty.block_bytes())
            .and_then(|row| row.checked_mul(n_out))
            .unwrap_or(usize::MAX);
        if expected != found {
            return Err(PackError::ByteLength {
                ty,
                n_out,
                n_in,
                expected,
                found,
            });
        }
        Ok(())
    }
}

/// Widens whole blocks to f32, exactly as the format defines them.
///
/// # Panics
/// When `bytes` and `out` do not hold the same whole number of blocks.
pub fn dequantize(ty: WeightType, bytes: &[u8], out: &mut [f32]) {
    let n_blocks = bytes.len() / ty.block_bytes();
    assert_eq!(
        (bytes.len(), out.len()),
        (n_blocks * ty.block_bytes(), n_blocks * ty.block_elements()),
        "{ty:?}: bytes and values must be the same whole number of blocks"
    );
    match ty {
        WeightType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        WeightType::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        WeightType::BF16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => format::dequantize_blocks(ty, bytes, out),
    }
}
