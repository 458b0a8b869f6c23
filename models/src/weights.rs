//! Finding weights by name, checking their shapes, and packing them for a device.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use kernels::{
    Buffer, Device, Linear, LinearCall, Numerics, Part, WeightSource, WeightType, dequantize,
};

use crate::checkpoint::Tensor;
use crate::convert::{Role, recode, type_for};
use crate::cut::Cut;
use crate::decoder::LoadOptions;
use crate::families::Names;
use crate::lookup::Lookup;
use crate::piece::Piece;
use crate::quantized::{self, Assembled};
use crate::shared::{SharedWeights, WeightKey};
use crate::{Checkpoint, LoadError};

/// A linear layer as a model holds it.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Arc<Linear>,
    pub(crate) bias: Option<Arc<Buffer>>,
    /// Which part of the layer this is; `None`: all of it.
    pub(crate) cut: Option<Cut>,
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
    lookup: Lookup<'a>,
    device: &'a Device,
    numerics: Numerics,
    dense: Option<WeightType>,
    shared: Option<&'a SharedWeights>,
    /// Matrices that other models may have too, and their bytes.
    matrices: RefCell<Vec<(WeightKey, u64)>>,
    widened_bytes: Cell<usize>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        names: &'static Names,
        options: LoadOptions<'a>,
    ) -> Self {
        Self {
            lookup: Lookup::new(checkpoint, names),
            device,
            numerics: options.numerics,
            dense: options.dense,
            shared: options.shared,
            matrices: RefCell::default(),
            widened_bytes: Cell::new(0),
        }
    }

    pub(crate) fn names(&self) -> &'static Names {
        self.lookup.names()
    }

    /// Which part of the model is packed.
    pub(crate) fn part(&self) -> Part {
        self.device.part()
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
    ) -> Result<Arc<Linear>, LoadError> {
        self.pack(&format!("{name}.weight"), &Piece::all(n_out), [n_out, n_in])
    }

    /// Packs a piece of the matrix of this full name as one of `shape`, `[n_out, n_in]`.
    pub(crate) fn pack(
        &self,
        name: &str,
        piece: &Piece<'_>,
        shape: [usize; 2],
    ) -> Result<Arc<Linear>, LoadError> {
        let [n_out, n_in] = shape;
        let n_stored_in = piece.n_stored_in(n_in);
        let assembled = self.assembled(name, piece, n_stored_in)?;
        let stored_shape = piece.stored_shape(n_in);
        let assembled_shape = [piece.n_stored(), n_stored_in];
        let (tensor, piece) = match &assembled {
            Some(assembled) => {
                let tensor = Tensor {
                    file: self.lookup.path(),
                    ty: assembled.ty,
                    shape: &assembled_shape,
                    bytes: &assembled.bytes,
                };
                (tensor, piece.of_assembled())
            }
            None => (self.lookup.tensor(name, &stored_shape)?, *piece),
        };
        let bytes = piece.take(&tensor, n_out, n_in).map_err(|message| {
            LoadError::new(tensor.file, format!("tensor `{name}`: {message}"))
        })?;
        let source = WeightSource {
            ty: tensor.ty,
            n_out,
            n_in,
            bytes,
        };
        let ty = self.type_of(name, n_stored_in, tensor.ty);
        let ty = ty.and_then(|ty| crate::cut::in_whole_blocks(ty, n_in, n_stored_in));
        let ty = ty.map_err(|message| {
            LoadError::new(tensor.file, format!("tensor `{name}`: {message}"))
        })?;
        let is_widened = assembled
            .as_ref()
            .is_some_and(|assembled| assembled.is_widened);
        self.packed(source, ty, is_widened)
            .map_err(|message| LoadError::new(tensor.file, format!("tensor `{name}`: {message}")))
    }

    /// `source` packed as `ty`, by another model if one has it.
    fn packed(
        &self,
        mut source: WeightSource<'_>,
        ty: WeightType,
        is_widened: bool,
    ) -> Result<Arc<Linear>, String> {
        let place = self
            .shared
            .map(|shared| (shared, WeightKey::new(&source, ty, self.numerics)));
        let found = place.and_then(|(shared, key)| shared.find(key));
        let weight = if let Some(weight) = found {
            weight
        } else {
            if source.ty != ty {
                let bytes = recode(source.ty, &source.bytes, source.n_in, ty)?;
                source.bytes = Cow::Owned(bytes);
                source.ty = ty;
            }
            if is_widened && !ty.is_quantized() {
                self.widened_bytes
                    .set(self.widened_bytes.get() + source.bytes.len());
            }
            let packed = Linear::pack(self.device, &source, self.numerics);
            Arc::new(packed.map_err(|error| error.to_string())?)
        };
        if let Some((shared, key)) = place {
            shared.keep(key, &weight);
            let n_bytes = weight.n_bytes() as u64;
            self.matrices.borrow_mut().push((key, n_bytes));
        }
        Ok(weight)
    }

    /// Matrices that other models may have too, and their bytes.
    pub(crate) fn matrices(&self) -> Vec<(WeightKey, u64)> {
        self.matrices.borrow().clone()
    }

    /// Whether the checkpoint has a tensor of this full name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lookup.has(name)
    }

    /// Packs values that were read from tensor `name` and put in another order, in f32.
    pub(crate) fn pack_values(
        &self,
        name: &str,
        values: &[f32],
        shape: [usize; 2],
    ) -> Result<Projection, LoadError> {
        let [n_out, n_in] = shape;
        let source = WeightSource {
            ty: WeightType::F32,
            n_out,
            n_in,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let weight = Linear::pack(self.device, &source, self.numerics)
            .map_err(|error| self.lookup.error(format!("tensor `{name}`: {error}")))?;
        Ok(Projection {
            weight: Arc::new(weight),
            bias: None,
            cut: None,
        })
    }

    /// The stored matrix around a piece, if the checkpoint has it in a quantized form.
    fn assembled(
        &self,
        name: &str,
        piece: &Piece<'_>,
        n_in: usize,
    ) -> Result<Option<Assembled>, LoadError> {
        let Some(quantization) = self.lookup.quantization() else {
            return Ok(None);
        };
        let wanted = quantized::Wanted {
            name,
            n_out: piece.n_stored(),
            n_in,
            expert: piece.expert(),
            // What will be quantized anew is best quantized from exact values.
            numerics: match self.dense {
                Some(ty) if ty.is_quantized() => Numerics::F32,
                _ => self.numerics,
            },
        };
        quantized::assemble(&self.lookup, quantization, wanted)
    }

    /// Bytes of matrices that no block format can hold exactly, and that were widened.
    pub(crate) fn widened_bytes(&self) -> usize {
        self.widened_bytes.get()
    }

    /// What a matrix that is stored as `stored` is packed as.
    fn type_of(&self, name: &str, n_in: usize, stored: WeightType) -> Result<WeightType, String> {
        let Some(wanted) = self.dense else {
            return Ok(stored);
        };
        if !wanted.is_quantized() {
            return Ok(if stored.is_quantized() {
                stored
            } else {
                wanted
            });
        }
        if stored.is_quantized() {
            return Err(format!(
                "is {stored:?} already, and would be quantized to {wanted:?} once more"
            ));
        }
        Ok(match self.lookup.role_of(name) {
            Role::Exact => stored,
            role => type_for(wanted, role, n_in, stored),
        })
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

    /// Packs this device's part of a piece of the linear layer `name` of a layer.
    pub(crate) fn cut_projection(
        &self,
        cut: &Cut,
        name: &str,
        piece: &Piece<'_>,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<Projection, LoadError> {
        let piece = piece.transposed(self.names().transposed);
        let bias = format!("{name}.bias");
        let names = (&*format!("{name}.weight"), has_bias.then_some(&*bias));
        self.projection_part(cut, names, &piece, shape)
    }

    /// Packs a piece of the linear layer `name` of a layer, the same on every device.
    pub(crate) fn projection_of(
        &self,
        name: &str,
        piece: &Piece<'_>,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<Projection, LoadError> {
        let whole = Cut::Outputs(0..shape[0]);
        let projection = self.cut_projection(&whole, name, piece, shape, has_bias)?;
        Ok(Projection {
            cut: None,
            ..projection
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

    /// See [`Lookup::finish`].
    pub(crate) fn finish(&self, n_layers: usize) -> Result<(), LoadError> {
        self.lookup.finish(n_layers)
    }

    pub(crate) fn values_of_shape(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>, LoadError> {
        let tensor = self.lookup.tensor(name, shape)?;
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
}
