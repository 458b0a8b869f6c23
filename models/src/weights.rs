//! Finding weights by name, checking their shapes, and packing them for a device.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use half::{bf16, f16};
use kernels::{Buffer, Device, Linear, LinearCall, Numerics, WeightSource, WeightType, dequantize};

use crate::checkpoint::Tensor;
use crate::families::Names;
use crate::piece::Piece;
use crate::{Checkpoint, LoadError};

/// A linear layer as a model holds it.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Arc<Linear>,
    pub(crate) bias: Option<Arc<Buffer>>,
}

impl Projection {
    /// This layer in a call of [`Device::linear_into`].
    pub(crate) fn call<'a>(&'a self, out: &'a mut Buffer) -> LinearCall<'a> {
        LinearCall {
            weight: &self.weight,
            bias: self.bias.as_deref(),
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
    names: &'static Names,
    numerics: Numerics,
    dense: Option<WeightType>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Weights<'a> {
    /// `dense`: what to store unquantized matrices in; `None` keeps the checkpoint's type.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        names: &'static Names,
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
            names,
            numerics,
            dense,
            used: RefCell::default(),
        })
    }

    pub(crate) fn names(&self) -> &'static Names {
        self.names
    }

    pub(crate) fn buffer(&self, values: &[f32]) -> Buffer {
        Buffer::from_slice(self.device, values)
    }

    /// Packs the matrix `name.weight` of `[n_out, n_in]`, which is not one of a layer's.
    pub(crate) fn matrix(
        &self,
        name: &str,
        n_out: usize,
        n_in: usize,
    ) -> Result<Linear, LoadError> {
        self.pack(&format!("{name}.weight"), &Piece::all(n_out), [n_out, n_in])
    }

    /// Packs a piece of the matrix of this full name as one of `shape`, `[n_out, n_in]`.
    pub(crate) fn pack(
        &self,
        name: &str,
        piece: &Piece<'_>,
        shape: [usize; 2],
    ) -> Result<Linear, LoadError> {
        let [n_out, n_in] = shape;
        let tensor = self.tensor(name, &piece.stored_shape(n_in))?;
        let bytes = piece.take(&tensor, n_out, n_in).map_err(|message| {
            LoadError::new(tensor.file, format!("tensor `{name}`: {message}"))
        })?;
        let mut source = WeightSource {
            ty: tensor.ty,
            n_out,
            n_in,
            bytes,
        };
        if let Some(ty) = self.dense
            && !tensor.ty.is_quantized()
            && tensor.ty != ty
        {
            source.bytes = Cow::Owned(convert_dense(tensor.ty, &source.bytes, ty));
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
        self.projection_of(name, &Piece::all(n_out), [n_out, n_in], has_bias)
    }

    /// Packs a piece of the linear layer `name` of a layer.
    pub(crate) fn projection_of(
        &self,
        name: &str,
        piece: &Piece<'_>,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<Projection, LoadError> {
        let piece = piece.transposed(self.names.transposed);
        let bias = has_bias
            .then(|| self.bias_of(&format!("{name}.bias"), &piece, shape[0]))
            .transpose()?;
        Ok(Projection {
            weight: Arc::new(self.pack(&format!("{name}.weight"), &piece, shape)?),
            bias: bias.map(Arc::new),
        })
    }

    /// The values of a bias that belong to a piece of its matrix.
    pub(crate) fn bias_of(
        &self,
        name: &str,
        piece: &Piece<'_>,
        n_out: usize,
    ) -> Result<Buffer, LoadError> {
        let shape = piece.stored_bias_shape();
        let values = self.values_of_shape(name, &shape)?;
        Ok(self.buffer(&piece.take_bias(&values, n_out)))
    }

    /// The vector of this full name, in f32 whatever its type: norms and biases are small, and
    /// their exactness is cheap.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Buffer, LoadError> {
        Ok(self.buffer(&self.values(name, len)?))
    }

    /// As [`Self::vector`], on the host.
    pub(crate) fn values(&self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.values_of_shape(name, &[len])
    }

    fn values_of_shape(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name, shape)?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(tensor.ty.block_elements()) {
            return Err(LoadError::new(
                tensor.file,
                format!(
                    "tensor `{name}`: {row} values are no whole blocks of {:?}",
                    tensor.ty
                ),
            ));
        }
        let mut values = vec![0.0; shape.iter().product()];
        dequantize(tensor.ty, tensor.bytes, &mut values);
        Ok(values)
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

    /// Checkpoints saved from the inner model lack what stands before all of its names.
    fn find(&self, name: &str) -> Result<Option<(String, Tensor<'a>)>, LoadError> {
        if let Some(tensor) = self.checkpoint.tensor(name)? {
            return Ok(Some((name.to_string(), tensor)));
        }
        let Some(short) = name.strip_prefix(self.names.prefix) else {
            return Ok(None);
        };
        let tensor = self.checkpoint.tensor(short)?;
        Ok(tensor.map(|tensor| (short.to_string(), tensor)))
    }

    /// Refuses a checkpoint with biases, or with anything in the first `n_layers` layers, that
    /// the model did not take: without them it would give other answers. Other tensors that
    /// nobody took are reported only (old checkpoints carry a head beside tied embeddings, new
    /// ones layers that only training needs).
    pub(crate) fn finish(&self, n_layers: usize) -> Result<(), LoadError> {
        let used = self.used.borrow();
        let mut unread = Vec::new();
        for name in self.checkpoint.tensor_names() {
            if used.contains(name) || self.is_ignored(name) {
                continue;
            }
            let layer = self.layer_of(name);
            let is_needed = match layer {
                Some(layer) => layer < n_layers,
                None => name.ends_with(".bias"),
            };
            if is_needed {
                return Err(LoadError::new(
                    self.checkpoint.path(),
                    format!("tensor `{name}` has no place in the configured architecture"),
                ));
            }
            unread.push(name);
        }
        if let Some(message) = unread_message(&unread) {
            tracing::warn!("{message}");
        }
        Ok(())
    }

    fn is_ignored(&self, name: &str) -> bool {
        self.names.ignored.iter().any(|end| name.ends_with(end))
    }

    /// The number of the layer that a tensor belongs to.
    fn layer_of(&self, name: &str) -> Option<usize> {
        let layers = self.names.layers;
        let short = layers.strip_prefix(self.names.prefix).unwrap_or(layers);
        let rest = name.strip_prefix(layers).or(name.strip_prefix(short))?;
        rest.split('.').next()?.parse().ok()
    }
}

