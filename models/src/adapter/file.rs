//! An adapter's files: tensors sorted by the module that they belong to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use kernels::{WeightType, dequantize};

use super::AdapterError;
use super::config::{Biases, PeftConfig};
use super::gguf;
use super::pattern::ends_with;
use crate::Gguf;
use crate::checkpoint::Tensor;
use crate::safetensors::Shards;

/// Configurations are a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// An opened adapter.
#[derive(Debug)]
pub(crate) enum AdapterFile {
    Peft {
        config: Box<PeftConfig>,
        tensors: Shards,
    },
    Gguf {
        file: Box<Gguf>,
        alpha: f32,
    },
}

/// A tensor and its name in the file.
#[derive(Clone, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) name: String,
    pub(crate) tensor: Tensor<'a>,
}

/// What an adapter has for one module.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModuleTensors<'a> {
    pub(crate) a: Option<Named<'a>>,
    pub(crate) b: Option<Named<'a>>,
    pub(crate) b_bias: Option<Named<'a>>,
    pub(crate) magnitude: Option<Named<'a>>,
    /// `[rank, vocab]`; in GGUF files `[vocab, rank]`.
    pub(crate) embedding_a: Option<Named<'a>>,
    /// `[hidden, rank]`.
    pub(crate) embedding_b: Option<Named<'a>>,
    pub(crate) tokens: Option<Named<'a>>,
    pub(crate) weight: Option<Named<'a>>,
    pub(crate) bias: Option<Named<'a>>,
}

const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
const PEFT_CONFIG: &str = "adapter_config.json";

impl AdapterFile {
    pub(crate) fn open(path: &Path) -> Result<Self, AdapterError> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| AdapterError::refused(path, format!("cannot be read: {error}")))?;
        if !metadata.is_dir() {
            let file = Gguf::open(path)?;
            let alpha = gguf::read_alpha(&file)?;
            return Ok(Self::Gguf {
                file: Box::new(file),
                alpha,
            });
        }
        let weights = path.join(PEFT_WEIGHTS);
        if !weights.exists() {
            return Err(no_weights(path));
        }
        let config = read_config(&path.join(PEFT_CONFIG))?;
        let tensors = Shards::open_file(&weights)?;
        Ok(Self::Peft {
            config: Box::new(config),
            tensors,
        })
    }

    /// The file that tensors are in.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Peft { tensors, .. } => tensors.path(),
            Self::Gguf { file, .. } => file.path(),
        }
    }

    pub(crate) fn config(&self) -> Option<&PeftConfig> {
        match self {
            Self::Peft { config, .. } => Some(config),
            Self::Gguf { .. } => None,
        }
    }

    /// All tensors, by module.
    pub(crate) fn modules(&self) -> Result<BTreeMap<String, ModuleTensors<'_>>, AdapterError> {
        let mut modules = BTreeMap::new();
        match self {
            Self::Gguf { file, .. } => {
                for name in file.tensor_names() {
                    if let Some(tensor) = file.tensor(name) {
                        gguf::sort(&mut modules, name, tensor)?;
                    }
                }
            }
            Self::Peft { tensors, .. } => {
                for name in tensors.names() {
                    if let Some(tensor) = tensors.tensor(name)? {
                        sort(&mut modules, name, tensor)?;
                    }
                }
            }
        }
        if modules.is_empty() {
            return Err(AdapterError::refused(self.path(), "holds no tensors"));
        }
        Ok(modules)
    }

    /// The rank that a module must have if that is known, and its scale.
    pub(crate) fn rank_and_scale(
        &self,
        module: &str,
        found: usize,
    ) -> Result<(usize, f32), AdapterError> {
        match self {
            Self::Peft { config, .. } => config
                .rank_and_scale(module)
                .map_err(|message| self.refuse(module, &message)),
            Self::Gguf { alpha, .. } => Ok((found, alpha / found.max(1) as f32)),
        }
    }

    /// Refuses tensors that the configuration leaves no place for.
    pub(crate) fn check_place(
        &self,
        module: &str,
        layer: Option<usize>,
        tensors: &ModuleTensors<'_>,
    ) -> Result<(), AdapterError> {
        let Self::Peft { config, .. } = self else {
            return Ok(());
        };
        let is_target = config.is_target(module, layer);
        let is_saved = config.saved.iter().any(|name| ends_with(module, name));
        let low_rank = [&tensors.a, &tensors.embedding_a, &tensors.magnitude];
        if let Some(tensor) = low_rank.into_iter().flatten().next()
            && !is_target
        {
            return Err(self.refuse_tensor(
                tensor,
                "has no place: target_modules, exclude_modules and layers_to_transform of \
                 adapter_config.json leave this module out",
            ));
        }
        if let Some(weight) = &tensors.weight
            && !is_saved
            // Embeddings are saved beside low-rank matrices without being asked for.
            && tensors.embedding_a.is_none()
        {
            return Err(self.refuse_tensor(
                weight,
                "has no place: modules_to_save of adapter_config.json does not name this module",
            ));
        }
        let has_bias = match config.biases {
            Biases::All => true,
            Biases::LoraOnly => is_target,
            Biases::None => false,
        };
        if let Some(bias) = &tensors.bias
            && !has_bias
            && !is_saved
        {
            return Err(self.refuse_tensor(
                bias,
                "has no place: neither bias nor modules_to_save of adapter_config.json asks for it",
            ));
        }
        Ok(())
    }

    pub(crate) fn refuse(&self, module: &str, message: &str) -> AdapterError {
        AdapterError::refused(self.path(), format!("module `{module}`: {message}"))
    }

    pub(crate) fn refuse_tensor(&self, tensor: &Named<'_>, message: &str) -> AdapterError {
        AdapterError::refused(self.path(), format!("tensor `{}` {message}", tensor.name))
    }
}

