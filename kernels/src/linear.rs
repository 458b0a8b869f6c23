//! Weights of linear layers, packed once at load for the device and instruction set in use.

use crate::{Buffer, Device, WeightSource, WeightType};

/// What a linear layer computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// As fast as the stored format allows: quantized weights meet int8 activations with exact
    /// int32 sums; dense weights are widened and accumulated in f32.
    Native,
    /// f32 activations times weights widened to f32: the proof of correctness.
    F32,
}

/// A packed weight matrix `[n_out, n_in]`.
#[derive(Debug)]
pub struct Linear {}

/// A weight that cannot be packed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    #[error("{ty:?} needs rows of a multiple of {multiple} values, found {n_in}")]
    RowLength {
        ty: WeightType,
        multiple: usize,
        n_in: usize,
    },
    #[error("expected {expected} bytes for {n_out}x{n_in} {ty:?}, found {found}")]
    ByteLength {
        ty: WeightType,
        n_out: usize,
        n_in: usize,
        expected: usize,
        found: usize,
    },
}

impl Linear {
    pub fn pack(
        _device: &Device,
        _source: &WeightSource<'_>,
        _numerics: Numerics,
    ) -> Result<Self, PackError> {
        unimplemented!()
    }

    pub fn n_out(&self) -> usize {
        unimplemented!()
    }

    pub fn n_in(&self) -> usize {
        unimplemented!()
    }

    /// Bytes of memory that the packed form takes.
    pub fn n_bytes(&self) -> usize {
        unimplemented!()
    }
}

/// One of the layers of [`Device::linear_into`].
#[derive(Debug)]
pub struct LinearCall<'a> {
    pub weight: &'a Linear,
    /// `[n_out]`.
    pub bias: Option<&'a Buffer>,
    /// `[n_rows, n_out]`.
    pub out: &'a mut Buffer,
}
