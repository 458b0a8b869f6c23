//! Finding weights by name, checking their shapes, and packing them for a device.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use half::{bf16, f16};
use kernels::{Buffer, Device, Linear, LinearCall, Numerics, WeightSource, WeightType, dequantize};

use crate::checkpoint::Tensor;
use crate::{Checkpoint, LoadError};

/// A linear layer as a model holds it.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Linear,
    pub(crate) bias: Option<Buffer>,
}

impl Projection {
    /// This layer in a call of [`Device::linear_into`].
    pub(crate) fn call<'a>(&'a self, out: &'a mut Buffer) -> LinearCall<'a> {
        LinearCall {
            weight: &self.weight,
            bias: self.bias.as_ref(),
            out,
        }
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.weight.n_bytes() + self.bias.as_ref().map_or(0, |bias| 4 * bias.len())
    }
}

/// The tensors of a checkpoint while a model is packed from them. Tensors stay in their mapped
/// files until they are packed one by one, so that memory never holds much more than the result.
#[derive(Debug)]
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    numerics: Numerics,
    dense: Option<WeightType>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Weights<'a> {
    /// `dense`: what to store unquantized matrices in; `None` keeps the checkpoint's type.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        numerics: Numerics,
        dense: Option<WeightType>,
    ) -> Result<Self, LoadError> {
        if let Some(ty) = dense
            && ty.is_quantized()
        {
            return Err(LoadError::new(
                checkpoint.path(),
                format!("quantizing weights to {ty:?} on load is not supported"),
            ));
        }
        Ok(Self {
            checkpoint,
            device,
            numerics,
            dense,
            used: RefCell::default(),
        })
    }

    /// Packs the matrix `name.weight` of `[n_out, n_in]`.
    pub(crate) fn matrix(
        &self,
        name: &str,
        n_out: usize,
        n_in: usize,
    ) -> Result<Linear, LoadError> {
        let name = format!("{name}.weight");
        let tensor = self.tensor(&name, &[n_out, n_in])?;
        let mut source = WeightSource {
            ty: tensor.ty,
            n_out,
            n_in,
            bytes: Cow::Borrowed(tensor.bytes),
        };
        if let Some(ty) = self.dense
            && !tensor.ty.is_quantized()
            && tensor.ty != ty
        {
            source.bytes = Cow::Owned(convert_dense(&tensor, ty));
            source.ty = ty;
        }
        Linear::pack(self.device, &source, self.numerics)
            .map_err(|error| LoadError::new(tensor.file, format!("tensor `{name}`: {error}")))
    }

    /// Packs the linear layer `name`, with `name.bias` if `has_bias`.
    pub(crate) fn projection(
        &self,
        name: &str,
        n_out: usize,
        n_in: usize,
        has_bias: bool,
    ) -> Result<Projection, LoadError> {
        let bias = has_bias
            .then(|| self.vector(&format!("{name}.bias"), n_out))
            .transpose()?;
        Ok(Projection {
            weight: self.matrix(name, n_out, n_in)?,
            bias,
        })
    }

    /// The vector of this full name, in f32 whatever its type: norms and biases are small, and
    /// their exactness is cheap.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Buffer, LoadError> {
        let tensor = self.tensor(name, &[len])?;
        let mut values = vec![0.0; len];
        if !len.is_multiple_of(tensor.ty.block_elements()) {
            return Err(LoadError::new(
                tensor.file,
                format!(
                    "tensor `{name}`: {len} values are no whole blocks of {:?}",
                    tensor.ty
                ),
            ));
        }
        dequantize(tensor.ty, tensor.bytes, &mut values);
        Ok(Buffer::from_slice(self.device, &values))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, LoadError> {
        let (name, tensor) = self.find(name)?.ok_or_else(|| {
            LoadError::new(
                self.checkpoint.path(),
                format!("tensor `{name}` is missing (expected shape {shape:?})"),
            )
        })?;
        if tensor.shape != shape {
            return Err(LoadError::new(
                tensor.file,
                format!(
                    "tensor `{name}`: expected shape {shape:?}, found {:?}",
                    tensor.shape
                ),
            ));
        }
        self.used.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Checkpoints saved from the inner model lack the `model.` before their names.
    fn find(&self, name: &str) -> Result<Option<(String, Tensor<'a>)>, LoadError> {
        if let Some(tensor) = self.checkpoint.tensor(name)? {
            return Ok(Some((name.to_string(), tensor)));
        }
        let Some(short) = name.strip_prefix("model.") else {
            return Ok(None);
        };
        let tensor = self.checkpoint.tensor(short)?;
        Ok(tensor.map(|tensor| (short.to_string(), tensor)))
    }

    /// Refuses a checkpoint with biases that the model did not take: without them it would give
    /// other answers. Other tensors that nobody took are reported only (old checkpoints carry
    /// frequencies and masks, and a head beside tied embeddings).
    pub(crate) fn finish(&self) -> Result<(), LoadError> {
        let used = self.used.borrow();
        for name in self.checkpoint.tensor_names() {
            if used.contains(name) {
                continue;
            }
            if name.ends_with(".bias") {
                return Err(LoadError::new(
                    self.checkpoint.path(),
                    format!("tensor `{name}` has no place in the configured architecture"),
                ));
            }
            tracing::debug!(tensor = name, "not used by the architecture");
        }
        Ok(())
    }
}

/// Stores a dense tensor's values in another dense type, rounding to nearest.
fn convert_dense(tensor: &Tensor<'_>, ty: WeightType) -> Vec<u8> {
    const PIECE: usize = 4096;
    let width = tensor.ty.block_bytes();
    let n = tensor.bytes.len() / width;
    let mut converted = Vec::with_capacity(n * ty.block_bytes());
    let mut values = [0.0_f32; PIECE];
    for piece in tensor.bytes.chunks(PIECE * width) {
        let values = &mut values[..piece.len() / width];
        dequantize(tensor.ty, piece, values);
        match ty {
            WeightType::F16 => {
                let bytes = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes());
                converted.extend(bytes);
            }
            WeightType::BF16 => {
                let bytes = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                converted.extend(bytes);
            }
            _ => converted.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        }
    }
    converted
}