fn read_config(path: &Path) -> Result<PeftConfig, AdapterError> {
    let refused = |message: String| AdapterError::refused(path, message);
    let metadata =
        std::fs::metadata(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    if metadata.len() > MAX_CONFIG_BYTES {
        return Err(refused(format!(
            "{} bytes are no configuration",
            metadata.len()
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    PeftConfig::read(path, &text)
}

fn no_weights(dir: &Path) -> AdapterError {
    let pickles = ["adapter_model.bin", "adapter_model.pt", "pytorch_model.bin"];
    let pickle: Option<PathBuf> = pickles
        .map(|name| dir.join(name))
        .into_iter()
        .find(|p| p.exists());
    match pickle {
        Some(path) => AdapterError::refused(
            &path,
            "weights in Python's pickle format are not read, because a pickle can run code; \
             convert them to safetensors",
        ),
        None => AdapterError::refused(dir, format!("no adapter: {PEFT_WEIGHTS} is not there")),
    }
}

/// Puts a tensor of a PEFT file to its module.
fn sort<'a>(
    modules: &mut BTreeMap<String, ModuleTensors<'a>>,
    name: &str,
    tensor: Tensor<'a>,
) -> Result<(), AdapterError> {
    type Place = for<'m, 'a> fn(&'m mut ModuleTensors<'a>) -> &'m mut Option<Named<'a>>;
    const ENDS: [(&str, Place); 12] = [
        (".lora_A.weight", |m| &mut m.a),
        (".lora_B.weight", |m| &mut m.b),
        (".lora_B.bias", |m| &mut m.b_bias),
        (".lora_magnitude_vector.weight", |m| &mut m.magnitude),
        (".lora_magnitude_vector", |m| &mut m.magnitude),
        (".lora_embedding_A", |m| &mut m.embedding_a),
        (".lora_embedding_B", |m| &mut m.embedding_b),
        (".token_adapter.trainable_tokens_delta", |m| &mut m.tokens),
        (".base_layer.weight", |m| &mut m.weight),
        (".base_layer.bias", |m| &mut m.bias),
        (".weight", |m| &mut m.weight),
        (".bias", |m| &mut m.bias),
    ];
    let refused =
        |message: &str| AdapterError::refused(tensor.file, format!("tensor `{name}` {message}"));
    let Some(inner) = name.strip_prefix("base_model.model.") else {
        return Err(refused(
            "has no place: names of PEFT begin with `base_model.model.`",
        ));
    };
    let found = ENDS
        .iter()
        .find_map(|(end, place)| inner.strip_suffix(end).map(|module| (module, place)));
    let Some((module, place)) = found else {
        return Err(refused("is of no kind that is known"));
    };
    let place = place(modules.entry(module.to_string()).or_default());
    let named = Named {
        name: name.to_string(),
        tensor,
    };
    if place.replace(named).is_some() {
        return Err(refused("is there twice, under two spellings"));
    }
    Ok(())
}

impl Named<'_> {
    /// Refuses another shape than `expected`, and values that are not finite numbers.
    pub(crate) fn check(&self, expected: &[usize]) -> Result<(), AdapterError> {
        let tensor = &self.tensor;
        let refused = |message: String| {
            AdapterError::refused(tensor.file, format!("tensor `{}`: {message}", self.name))
        };
        if tensor.shape != expected {
            let found = tensor.shape;
            return Err(refused(format!(
                "expected shape {expected:?}, found {found:?}"
            )));
        }
        if tensor.ty.is_quantized() {
            return Err(refused(format!(
                "{:?} is not supported in adapters; supported: F32, F16, BF16",
                tensor.ty
            )));
        }
        if let Some(at) = first_not_finite(tensor.ty, tensor.bytes) {
            return Err(refused(format!("value {at} is not a finite number")));
        }
        Ok(())
    }

    /// The values in f32. The type has been checked.
    pub(crate) fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.tensor.bytes.len() / self.tensor.ty.block_bytes()];
        dequantize(self.tensor.ty, self.tensor.bytes, &mut values);
        values
    }

    /// The bytes as those of another dense type that holds all values exactly.
    pub(crate) fn bytes_as(&self, ty: WeightType) -> Cow<'_, [u8]> {
        if ty == self.tensor.ty {
            return Cow::Borrowed(self.tensor.bytes);
        }
        let values = self.values();
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }
}

fn first_not_finite(ty: WeightType, bytes: &[u8]) -> Option<usize> {
    match ty {
        WeightType::F32 => {
            let mut values = bytes.as_chunks().0.iter();
            values.position(|bytes| !f32::from_le_bytes(*bytes).is_finite())
        }
        WeightType::F16 => {
            let mut values = bytes.as_chunks().0.iter();
            values.position(|bytes| !f16::from_le_bytes(*bytes).is_finite())
        }
        _ => {
            let mut values = bytes.as_chunks().0.iter();
            values.position(|bytes| !bf16::from_le_bytes(*bytes).is_finite())
        }
    }
}
