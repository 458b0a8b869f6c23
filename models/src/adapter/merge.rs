//! A checkpoint with adapters merged into its weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use kernels::{WeightType, dequantize};
use safetensors::tensor::{Dtype, View};

use super::file::{AdapterFile, ModuleTensors, Named};
use super::modules::ModuleKind;
use super::pattern::ends_with;
use super::{Adapter, AdapterError, AdapterTarget};
use crate::Checkpoint;
use crate::checkpoint::Tensor;

/// Writes `model.safetensors` into the directory `out`: the weights of `checkpoint`, which is in
/// safetensors, with the stack of `adapters` merged into them. Tensors that change are stored as
/// `dense`, or without it in the type that they have (values are rounded to nearest once: an
/// adapter's small changes to bf16 weights are partly lost). `target` is of the same model,
/// loaded. Tensors are made one by one while they are written.
///
/// # Errors
/// An adapter is refused, the checkpoint is in GGUF, `dense` is a quantized type, or the change
/// cannot be said in weights (a bias where the model has none; a head that would no longer be the
/// embedding).
pub fn merge(
    checkpoint: &Checkpoint,
    target: &AdapterTarget,
    adapters: &[(&Path, f32)],
    dense: Option<WeightType>,
    out: &Path,
) -> Result<(), AdapterError> {
    if checkpoint.gguf().is_some() {
        let message = "a checkpoint in GGUF cannot be merged into; use its original in safetensors";
        return Err(AdapterError::refused(checkpoint.path(), message));
    }
    if let Some(ty) = dense
        && ty.is_quantized()
    {
        let message = format!("merged weights are stored as F32, F16 or BF16, not as {ty:?}");
        return Err(AdapterError::refused(out, message));
    }
    let mut files = Vec::new();
    for (path, weight) in adapters {
        if !weight.is_finite() {
            return Err(AdapterError::refused(
                path,
                "a weight is not a finite number",
            ));
        }
        // Everything is checked as for serving.
        Adapter::load(path, target)?;
        files.push((AdapterFile::open(path)?, *weight));
    }
    let mut changes: BTreeMap<String, Vec<Change<'_>>> = BTreeMap::new();
    for (file, share) in &files {
        for (name, tensors) in file.modules()? {
            let found = target.hugging_face().find(&name);
            let (name, module) = found.expect("it was loaded before");
            check_tied(file, target, &name, &tensors)?;
            let change = Change {
                file,
                share: f64::from(*share),
                tensors,
                kind: module.kind.clone(),
                name: name.clone(),
            };
            changes.entry(name).or_default().push(change);
        }
    }
    check_biases(checkpoint, &changes)?;
    let mut merged = Vec::new();
    for name in checkpoint.tensor_names() {
        let Some(tensor) = checkpoint.tensor(name)? else {
            continue;
        };
        let (module, is_bias) = match name.strip_suffix(".bias") {
            Some(module) => (module, true),
            None => (name.strip_suffix(".weight").unwrap_or(name), false),
        };
        let full = target.hugging_face().find(module);
        let own = full.and_then(|(full, _)| changes.get(&full));
        merged.push((
            name.to_string(),
            Merged {
                tensor,
                is_bias,
                changes: own.map_or(&[], Vec::as_slice),
                ty: dense.filter(|_| own.is_some()).unwrap_or(tensor.ty),
            },
        ));
    }
    let path = out.join("model.safetensors");
    let metadata = [("format".to_string(), "pt".to_string())];
    safetensors::serialize_to_file(merged, Some(metadata.into()), &path)
        .map_err(|error| AdapterError::failed(&path, error.to_string()))
}

/// What one adapter does to one module.
#[derive(Debug)]
struct Change<'a> {
    file: &'a AdapterFile,
    share: f64,
    tensors: ModuleTensors<'a>,
    kind: ModuleKind,
    name: String,
}

