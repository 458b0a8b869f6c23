//! `config.json` of Hugging Face checkpoints.
//!
//! Two spellings are in use: transformers 4 writes `rope_theta`, `rope_scaling` and
//! `torch_dtype`, transformers 5 writes `rope_parameters` and `dtype`. The stored dtype is not
//! read at all: every tensor says its own.

use std::path::Path;

use kernels::Activation;
use serde_json::Value;

use super::check::MAX_LAYERS;
use super::rope_json::read_rope;
use super::{Fields, LayerConfig, ModelConfig};
use crate::LoadError;
use crate::families::{Family, Spelling, family_of_model_type, supported_model_types};

/// Reads the text of `file`.
pub(crate) fn read_config_json(
    file: &Path,
    text: &str,
) -> Result<(ModelConfig, &'static Family), LoadError> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| LoadError::new(file, format!("not valid JSON: {error}")))?;
    let fields = Fields::of_root(file, &json)?;
    let architecture = fields.str("model_type")?;
    let Some(family) = family_of_model_type(architecture) else {
        return Err(fields.error(
            "model_type",
            format!(
                "unknown architecture {architecture:?}; supported: {}",
                supported_model_types()
            ),
        ));
    };
    let fields = fields.with_aliases(family.spelling.aliases);
    let mut config = read_base(&fields, architecture, &family.spelling)?;
    (family.shape)(&mut config);
    (family.read_json)(&fields, &mut config)?;
    forget_idle_windows(&mut config);
    config.check(file, |name| fields.own_name(name).to_string())?;
    Ok((config, family))
}

/// What most families spell alike. The rest is that of Llama, to be changed by the family.
fn read_base(
    fields: &Fields<'_>,
    architecture: &str,
    spelling: &Spelling,
) -> Result<ModelConfig, LoadError> {
    let n_heads = fields.size("num_attention_heads")?;
    let hidden_size = fields.size("hidden_size")?;
    let max_positions = match spelling.max_positions {
        Some(default) => fields
            .opt_size("max_position_embeddings")?
            .unwrap_or(default),
        None => fields.size("max_position_embeddings")?,
    };
    let head_dim = match fields.opt_size("head_dim")?.or(spelling.head_dim) {
        Some(dim) => dim,
        None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(fields.error(
                "num_attention_heads",
                format!("{hidden_size} hidden values do not divide into {n_heads} heads"),
            ));
        }
    };
    let intermediate_size = match fields.opt_size("intermediate_size")? {
        Some(size) => size,
        None if spelling.inner_is_fourfold => hidden_size.saturating_mul(4),
        None => fields.size("intermediate_size")?,
    };
    let n_layers = fields.size("num_hidden_layers")?;
    let mut config = ModelConfig::plain(architecture, n_layers.min(MAX_LAYERS), head_dim);
    config.n_layers = n_layers;
    config.hidden_size = hidden_size;
    config.intermediate_size = intermediate_size;
    config.n_heads = n_heads;
    config.n_kv_heads = fields.opt_size("num_key_value_heads")?.unwrap_or(n_heads);
    config.vocab_size = fields.size("vocab_size")?;
    config.max_positions = max_positions;
    config.norm.eps = match spelling.eps {
        Some(eps) => fields.opt_f32("rms_norm_eps")?.unwrap_or(eps),
        None => fields.number("rms_norm_eps")? as f32,
    };
    config.mlp.activation = read_activation(fields, spelling.activation)?;
    config.logits.tied = fields.bool_or("tie_word_embeddings", spelling.tied)?;
    if let Some(part) = spelling.rotary_part {
        config.ropes = vec![read_rope(fields, head_dim, max_positions, part)?];
    }
    Ok(config)
}

fn read_activation(fields: &Fields<'_>, default: &str) -> Result<Activation, LoadError> {
    let name = fields.opt_str("hidden_act")?.unwrap_or(default);
    activation_by_name(name).ok_or_else(|| {
        fields.error(
            "hidden_act",
            format!(
                "activation {name:?} is not supported; supported: silu, gelu, gelu_new, \
                 gelu_fast, gelu_pytorch_tanh, quick_gelu, relu"
            ),
        )
    })
}

pub(super) fn activation_by_name(name: &str) -> Option<Activation> {
    Some(match name {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        _ => return None,
    })
}

/// Gives `sliding_window` to the layers that `layer_types` or, in its absence, `is_sliding` says.
pub(crate) fn layer_windows(
    fields: &Fields<'_>,
    config: &mut ModelConfig,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<(), LoadError> {
    let types = match fields.get("layer_types") {
        None => None,
        Some(Value::Array(types)) if types.len() == config.n_layers => Some(types),
        Some(_) => {
            let message = format!("expected a list of {} strings", config.n_layers);
            return Err(fields.error("layer_types", message));
        }
    };
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let slides = match types.map(|types| &types[i]) {
            None => is_sliding(i),
            Some(Value::String(name)) if name == "sliding_attention" => true,
            Some(Value::String(name)) if name == "full_attention" => false,
            Some(other) => {
                let message = format!(
                    "{other} is not supported; supported: full_attention, sliding_attention"
                );
                return Err(fields.error("layer_types", message));
            }
        };
        if slides {
            layer.window = Some(fields.size("sliding_window")?);
            if layer.window == Some(0) {
                return Err(fields.error("sliding_window", "a query sees at least itself"));
            }
        }
    }
    Ok(())
}

/// A window as long as the longest sequence hides nothing.
pub(super) fn forget_idle_windows(config: &mut ModelConfig) {
    let max_positions = config.max_positions;
    let idle = |layer: &&mut LayerConfig| layer.window.is_some_and(|n| n >= max_positions);
    for layer in config.layers.iter_mut().filter(idle) {
        layer.window = None;
    }
}
