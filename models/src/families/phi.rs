//! Phi 1 and 2 (parallel blocks, biases everywhere), Phi 3 and 4 (Llama with fused projections).

use super::llama::{LLAMA, nothing_more, read_window};
use super::names::{GGUF, GGUF_PLAIN, HUGGING_FACE};
use super::{Family, MlpIn, Names, Qkv, Spelling};
use crate::config::Parallel;

pub(super) const PHI: Family = Family {
    model_types: &["phi"],
    gguf: &["phi2"],
    gguf_form: Some("phi2"),
    spelling: Spelling {
        aliases: &[("rms_norm_eps", "layer_norm_eps")],
        eps: Some(1e-5),
        activation: "gelu_new",
        rotary_part: Some(0.5),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.mlp.activation = kernels::Activation::GeluTanh;
        config.logits.bias = true;
        config.block.parallel = Parallel::SharedNorm;
    },
    read_json: |fields, _| fields.needs("qk_layernorm", false),
    read_gguf: nothing_more,
    names: |_| {
        const NAMES: Names = Names {
            final_norm: "model.final_layernorm",
            output: "self_attn.dense",
            mlp_in: MlpIn::Separate(["", "mlp.fc1"]),
            mlp_down: "mlp.fc2",
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| &GGUF_PLAIN,
};

pub(super) const PHI3: Family = Family {
    model_types: &["phi3"],
    gguf: &["phi3"],
    gguf_form: Some("phi3"),
    read_json: |fields, config| {
        fields.needs("attention_bias", false)?;
        read_window(fields, config)
    },
    read_gguf: nothing_more,
    names: |_| {
        const NAMES: Names = Names {
            qkv: Qkv::Stacked("self_attn.qkv_proj"),
            mlp_in: MlpIn::Stacked("mlp.gate_up_proj"),
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| {
        const NAMES: Names = Names {
            qkv: Qkv::Stacked("attn_qkv"),
            mlp_in: MlpIn::Stacked("ffn_up"),
            ..GGUF
        };
        &NAMES
    },
    ..LLAMA
};