/// A tensor of the checkpoint, changed when it is written.
#[derive(Debug)]
struct Merged<'a> {
    tensor: Tensor<'a>,
    is_bias: bool,
    changes: &'a [Change<'a>],
    /// What it is stored as.
    ty: WeightType,
}

/// Where head and embedding are one matrix, a change of one alone cannot be said in weights.
fn check_tied(
    file: &AdapterFile,
    target: &AdapterTarget,
    name: &str,
    tensors: &ModuleTensors<'_>,
) -> Result<(), AdapterError> {
    let config = target.config();
    let is_matrix = [&tensors.a, &tensors.embedding_a, &tensors.weight];
    let found = target.hugging_face().find(name);
    let is_shared = found.is_some_and(|(_, module)| match &module.kind {
        ModuleKind::Embedding => true,
        ModuleKind::Linear(linear) => linear.site == super::sites::HEAD,
        ModuleKind::Norm(_) => false,
    });
    if config.logits.tied && is_shared && is_matrix.into_iter().any(Option::is_some) {
        let message = "head and embedding are one matrix, which would have to become two";
        return Err(file.refuse(name, message));
    }
    Ok(())
}

/// A bias of `lora_B` goes into the layer's own.
fn check_biases(
    checkpoint: &Checkpoint,
    changes: &BTreeMap<String, Vec<Change<'_>>>,
) -> Result<(), AdapterError> {
    let names: Vec<&str> = checkpoint.tensor_names().collect();
    for (module, changes) in changes {
        let own = format!("{module}.bias");
        let has_bias = names.iter().any(|name| ends_with(&own, name));
        for change in changes {
            if let Some(bias) = &change.tensors.b_bias
                && !has_bias
            {
                let message = "cannot be merged: the layer has no bias";
                return Err(change.file.refuse_tensor(bias, message));
            }
        }
    }
    Ok(())
}

impl Merged<'_> {
    fn values(&self) -> Vec<f64> {
        let mut base = vec![0.0; self.tensor.bytes.len() / self.tensor.ty.block_bytes()];
        dequantize(self.tensor.ty, self.tensor.bytes, &mut base);
        let mut sum: Vec<f64> = base.iter().map(|x| f64::from(*x)).collect();
        for change in self.changes {
            if self.is_bias {
                change.add_to_bias(&base, &mut sum);
            } else {
                change.add_to_weight(&base, &mut sum);
            }
        }
        sum
    }
}

/// `sum += share * (own - base)`.
fn add_difference(share: f64, own: &Named<'_>, base: &[f32], sum: &mut [f64]) {
    for ((sum, base), own) in sum.iter_mut().zip(base).zip(own.values()) {
        *sum += share * (f64::from(own) - f64::from(*base));
    }
}

