//! gpt-oss: attention sinks, windows on every other layer, experts with biases and a clamped
//! activation.

use kernels::{Activation, RouteScore, Routing};

use super::llama::{LLAMA, read_biases};
use super::names::HUGGING_FACE;
use super::{ExpertNames, ExpertStorage, Family, Names, Spelling};
use crate::LoadError;
use crate::config::{ExpertsConfig, Fields, ModelConfig, layer_windows};

pub(super) const GPT_OSS: Family = Family {
    model_types: &["gpt_oss"],
    gguf: &[],
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
    ..LLAMA
};

fn read_json(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    read_biases(fields, config)?;
    layer_windows(fields, config, |layer| layer.is_multiple_of(2))?;
    // `hidden_act` says what the activation is made of, not what it is.
    config.mlp.activation = Activation::ClampedSwish {
        alpha: 1.702,
        limit: fields.opt_f32("swiglu_limit")?.unwrap_or(7.0),
    };
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
