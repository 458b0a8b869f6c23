//! `config.json` of Hugging Face checkpoints.
//!
//! Two spellings are in use: transformers 4 writes `rope_theta`, `rope_scaling` and
//! `torch_dtype`, transformers 5 writes `rope_parameters` and `dtype`. The stored dtype is not
//! read at all: every tensor says its own.

use std::path::Path;

use serde_json::Value;

use super::rope_json::read_rope;
use super::{Fields, ModelConfig, SUPPORTED};
use crate::LoadError;

/// Reads the text of `file`.
pub(crate) fn read_config_json(file: &Path, text: &str) -> Result<ModelConfig, LoadError> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| LoadError::new(file, format!("not valid JSON: {error}")))?;
    let fields = Fields::of_root(file, &json)?;
    let architecture = fields.str("model_type")?;
    match architecture {
        "llama" => {}
        "mistral" => refuse_window(&fields)?,
        other => {
            return Err(fields.error(
                "model_type",
                format!("unknown architecture {other:?}; supported: {SUPPORTED}"),
            ));
        }
    }
    refuse_unsupported(&fields)?;
    let config = read_llama(&fields, architecture)?;
    config.check(file, |name| json_name(name).to_string())?;
    Ok(config)
}

fn read_llama(fields: &Fields<'_>, architecture: &str) -> Result<ModelConfig, LoadError> {
    let n_heads = fields.size("num_attention_heads")?;
    let hidden_size = fields.size("hidden_size")?;
    let max_positions = fields.size("max_position_embeddings")?;
    let head_dim = match fields.opt_size("head_dim")? {
        Some(dim) => dim,
        None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(fields.error(
                "num_attention_heads",
                format!("{hidden_size} hidden values do not divide into {n_heads} heads"),
            ));
        }
    };
    let n_kv_heads = match (fields.opt_size("num_key_value_heads")?, architecture) {
        (Some(n), _) => n,
        // The first Llama configs are older than grouped queries. Mistral's default is another.
        (None, "llama") => n_heads,
        (None, _) => fields.size("num_key_value_heads")?,
    };
    let is_llama = architecture == "llama";
    let attention_bias = is_llama && fields.opt_bool("attention_bias")?.unwrap_or(false);
    Ok(ModelConfig {
        architecture: architecture.to_string(),
        n_layers: fields.size("num_hidden_layers")?,
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab_size: fields.size("vocab_size")?,
        max_positions,
        norm_eps: fields.number("rms_norm_eps")? as f32,
        rope: read_rope(fields, head_dim, max_positions)?,
        qkv_bias: attention_bias,
        attention_output_bias: attention_bias,
        mlp_bias: is_llama && fields.opt_bool("mlp_bias")?.unwrap_or(false),
        tied_embeddings: fields.opt_bool("tie_word_embeddings")?.unwrap_or(false),
    })
}

fn refuse_window(fields: &Fields<'_>) -> Result<(), LoadError> {
    let max_positions = fields.size("max_position_embeddings")?;
    match fields.opt_size("sliding_window")? {
        Some(window) if window < max_positions => Err(fields.error(
            "sliding_window",
            format!(
                "attention over a window of {window} of {max_positions} positions is not \
                 supported yet"
            ),
        )),
        _ => Ok(()),
    }
}

/// Fields that change what the weights mean, and that nothing here acts on.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), LoadError> {
    if let Some(act) = fields.opt_str("hidden_act")?
        && act != "silu"
    {
        return Err(fields.error(
            "hidden_act",
            format!("activation {act:?} is not supported; supported: silu"),
        ));
    }
    if let Some(quantization) = fields.object("quantization_config")? {
        let method = quantization.opt_str("quant_method")?.unwrap_or("unnamed");
        return Err(fields.error(
            "quantization_config",
            format!(
                "weights quantized by {method:?} are not supported; supported are F32, F16 and \
                 BF16 in safetensors, and quantized GGUF files"
            ),
        ));
    }
    Ok(())
}

/// The file's name for a field of [`ModelConfig`].
fn json_name(name: &str) -> &str {
    match name {
        "n_layers" => "num_hidden_layers",
        "n_heads" => "num_attention_heads",
        "n_kv_heads" => "num_key_value_heads",
        "max_positions" => "max_position_embeddings",
        "norm_eps" => "rms_norm_eps",
        "rope_dim" => "head_dim",
        other => other,
    }
}
