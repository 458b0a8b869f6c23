//! SmolLM 3: every fourth layer does not rotate its heads.

use kernels::RopeStyle;
use serde_json::Value;

use super::Family;
use super::llama::LLAMA;
use crate::LoadError;
use crate::config::{Fields, ModelConfig};

const INTERVAL: usize = 4;

pub(super) const SMOLLM3: Family = Family {
    model_types: &["smollm3"],
    gguf: &["smollm3"],
    gguf_form: Some("smollm3"),
    read_json: |fields, config| {
        (LLAMA.read_json)(fields, config)?;
        if fields.get("rope_theta").is_none() && fields.get("rope_parameters").is_none() {
            config.ropes[0].theta = 2_000_000.0;
        }
        fields.needs("use_sliding_window", false)?;
        read_unrotated(fields, config)
    },
    read_gguf: |_, config| {
        config.attention.rope_style = RopeStyle::Interleaved;
        leave_unrotated(config, |layer| (layer + 1).is_multiple_of(INTERVAL));
        Ok(())
    },
    ..LLAMA
};

/// In `no_rope_layers`, one stands for a layer that does rotate.
fn read_unrotated(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    match fields.get("no_rope_layers") {
        None => {
            let interval = fields
                .opt_size("no_rope_layer_interval")?
                .unwrap_or(INTERVAL);
            leave_unrotated(config, |layer| {
                interval > 0 && (layer + 1).is_multiple_of(interval)
            });
            Ok(())
        }
        Some(Value::Array(layers)) if layers.len() == config.n_layers => {
            leave_unrotated(config, |layer| layers[layer] == 0);
            Ok(())
        }
        Some(_) => {
            let message = format!("expected a list of {} numbers", config.n_layers);
            Err(fields.error("no_rope_layers", message))
        }
    }
}

fn leave_unrotated(config: &mut ModelConfig, is_unrotated: impl Fn(usize) -> bool) {
    for (i, layer) in config.layers.iter_mut().enumerate() {
        if is_unrotated(i) {
            layer.rope = None;
        }
    }
}
