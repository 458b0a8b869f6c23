//! Tensors of types that only quantized checkpoints have.

use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use crate::LoadError;

/// A tensor as its safetensors file stores it, whatever its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawTensor<'a> {
    pub(crate) file: &'a Path,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawTensor<'a> {
    pub(super) fn error(&self, name: &str, message: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.file, format!("tensor `{name}`: {message}"))
    }

    /// Refuses another type or shape.
    pub(super) fn expect(
        self,
        name: &str,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> Result<Self, LoadError> {
        if !dtypes.contains(&self.dtype) {
            let message = format!("expected one of {dtypes:?}, found {:?}", self.dtype);
            return Err(self.error(name, message));
        }
        if self.shape != shape {
            let message = format!("expected shape {shape:?}, found {:?}", self.shape);
            return Err(self.error(name, message));
        }
        Ok(self)
    }

    /// 32-bit words, their signs being a matter of view.
    pub(super) fn words(&self) -> Vec<u32> {
        let (words, _) = self.bytes.as_chunks::<4>();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// Numbers of any float type; nothing for other types.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let halves = |widen: fn([u8; 2]) -> f32| {
            let (halves, _) = self.bytes.as_chunks::<2>();
            halves.iter().map(|bytes| widen(*bytes)).collect()
        };
        Ok(match self.dtype {
            Dtype::F32 => {
                let (words, _) = self.bytes.as_chunks::<4>();
                words.iter().map(|word| f32::from_le_bytes(*word)).collect()
            }
            Dtype::F16 => halves(|bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => halves(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => {
                let message = format!("expected F32, F16 or BF16, found {other:?}");
                return Err(self.error(name, message));
            }
        })
    }
}

/// Field `index` of `bits` bits, low bits first, in a run of words that `word` gives one by one.
/// Fields of three bits may lie across two words.
pub(super) fn field(word: impl Fn(usize) -> u32, bits: usize, index: usize) -> i32 {
    let (at, shift) = (index * bits / 32, index * bits % 32);
    let low = word(at) >> shift;
    let whole = if shift + bits > 32 {
        low | word(at + 1) << (32 - shift)
    } else {
        low
    };
    (whole & ((1_u64 << bits) - 1) as u32) as i32
}