/// One line about tensors that nobody took.
fn unread_message(names: &[&str]) -> Option<String> {
    const N_SHOWN: usize = 3;
    if names.is_empty() {
        return None;
    }
    let shown = names[..names.len().min(N_SHOWN)].join(", ");
    let more = if names.len() > N_SHOWN { ", ..." } else { "" };
    Some(format!(
        "{} tensors of the checkpoint are not used by the architecture: {shown}{more}",
        names.len()
    ))
}

/// Stores a dense tensor's values in another dense type, rounding to nearest.
fn convert_dense(from: WeightType, bytes: &[u8], ty: WeightType) -> Vec<u8> {
    const PIECE: usize = 4096;
    let width = from.block_bytes();
    let n = bytes.len() / width;
    let mut converted = Vec::with_capacity(n * ty.block_bytes());
    let mut values = [0.0_f32; PIECE];
    for piece in bytes.chunks(PIECE * width) {
        let values = &mut values[..piece.len() / width];
        dequantize(from, piece, values);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_tensors_are_counted_and_the_first_named() {
        assert_eq!(unread_message(&[]), None);
        let message = unread_message(&["a", "b", "c", "d"]).unwrap_or_default();
        assert!(message.starts_with("4 tensors") && message.ends_with(": a, b, c, ..."));
    }
}
