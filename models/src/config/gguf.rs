//! Hyperparameters in GGUF metadata.

use kernels::NormKind;

use super::ModelConfig;
use super::check::MAX_LAYERS;
use super::json::{activation_by_name, forget_idle_windows};
use super::rope_gguf::read_rope;
use crate::families::{Family, family_of_gguf, supported_gguf};
use crate::gguf::GgufValue;
use crate::{Gguf, LoadError};

/// What [`crate::convert`] writes where an activation differs from the architecture's own.
pub(crate) const ACTIVATION_KEY: &str = "understudy.activation";

/// Reads a file's metadata; what is only in its tensors' names (biases, tied embeddings) too.
pub(crate) fn read_gguf_config(gguf: &Gguf) -> Result<(ModelConfig, &'static Family), LoadError> {
    const ARCHITECTURE: &str = "general.architecture";
    let keys = Keys {
        gguf,
        architecture: "",
    };
    let architecture = match gguf.get(ARCHITECTURE) {
        Some(GgufValue::String(name)) => name.as_str(),
        Some(other) => return Err(keys.ill_typed(ARCHITECTURE, "a string", other)),
        None => return Err(keys.missing(ARCHITECTURE)),
    };
    let Some(family) = family_of_gguf(architecture) else {
        return Err(keys.error(
            ARCHITECTURE,
            format!(
                "unknown architecture {architecture:?}; supported: {}",
                supported_gguf()
            ),
        ));
    };
    let keys = Keys { gguf, architecture };
    let mut config = read_base(&keys, family)?;
    (family.shape)(&mut config);
    read_biases(&keys, family, &mut config);
    (family.read_gguf)(&keys, &mut config)?;
    let n_experts = keys.opt_size("expert_count")?.unwrap_or(0);
    if n_experts > 0 && config.experts.is_none() {
        return Err(keys.error(
            "expert_count",
            format!("{n_experts} experts: {architecture:?} is not supported with experts"),
        ));
    }
    read_activation(&keys, &mut config)?;
    forget_idle_windows(&mut config);
    config.check(gguf.path(), |name| gguf_name(&keys, name))?;
    Ok((config, family))
}

fn read_base(keys: &Keys<'_>, family: &Family) -> Result<ModelConfig, LoadError> {
    let gguf = keys.gguf;
    let n_heads = keys.size("attention.head_count")?;
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = match keys.opt_size("attention.key_length")? {
        Some(dim) => dim,
        None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(keys.error(
                "attention.head_count",
                format!("{hidden_size} hidden values do not divide into {n_heads} heads"),
            ));
        }
    };
    let value_dim = keys.opt_size("attention.value_length")?;
    let is_latent = keys.get("attention.kv_lora_rank").is_some();
    if value_dim.is_some_and(|dim| dim != head_dim) && !is_latent {
        return Err(keys.error(
            "attention.value_length",
            format!("values of another length than the keys' {head_dim} are not supported"),
        ));
    }
    let n_layers = keys.size("block_count")?;
    let mut config = ModelConfig::plain(keys.architecture, n_layers.min(MAX_LAYERS), head_dim);
    config.n_layers = n_layers;
    config.hidden_size = hidden_size;
    config.intermediate_size = keys.size("feed_forward_length")?;
    config.n_heads = n_heads;
    config.n_kv_heads = keys.opt_size("attention.head_count_kv")?.unwrap_or(n_heads);
    // The embedding's own rows count: some writers put the tokenizer's size into the metadata.
    config.vocab_size = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| LoadError::new(gguf.path(), "tensor `token_embd.weight` is missing"))?
        .shape[0];
    config.max_positions = keys.size("context_length")?;
    if let Some(eps) = keys.opt_f32("attention.layer_norm_epsilon")? {
        config.norm.kind = NormKind::Layer;
        config.norm.eps = eps;
    } else {
        config.norm.eps = keys.number("attention.layer_norm_rms_epsilon")? as f32;
    }
    if family.spelling.rotary_part.is_some() {
        config.ropes = vec![read_rope(keys, head_dim)?];
    }
    config.logits.tied = !keys.has("output.weight");
    read_window(keys, &mut config)?;
    Ok(config)
}

