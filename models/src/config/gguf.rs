//! Hyperparameters in GGUF metadata.

use kernels::{WeightType, dequantize};

use super::rope::yarn_mscale;
use super::{ModelConfig, RopeConfig, RopeScaling};
use crate::gguf::GgufValue;
use crate::{Gguf, LoadError};

/// Reads the metadata of a file of the Llama family (which Mistral's files are, too).
pub(crate) fn read_gguf_config(gguf: &Gguf) -> Result<ModelConfig, LoadError> {
    let keys = Keys { gguf };
    let architecture = match gguf.get("general.architecture") {
        Some(GgufValue::String(name)) => name.as_str(),
        Some(other) => return Err(keys.ill_typed("general.architecture", "a string", other)),
        None => return Err(keys.missing("general.architecture")),
    };
    if architecture != "llama" {
        return Err(keys.error(
            "general.architecture",
            format!("unknown architecture {architecture:?}; supported: llama"),
        ));
    }
    refuse_unsupported(&keys)?;
    let config = read_llama(&keys)?;
    config.check(gguf.path(), |name| gguf_name(name).to_string())?;
    Ok(config)
}

fn read_llama(keys: &Keys<'_>) -> Result<ModelConfig, LoadError> {
    let gguf = keys.gguf;
    let n_heads = keys.size("llama.attention.head_count")?;
    let hidden_size = keys.size("llama.embedding_length")?;
    let head_dim = match keys.opt_size("llama.attention.key_length")? {
        Some(dim) => dim,
        None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(keys.error(
                "llama.attention.head_count",
                format!("{hidden_size} hidden values do not divide into {n_heads} heads"),
            ));
        }
    };
    let value_dim = keys.opt_size("llama.attention.value_length")?;
    if value_dim.is_some_and(|dim| dim != head_dim) {
        return Err(keys.error(
            "llama.attention.value_length",
            format!("values of another length than the keys' {head_dim} are not supported"),
        ));
    }
    // The embedding's own rows count: some writers put the tokenizer's size into the metadata.
    let vocab_size = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| LoadError::new(gguf.path(), "tensor `token_embd.weight` is missing"))?
        .shape[0];
    let has = |name: &str| gguf.tensor(name).is_some();
    Ok(ModelConfig {
        architecture: "llama".to_string(),
        n_layers: keys.size("llama.block_count")?,
        hidden_size,
        intermediate_size: keys.size("llama.feed_forward_length")?,
        n_heads,
        n_kv_heads: keys
            .opt_size("llama.attention.head_count_kv")?
            .unwrap_or(n_heads),
        head_dim,
        vocab_size,
        max_positions: keys.size("llama.context_length")?,
        norm_eps: keys.number("llama.attention.layer_norm_rms_epsilon")? as f32,
        rope: read_rope(keys, head_dim)?,
        qkv_bias: has("blk.0.attn_q.bias"),
        attention_output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        tied_embeddings: !has("output.weight"),
    })
}

fn refuse_unsupported(keys: &Keys<'_>) -> Result<(), LoadError> {
    if let Some(n) = keys.opt_size("llama.expert_count")?
        && n > 0
    {
        return Err(keys.error(
            "llama.expert_count",
            "mixtures of experts are not supported yet",
        ));
    }
    let window = keys.opt_size("llama.attention.sliding_window")?;
    if let Some(window) = window
        && window > 0
        && window < keys.size("llama.context_length")?
    {
        return Err(keys.error(
            "llama.attention.sliding_window",
            format!("attention over a window of {window} positions is not supported yet"),
        ));
    }
    Ok(())
}

fn read_rope(keys: &Keys<'_>, head_dim: usize) -> Result<RopeConfig, LoadError> {
    let dim = keys
        .opt_size("llama.rope.dimension_count")?
        .unwrap_or(head_dim);
    Ok(RopeConfig {
        theta: keys.opt_number("llama.rope.freq_base")?.unwrap_or(10_000.0),
        dim,
        scaling: read_scaling(keys, dim)?,
    })
}