impl Change<'_> {
    fn add_to_bias(&self, base: &[f32], sum: &mut [f64]) {
        if let Some(own) = &self.tensors.bias {
            add_difference(self.share, own, base, sum);
        }
        if let Some(own) = &self.tensors.b_bias {
            let scale = self.scale(&self.tensors.b);
            for (sum, own) in sum.iter_mut().zip(own.values()) {
                *sum += self.share * scale * f64::from(own);
            }
        }
    }

    fn add_to_weight(&self, base: &[f32], sum: &mut [f64]) {
        let tensors = &self.tensors;
        if let Some(own) = &tensors.weight {
            add_difference(self.share, own, base, sum);
        }
        match &self.kind {
            ModuleKind::Linear(linear) => {
                if let (Some(a), Some(b)) = (&tensors.a, &tensors.b) {
                    let strides = if linear.transposed {
                        (1, linear.n_out)
                    } else {
                        (linear.n_in, 1)
                    };
                    self.add_low_rank((a, b), strides, base, sum);
                }
            }
            ModuleKind::Embedding => {
                if let (Some(a), Some(b)) = (&tensors.embedding_a, &tensors.embedding_b) {
                    self.add_to_embedding(a, b, sum);
                }
            }
            ModuleKind::Norm(_) => {}
        }
        if let (Some(own), Some(config)) = (&tensors.tokens, self.file.config()) {
            let width = own.tensor.shape[1];
            let mut lists = config.tokens.iter();
            let list = lists.find(|(name, _)| name.is_empty() || ends_with(&self.name, name));
            let tokens = list.map_or(&[][..], |(_, tokens)| tokens);
            for (token, own) in tokens.iter().zip(own.values().chunks_exact(width)) {
                let row = *token as usize * width;
                for (k, own) in own.iter().enumerate() {
                    sum[row + k] += self.share * (f64::from(*own) - f64::from(base[row + k]));
                }
            }
        }
    }

    /// What multiplies `B A`, given `B`.
    fn scale(&self, b: &Option<Named<'_>>) -> f64 {
        let rank = b.as_ref().and_then(|b| b.tensor.shape.last().copied());
        let scale = self.file.rank_and_scale(&self.name, rank.unwrap_or(1));
        scale.map_or(1.0, |(_, scale)| f64::from(scale))
    }

    /// Weight `(i, k)` is at `i * strides.0 + k * strides.1`.
    fn add_low_rank(
        &self,
        (a, b): (&Named<'_>, &Named<'_>),
        strides: (usize, usize),
        base: &[f32],
        sum: &mut [f64],
    ) {
        let (n_out, rank) = (b.tensor.shape[0], b.tensor.shape[1]);
        let n_in = a.tensor.shape[1];
        let (a, b) = (a.values(), b.values());
        let scale = self.scale(&self.tensors.b);
        let magnitude = self.tensors.magnitude.as_ref().map(Named::values);
        let mut row = vec![0.0_f64; n_in];
        for i in 0..n_out {
            row.fill(0.0);
            for k in 0..rank {
                let b = scale * f64::from(b[i * rank + k]);
                for (row, a) in row.iter_mut().zip(&a[k * n_in..]) {
                    *row += b * f64::from(*a);
                }
            }
            let at = |k: usize| i * strides.0 + k * strides.1;
            if let Some(magnitude) = &magnitude {
                let base = |k: usize| f64::from(base[at(k)]);
                let whole = row.iter().enumerate().map(|(k, delta)| base(k) + delta);
                let squares: f64 = whole.map(|w| w * w).sum();
                let factor = f64::from(magnitude[i]) / squares.sqrt();
                for (k, delta) in row.iter_mut().enumerate() {
                    *delta = factor * (base(k) + *delta) - base(k);
                }
            }
            for (k, row) in row.iter().enumerate() {
                sum[at(k)] += self.share * row;
            }
        }
    }

    fn add_to_embedding(&self, a: &Named<'_>, b: &Named<'_>, sum: &mut [f64]) {
        let (rank, vocab) = (a.tensor.shape[0], a.tensor.shape[1]);
        let hidden = b.tensor.shape[0];
        let scale = self.share * self.scale(&self.tensors.embedding_b);
        let (a, b) = (a.values(), b.values());
        for token in 0..vocab {
            for i in 0..hidden {
                let products =
                    (0..rank).map(|k| f64::from(b[i * rank + k]) * f64::from(a[k * vocab + token]));
                sum[token * hidden + i] += scale * products.sum::<f64>();
            }
        }
    }
}

impl View for Merged<'_> {
    fn dtype(&self) -> Dtype {
        match self.ty {
            WeightType::F16 => Dtype::F16,
            WeightType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.changes.is_empty() {
            return Cow::Borrowed(self.tensor.bytes);
        }
        let values = self.values().into_iter();
        Cow::Owned(match self.ty {
            WeightType::F16 => values
                .flat_map(|x| f16::from_f64(x).to_le_bytes())
                .collect(),
            WeightType::BF16 => values
                .flat_map(|x| bf16::from_f64(x).to_le_bytes())
                .collect(),
            _ => values.flat_map(|x| (x as f32).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.bytes.len() / self.tensor.ty.block_bytes() * self.ty.block_bytes()
    }
}
