//! gpt-oss: attention sinks, windows on every other layer, experts with biases and a clamped
//! activation.

use kernels::{Activation, RouteScore, Routing};

use super::llama::{LLAMA, read_biases};
use super::names::{GGUF, HUGGING_FACE};
use super::{ExpertNames, ExpertStorage, Family, Names, NormNames, Spelling};
use crate::LoadError;
use crate::config::{
    ExpertsConfig, Fields, Keys, ModelConfig, RopeScaling, layer_windows, read_gguf_experts,
};

pub(super) const GPT_OSS: Family = Family {
    model_types: &["gpt_oss"],
    gguf: &["gpt-oss"],
    gguf_form: Some("gpt-oss"),
    spelling: Spelling {
        head_dim: Some(64),
        ..LLAMA.spelling
    },
    shape: |config| config.attention.sinks = true,
    read_json,
    names: |_| {
        const NAMES: Names = Names {
            experts: ExpertNames {
                router: "mlp.router",
                storage: ExpertStorage::Interleaved([
                    "mlp.experts.gate_up_proj",
                    "mlp.experts.down_proj",
                ]),
                ..HUGGING_FACE.experts
            },
            ..HUGGING_FACE
        };
        &NAMES
    },
    read_gguf,
    gguf_names: |_| {
        const NAMES: Names = Names {
            norms: NormNames {
                before_mlp: "post_attention_norm",
                ..GGUF.norms
            },
            ..GGUF
        };
        &NAMES
    },
};

/// The value that gates and values up are limited to, unless the file says otherwise.
const LIMIT: f32 = 7.0;

fn read_gguf(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    for layer in config.layers.iter_mut().skip(1).step_by(2) {
        layer.window = None;
    }
    config.mlp.activation = clamped(keys.opt_f32(LIMIT_KEY)?.unwrap_or(LIMIT));
    // The key for the score was added after the first files.
    read_gguf_experts(keys, config, false)?;
    if let Some(experts) = &mut config.experts {
        experts.routing.score = RouteScore::SoftmaxOfChosen;
    }
    // Its own files round nothing, and cannot say so.
    for rope in &mut config.ropes {
        if let RopeScaling::Yarn { truncate, .. } = &mut rope.scaling {
            *truncate = false;
        }
    }
    Ok(())
}

fn clamped(limit: f32) -> Activation {
    Activation::ClampedSwish {
        alpha: 1.702,
        limit,
    }
}

/// Where a file gives another limit than the usual one.
pub(crate) const LIMIT_KEY: &str = "swiglu_clamp";

fn read_json(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    read_biases(fields, config)?;
    layer_windows(fields, config, |layer| layer.is_multiple_of(2))?;
    // `hidden_act` says what the activation is made of, not what it is.
    config.mlp.activation = clamped(fields.opt_f32("swiglu_limit")?.unwrap_or(LIMIT));
    config.experts = Some(ExpertsConfig {
        intermediate_size: config.intermediate_size,
        routing: Routing {
            n_experts: fields.size("num_local_experts")?,
            n_used: fields.size("num_experts_per_tok")?,
            score: RouteScore::SoftmaxOfChosen,
            groups: None,
            renormalize: false,
            scale: 1.0,
        },
        router_bias: true,
        correction_bias: false,
        bias: true,
        shared: None,
    });
    for layer in &mut config.layers {
        layer.experts = true;
    }
    Ok(())
}