fn read_scaling(keys: &Keys<'_>, dim: usize) -> Result<RopeScaling, LoadError> {
    const KIND: &str = "llama.rope.scaling.type";
    let divisors = read_divisors(keys, dim)?;
    let kind = match keys.gguf.get(KIND) {
        Some(GgufValue::String(kind)) => kind.as_str(),
        Some(other) => return Err(keys.ill_typed(KIND, "a string", other)),
        // The oldest files have a factor only.
        None if keys.gguf.get("llama.rope.scale_linear").is_some() => "linear",
        None => "none",
    };
    if let Some(divisors) = divisors {
        if kind != "none" {
            return Err(keys.error(
                KIND,
                format!("{kind:?} together with a tensor `rope_freqs.weight` is not supported"),
            ));
        }
        return Ok(RopeScaling::Divisors(divisors));
    }
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => match keys.opt_number("llama.rope.scaling.factor")? {
            Some(factor) => Ok(RopeScaling::Linear { factor }),
            None => Ok(RopeScaling::Linear {
                factor: keys.number("llama.rope.scale_linear")?,
            }),
        },
        "yarn" => read_yarn(keys),
        other => Err(keys.error(
            KIND,
            format!("rope scaling {other:?} is not supported; supported: none, linear, yarn"),
        )),
    }
}

fn read_yarn(keys: &Keys<'_>) -> Result<RopeScaling, LoadError> {
    let number = |name: &str, default: f64| {
        keys.opt_number(&format!("llama.rope.scaling.{name}"))
            .map(|x| x.unwrap_or(default))
    };
    let factor = keys.number("llama.rope.scaling.factor")?;
    Ok(RopeScaling::Yarn {
        factor,
        original_positions: keys.size("llama.rope.scaling.original_context_length")?,
        beta_fast: number("yarn_beta_fast", 32.0)?,
        beta_slow: number("yarn_beta_slow", 1.0)?,
        attention_factor: number("attn_factor", 1.0)? * yarn_mscale(factor, 1.0),
        truncate: true,
    })
}

/// Llama 3.1's scaling comes worked out, as a divisor for each frequency.
fn read_divisors(keys: &Keys<'_>, dim: usize) -> Result<Option<Vec<f32>>, LoadError> {
    let Some(tensor) = keys.gguf.tensor("rope_freqs.weight") else {
        return Ok(None);
    };
    if tensor.ty != WeightType::F32 || tensor.shape != [dim / 2] {
        return Err(LoadError::new(
            tensor.file,
            format!(
                "tensor `rope_freqs.weight`: expected F32 of shape [{}], found {:?} of shape {:?}",
                dim / 2,
                tensor.ty,
                tensor.shape
            ),
        ));
    }
    let mut divisors = vec![0.0; dim / 2];
    dequantize(tensor.ty, tensor.bytes, &mut divisors);
    Ok(Some(divisors))
}

/// The file's name for a field of [`ModelConfig`].
fn gguf_name(name: &str) -> &str {
    match name {
        "n_layers" => "llama.block_count",
        "hidden_size" => "llama.embedding_length",
        "intermediate_size" => "llama.feed_forward_length",
        "n_heads" => "llama.attention.head_count",
        "n_kv_heads" => "llama.attention.head_count_kv",
        "head_dim" => "llama.attention.key_length",
        "vocab_size" => "token_embd.weight",
        "max_positions" => "llama.context_length",
        "norm_eps" => "llama.attention.layer_norm_rms_epsilon",
        "rope_dim" => "llama.rope.dimension_count",
        other => other,
    }
}

/// Typed reading of metadata, with errors that name the key.
#[derive(Clone, Copy, Debug)]
struct Keys<'a> {
    gguf: &'a Gguf,
}

impl Keys<'_> {
    fn error(&self, key: &str, message: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.gguf.path(), format!("metadata `{key}`: {message}"))
    }

    fn missing(&self, key: &str) -> LoadError {
        LoadError::new(self.gguf.path(), format!("metadata `{key}` is missing"))
    }

    fn ill_typed(&self, key: &str, expected: &str, found: &GgufValue) -> LoadError {
        self.error(
            key,
            format!("expected {expected}, found {}", found.describe()),
        )
    }

    fn opt_size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.gguf
            .get(key)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.ill_typed(key, "a number of things", value))
            })
            .transpose()
    }

    fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.opt_size(key)?.ok_or_else(|| self.missing(key))
    }

    fn opt_number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.gguf
            .get(key)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| self.ill_typed(key, "a number", value))
            })
            .transpose()
    }

    fn number(&self, key: &str) -> Result<f64, LoadError> {
        self.opt_number(key)?.ok_or_else(|| self.missing(key))
    }
}
