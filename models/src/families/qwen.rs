//! Qwen 2 and 2.5 (biases of queries, keys and values), Qwen 3 (norms of queries and keys), and
//! their mixtures of experts.

use kernels::{RouteScore, Routing};
use serde_json::Value;

use super::llama::{LLAMA, nothing_more, read_biases};
use super::names::HUGGING_FACE;
use super::{ExpertNames, ExpertStorage, Family, Names, Spelling};
use crate::LoadError;
use crate::config::{
    ExpertsConfig, Fields, ModelConfig, QkNorm, SharedExpert, layer_windows, read_gguf_experts,
};

pub(super) const QWEN2: Family = Family {
    model_types: &["qwen2"],
    gguf: &["qwen2"],
    gguf_form: Some("qwen2"),
    shape: |config| config.attention.qkv_bias = true,
    read_json: read_window,
    read_gguf: nothing_more,
    ..LLAMA
};

pub(super) const QWEN3: Family = Family {
    model_types: &["qwen3"],
    gguf: &["qwen3"],
    gguf_form: Some("qwen3"),
    spelling: Spelling {
        head_dim: Some(128),
        ..LLAMA.spelling
    },
    shape: |config| config.attention.qk_norm = QkNorm::Head,
    read_json: |fields, config| {
        read_biases(fields, config)?;
        read_window(fields, config)
    },
    read_gguf: nothing_more,
    ..LLAMA
};

/// A window only where `use_sliding_window` says so, and there from layer `max_window_layers` on.
fn read_window(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    if !fields.bool_or("use_sliding_window", false)? || fields.get("sliding_window").is_none() {
        return Ok(());
    }
    let first = match fields.get("layer_types") {
        Some(_) => 0,
        None => fields.size("max_window_layers")?,
    };
    layer_windows(fields, config, |layer| layer >= first)
}

const NAMES: Names = Names {
    experts: ExpertNames {
        router: "mlp.gate",
        correction_bias: "mlp.gate.e_score_correction_bias",
        storage: ExpertStorage::Separate("mlp.experts.", ["gate_proj", "up_proj", "down_proj"]),
        shared: [
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_expert.down_proj",
        ],
        shared_gate: "mlp.shared_expert_gate",
    },
    ..HUGGING_FACE
};

pub(super) const QWEN2_MOE: Family = Family {
    model_types: &["qwen2_moe"],
    gguf: &["qwen2moe"],
    gguf_form: Some("qwen2moe"),
    read_json: |fields, config| {
        if let Some(bias) = fields.opt_bool("qkv_bias")? {
            config.attention.qkv_bias = bias;
        }
        read_window(fields, config)?;
        let shared = SharedExpert {
            intermediate_size: fields.size("shared_expert_intermediate_size")?,
            gated: true,
        };
        read_experts(fields, config, Some(shared))
    },
    read_gguf: |keys, config| read_gguf_experts(keys, config, false),
    names: |_| &NAMES,
    ..QWEN2
};

pub(super) const QWEN3_MOE: Family = Family {
    model_types: &["qwen3_moe"],
    gguf: &["qwen3moe"],
    gguf_form: Some("qwen3moe"),
    spelling: Spelling {
        // Unlike Qwen 3.
        head_dim: None,
        ..QWEN3.spelling
    },
    read_json: |fields, config| {
        read_biases(fields, config)?;
        read_window(fields, config)?;
        read_experts(fields, config, None)
    },
    read_gguf: |keys, config| read_gguf_experts(keys, config, true),
    names: |_| &NAMES,
    ..QWEN3
};

fn read_experts(
    fields: &Fields<'_>,
    config: &mut ModelConfig,
    shared: Option<SharedExpert>,
) -> Result<(), LoadError> {
    config.experts = Some(ExpertsConfig {
        intermediate_size: fields.size("moe_intermediate_size")?,
        routing: Routing {
            n_experts: fields.size("num_experts")?,
            n_used: fields.size("num_experts_per_tok")?,
            score: RouteScore::Softmax,
            groups: None,
            renormalize: fields.bool_or("norm_topk_prob", false)?,
            scale: 1.0,
        },
        router_bias: false,
        correction_bias: false,
        bias: false,
        shared,
    });
    let step = fields.opt_size("decoder_sparse_step")?.unwrap_or(1);
    let dense = match fields.get("mlp_only_layers") {
        None => Vec::new(),
        Some(Value::Array(layers)) => layers.iter().filter_map(Value::as_u64).collect(),
        Some(_) => return Err(fields.error("mlp_only_layers", "expected a list of layers")),
    };
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.experts = step > 0 && (i + 1).is_multiple_of(step) && !dense.contains(&(i as u64));
    }
    Ok(())
}
