//! Weights of linear layers, packed once at load for the device and instruction set in use.

use crate::cpu::packed::PackedLinear;
use crate::cuda::{CudaError, CudaLinear};
use crate::memory::OutOfMemory;
use crate::{Buffer, Device, WeightSource, WeightType};

/// What a linear layer computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// As fast as the stored format allows: quantized weights meet int8 activations with exact
    /// int32 sums, bf16 weights (on a CPU) bf16 activations with f32 sums; other dense weights are
    /// widened and accumulated in f32.
    Native,
    /// f32 activations times weights widened to f32: the proof of correctness.
    F32,
}

/// A packed weight matrix `[n_out, n_in]`.
#[derive(Debug)]
pub struct Linear {
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Cpu(PackedLinear),
    Cuda(CudaLinear),
}

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
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error(transparent)]
    Device(#[from] CudaError),
}

impl Linear {
    /// Packs a weight in the form that this device computes with. The packed form takes about as
    /// many bytes as the file's (up to 16 columns of padding, and 4% more for some K-quants).
    pub fn pack(
        device: &Device,
        source: &WeightSource<'_>,
        numerics: Numerics,
    ) -> Result<Self, PackError> {
        source.check()?;
        let packed = match device.as_cuda() {
            Some(gpu) => Packed::Cuda(CudaLinear::pack(gpu, source, numerics)?),
            None => Packed::Cpu(PackedLinear::pack(device.as_cpu(), source, numerics)?),
        };
        Ok(Self { packed })
    }

    pub fn n_out(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.n_out,
            Packed::Cuda(packed) => packed.n_out,
        }
    }

    pub fn n_in(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.n_in,
            Packed::Cuda(packed) => packed.n_in,
        }
    }

    /// Row `row` of the matrix, widened exactly to f32: what its file's bytes dequantize to.
    ///
    /// # Panics
    /// When there is no such row or `out` is not `n_in` long, or when a GPU does not answer.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n_out() && out.len() == self.n_in());
        match &self.packed {
            Packed::Cpu(packed) => packed.unpack_row(row, out),
            Packed::Cuda(packed) => {
                let read = packed.read_row(row, out);
                assert!(read.is_ok(), "reading a weight back: {read:?}");
            }
        }
    }

    /// Bytes of memory that the packed form takes.
    pub fn n_bytes(&self) -> usize {
        match &self.packed {
            Packed::Cpu(packed) => packed.n_bytes(),
            Packed::Cuda(packed) => packed.n_bytes(),
        }
    }

    pub(crate) fn packed(&self) -> &PackedLinear {
        match &self.packed {
            Packed::Cpu(packed) => packed,
            Packed::Cuda(_) => panic!("a weight of another device"),
        }
    }

    pub(crate) fn on_cuda(&self) -> &CudaLinear {
        match &self.packed {
            Packed::Cpu(_) => panic!("a weight of another device"),
            Packed::Cuda(packed) => packed,
        }
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
