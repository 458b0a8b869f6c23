//! DeepSeek V3: latent attention; experts in groups, chosen with a correction, one shared by all.

use kernels::{RopeStyle, RouteGroups, RouteScore, Routing};

use super::llama::LLAMA;
use super::names::HUGGING_FACE;
use super::{ExpertNames, ExpertStorage, Family, Names};
use crate::LoadError;
use crate::config::{
    ExpertsConfig, Fields, Keys, LatentConfig, ModelConfig, RopeScaling, SharedExpert,
    read_gguf_experts, read_rope,
};

pub(super) const DEEPSEEK_V3: Family = Family {
    model_types: &["deepseek_v3"],
    gguf: &["deepseek2"],
    gguf_form: Some("deepseek2"),
    read_json: |fields, config| {
        read_attention(fields, config)?;
        read_experts(fields, config)
    },
    names: |_| {
        const NAMES: Names = Names {
            experts: ExpertNames {
                router: "mlp.gate",
                correction_bias: "mlp.gate.e_score_correction_bias",
                storage: ExpertStorage::Separate(
                    "mlp.experts.",
                    ["gate_proj", "up_proj", "down_proj"],
                ),
                shared: [
                    "mlp.shared_experts.gate_proj",
                    "mlp.shared_experts.up_proj",
                    "mlp.shared_experts.down_proj",
                ],
                shared_gate: "",
            },
            ..HUGGING_FACE
        };
        &NAMES
    },
    read_gguf: |keys, config| {
        read_gguf_attention(keys, config)?;
        read_gguf_experts(keys, config, false)
    },
    ..LLAMA
};

/// Two forms are in use: heads as they are computed, or (`key_length_mla`) as the narrow vector
/// that they come out of.
fn read_gguf_attention(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let length = |mla: &str, plain: &str| match keys.opt_size(mla)? {
        Some(length) => Ok(length),
        None => keys.size(plain),
    };
    let latent = LatentConfig {
        q_rank: keys
            .opt_size("attention.q_lora_rank")?
            .filter(|_| keys.has("blk.0.attn_q_a.weight")),
        kv_rank: keys.size("attention.kv_lora_rank")?,
        rope_dim: keys.size("rope.dimension_count")?,
        value_dim: length("attention.value_length_mla", "attention.value_length")?,
    };
    config.head_dim = length("attention.key_length_mla", "attention.key_length")?;
    config.n_kv_heads = config.n_heads;
    let ranks = [Some(latent.kv_rank), latent.q_rank];
    if !(1..=config.head_dim).contains(&latent.value_dim)
        || latent.rope_dim >= config.head_dim
        || ranks.into_iter().flatten().any(|n| n == 0 || n > MAX_RANK)
    {
        let message = format!("no model has latent attention like this: {latent:?}");
        return Err(keys.error("attention.kv_lora_rank", message));
    }
    config.attention.scale = 1.0 / (config.head_dim as f32).sqrt();
    if let RopeScaling::Yarn {
        factor,
        attention_factor,
        ..
    } = &mut config.ropes[0].scaling
    {
        // As in `config.json`, the temperature is in the scale of scores.
        *attention_factor = 1.0;
        let per_log = keys.opt_number("rope.scaling.yarn_log_multiplier")?;
        if *factor > 1.0 {
            let mscale = 1.0 + per_log.unwrap_or(0.0) * factor.ln();
            config.attention.scale *= (mscale * mscale) as f32;
        }
    }
    config.attention.rope_style = RopeStyle::Interleaved;
    config.attention.qkv_bias = keys.has("blk.0.attn_kv_a_mqa.bias");
    config.attention.latent = Some(latent);
    Ok(())
}

const MAX_RANK: usize = 1 << 20;

fn read_attention(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let rope_dim = fields.size("qk_rope_head_dim")?;
    let plain_dim = fields.size("qk_nope_head_dim")?;
    let value_dim = fields.size("v_head_dim")?;
    let latent = LatentConfig {
        q_rank: fields.opt_size("q_lora_rank")?,
        kv_rank: fields.size("kv_lora_rank")?,
        rope_dim,
        value_dim,
    };
    config.head_dim = rope_dim.saturating_add(plain_dim);
    config.n_kv_heads = config.n_heads;
    if plain_dim == 0 || !(1..=config.head_dim).contains(&value_dim) {
        let message = format!(
            "{value_dim} values do not fit a head of {}",
            config.head_dim
        );
        return Err(fields.error("v_head_dim", message));
    }
    let ranks = [Some(latent.kv_rank), latent.q_rank];
    if ranks.into_iter().flatten().any(|n| n == 0 || n > MAX_RANK) {
        return Err(fields.error("kv_lora_rank", "no model has ranks like these"));
    }
    config.ropes = vec![read_rope(fields, rope_dim, config.max_positions, 1.0)?];
    config.attention.scale = 1.0 / (config.head_dim as f32).sqrt();
    if let RopeScaling::Yarn { factor, .. } = config.ropes[0].scaling {
        // The temperature is in the scale of scores here: squared, because it belongs to both
        // queries and keys.
        let parameters = match fields.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => fields.object("rope_scaling")?,
        };
        let all_dim = match parameters {
            Some(parameters) => parameters.opt_number("mscale_all_dim")?,
            None => None,
        };
        let all_dim = all_dim.unwrap_or(0.0);
        if all_dim != 0.0 && factor > 1.0 {
            let mscale = 0.1 * all_dim * factor.ln() + 1.0;
            config.attention.scale *= (mscale * mscale) as f32;
        }
    }
    if fields.bool_or("rope_interleave", true)? {
        config.attention.rope_style = RopeStyle::Interleaved;
    }
    let bias = fields.bool_or("attention_bias", false)?;
    config.attention.qkv_bias = bias;
    config.attention.output_bias = bias;
    config.attention.latent = Some(latent);
    Ok(())
}

fn read_experts(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    for (name, supported) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        if let Some(found) = fields.opt_str(name)?
            && found != supported
        {
            let message = format!("{found:?} is not supported; supported: {supported}");
            return Err(fields.error(name, message));
        }
    }
    let inner = fields.size("moe_intermediate_size")?;
    let n_shared = fields.opt_size("n_shared_experts")?.unwrap_or(0);
    config.experts = Some(ExpertsConfig {
        intermediate_size: inner,
        routing: Routing {
            n_experts: fields.size("n_routed_experts")?,
            n_used: fields.size("num_experts_per_tok")?,
            score: RouteScore::Sigmoid,
            groups: Some(RouteGroups {
                n_groups: fields.size("n_group")?,
                n_used: fields.size("topk_group")?,
            }),
            renormalize: fields.bool_or("norm_topk_prob", true)?,
            scale: fields.opt_f32("routed_scaling_factor")?.unwrap_or(2.5),
        },
        router_bias: false,
        correction_bias: true,
        bias: false,
        // Several shared experts are stored as one that is as wide as all.
        shared: (n_shared > 0).then(|| SharedExpert {
            intermediate_size: inner.saturating_mul(n_shared),
            gated: false,
        }),
    });
    let first = fields.size("first_k_dense_replace")?;
    let step = fields.opt_size("moe_layer_freq")?.unwrap_or(1).max(1);
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.experts = i >= first && i.is_multiple_of(step);
    }
    Ok(())
}