/// A key of our own, for an activation that is not the architecture's usual one.
fn read_activation(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let Some(value) = keys.gguf.get(ACTIVATION_KEY) else {
        return Ok(());
    };
    let name = value.as_str().unwrap_or_default();
    config.mlp.activation = activation_by_name(name).ok_or_else(|| {
        LoadError::new(
            keys.gguf.path(),
            format!(
                "metadata `{ACTIVATION_KEY}`: {} is not an activation that is supported",
                value.describe()
            ),
        )
    })?;
    Ok(())
}

/// A window for all layers; families in which it is not for all change that.
fn read_window(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let window = keys
        .opt_size("attention.sliding_window")?
        .filter(|n| *n > 0);
    for layer in &mut config.layers {
        layer.window = window;
    }
    Ok(())
}

/// Biases are where the first layer has them.
fn read_biases(keys: &Keys<'_>, family: &Family, config: &mut ModelConfig) {
    let names = (family.gguf_names)(config);
    let has = |name: &str| keys.has(&format!("blk.0.{name}.bias"));
    let (qkv, mlp) = (names.qkv.first(), names.mlp_in.last());
    config.attention.qkv_bias = has(qkv);
    config.attention.output_bias = has(names.output);
    config.mlp.bias = has(mlp);
    config.norm.bias = keys.has("output_norm.bias");
    config.logits.bias = keys.has("output.bias");
}

/// The file's name for a field as `config.json` calls it.
fn gguf_name(keys: &Keys<'_>, name: &str) -> String {
    let key = match name {
        "num_hidden_layers" => "block_count",
        "hidden_size" => "embedding_length",
        "intermediate_size" => "feed_forward_length",
        "num_attention_heads" => "attention.head_count",
        "num_key_value_heads" => "attention.head_count_kv",
        "head_dim" => "attention.key_length",
        "vocab_size" => return "token_embd.weight".to_string(),
        "max_position_embeddings" => "context_length",
        "rms_norm_eps" => "attention.layer_norm_rms_epsilon",
        other => other,
    };
    keys.full(key)
}

/// Typed reading of metadata, with errors that name the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) gguf: &'a Gguf,
    /// What stands before a key, but for those that begin with `general.`.
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    fn full(&self, key: &str) -> String {
        if key.starts_with("general.") {
            key.to_string()
        } else {
            format!("{}.{key}", self.architecture)
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a GgufValue> {
        self.gguf.get(&self.full(key))
    }

    /// Whether the file has a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    pub(crate) fn error(&self, key: &str, message: impl std::fmt::Display) -> LoadError {
        LoadError::new(
            self.gguf.path(),
            format!("metadata `{}`: {message}", self.full(key)),
        )
    }

    pub(crate) fn missing(&self, key: &str) -> LoadError {
        LoadError::new(
            self.gguf.path(),
            format!("metadata `{}` is missing", self.full(key)),
        )
    }

    pub(crate) fn ill_typed(&self, key: &str, expected: &str, found: &GgufValue) -> LoadError {
        self.error(
            key,
            format!("expected {expected}, found {}", found.describe()),
        )
    }

    pub(crate) fn opt_size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.ill_typed(key, "a whole number", value))
            })
            .transpose()
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.opt_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.get(key)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| self.ill_typed(key, "a number", value))
            })
            .transpose()
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, LoadError> {
        self.opt_number(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.get(key)
            .map(|value| match value {
                GgufValue::Bool(value) => Ok(*value),
                other => Err(self.ill_typed(key, "true or false", other)),
            })
            .transpose()
    }

    /// A yes or no for each layer: a list of them, or `default`.
    pub(crate) fn layer_pattern(
        &self,
        key: &str,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, LoadError> {
        let n_layers = self.size("block_count")?.min(MAX_LAYERS);
        match self.get(key) {
            None => Ok((0..n_layers).map(default).collect()),
            Some(GgufValue::Array(values)) if values.len() >= n_layers => values[..n_layers]
                .iter()
                .map(|value| value.as_bool().or(value.as_u64().map(|n| n != 0)))
                .collect::<Option<_>>()
                .ok_or_else(|| self.error(key, "expected a yes or no for each layer")),
            // One in so many layers is without.
            Some(value) => match value.as_u64() {
                Some(0) => Ok(vec![true; n_layers]),
                Some(n) => Ok((1..=n_layers as u64)
                    .map(|i| !i.is_multiple_of(n))
                    .collect()),
                None => Err(self.ill_typed(key, "a list with an entry for each layer", value)),
            },
        }
    }

    pub(crate) fn opt_f32(&self, key: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.opt_number(key)?.map(|x| x as f32))
    }
}
