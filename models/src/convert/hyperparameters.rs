//! A model's configuration as GGUF metadata, with llama.cpp's keys.

use kernels::{Activation, NormKind, RouteScore};

use crate::config::{ACTIVATION_KEY, LatentConfig, Parallel, RopeConfig, RopeScaling, yarn_mscale};
use crate::families::LIMIT_KEY;
use crate::gguf::GgufMetadata;
use crate::{ModelConfig, Rope};

/// What cannot be said is left out here and noticed by [`super::verify`].
pub(super) fn write(config: &ModelConfig, architecture: &str, out: &mut GgufMetadata) {
    out.string("general.architecture", architecture);
    let mut keys = Keys { architecture, out };
    let latent = config.attention.latent;
    keys.size("block_count", config.n_layers);
    keys.size("context_length", config.max_positions);
    keys.size("embedding_length", config.hidden_size);
    keys.size("feed_forward_length", config.intermediate_size);
    keys.size("vocab_size", config.vocab_size);
    keys.size("attention.head_count", config.n_heads);
    keys.size("attention.head_count_kv", config.n_kv_heads);
    keys.size("attention.key_length", config.head_dim);
    let value_dim = latent.map_or(config.head_dim, |latent| latent.value_dim);
    keys.size("attention.value_length", value_dim);
    let eps = match config.norm.kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    keys.f32(eps, config.norm.eps);
    if let Some(latent) = latent {
        write_latent(latent, &mut keys);
    }
    write_windows(config, architecture, &mut keys);
    write_scales(config, architecture, &mut keys);
    if architecture == "gptneox" {
        let parallel = config.block.parallel == Parallel::OwnNorm;
        keys.out.bool("gptneox.use_parallel_residual", parallel);
    }
    write_experts(config, &mut keys);
    write_activation(config, architecture, &mut keys);
    if let Some(rope) = config.ropes.first() {
        write_rope(config, rope, &mut keys);
    }
}

/// Entries under the architecture's name.
struct Keys<'a> {
    architecture: &'a str,
    out: &'a mut GgufMetadata,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn size(&mut self, key: &str, value: usize) {
        let key = self.full(key);
        // Sizes were checked to be far smaller when the configuration was read.
        self.out.u32(&key, u32::try_from(value).unwrap_or(u32::MAX));
    }

    fn f32(&mut self, key: &str, value: f32) {
        let key = self.full(key);
        self.out.f32(&key, value);
    }

    fn string(&mut self, key: &str, value: &str) {
        let key = self.full(key);
        self.out.string(&key, value);
    }
}

fn write_latent(latent: LatentConfig, keys: &mut Keys<'_>) {
    keys.size("attention.kv_lora_rank", latent.kv_rank);
    if let Some(rank) = latent.q_rank {
        keys.size("attention.q_lora_rank", rank);
    }
}

fn write_windows(config: &ModelConfig, architecture: &str, keys: &mut Keys<'_>) {
    let Some(window) = config.layers.iter().find_map(|layer| layer.window) else {
        return;
    };
    keys.size("attention.sliding_window", window);
    let has_window = |i: &usize| config.layers[*i].window.is_some();
    match architecture {
        "gemma3" => {
            // One in so many layers sees everything.
            let first = (0..config.n_layers).find(|i| !has_window(i));
            let pattern = first.unwrap_or(config.n_layers) + 1;
            keys.size("attention.sliding_window_pattern", pattern);
            if let Some(local) = config.ropes.get(1) {
                keys.f32("rope.freq_base_swa", local.theta as f32);
            }
        }
        "olmo2" => {
            let key = keys.full("attention.sliding_window_pattern");
            let pattern = (0..config.n_layers).map(|i| has_window(&i));
            keys.out.bools(&key, pattern);
        }
        _ => {}
    }
}

fn write_scales(config: &ModelConfig, architecture: &str, keys: &mut Keys<'_>) {
    let attention = &config.attention;
    match architecture {
        "granite" => {
            keys.f32("attention.scale", attention.scale);
            keys.f32("embedding_scale", config.embedding.scale);
            keys.f32("residual_scale", config.block.residual_scale);
            keys.f32("logit_scale", 1.0 / config.logits.scale);
        }
        "command-r" => keys.f32("logit_scale", config.logits.scale),
        "gemma2" | "gemma3" => {
            keys.f32("attention.scale", attention.scale);
            if let Some(cap) = attention.softcap {
                keys.f32("attn_logit_softcapping", cap);
            }
            if let Some(cap) = config.logits.softcap {
                keys.f32("final_logit_softcapping", cap);
            }
        }
        "olmo" => {
            if let Some(limit) = attention.clip {
                keys.f32("attention.clamp_kqv", limit);
            }
        }
        _ => {}
    }
}

fn write_experts(config: &ModelConfig, keys: &mut Keys<'_>) {
    let Some(experts) = &config.experts else {
        return;
    };
    let routing = &experts.routing;
    keys.size("expert_count", routing.n_experts);
    keys.size("expert_used_count", routing.n_used);
    keys.size("expert_feed_forward_length", experts.intermediate_size);
    keys.size(
        "expert_gating_func",
        match routing.score {
            RouteScore::Softmax => 1,
            RouteScore::Sigmoid => 2,
            RouteScore::SoftmaxOfChosen => 3,
        },
    );
    let key = keys.full("expert_weights_norm");
    keys.out.bool(&key, routing.renormalize);
    if routing.scale != 1.0 {
        keys.f32("expert_weights_scale", routing.scale);
    }
    if let Some(groups) = routing.groups {
        keys.size("expert_group_count", groups.n_groups);
        keys.size("expert_group_used_count", groups.n_used);
    }
    if let Some(shared) = experts.shared {
        if shared.gated {
            keys.size(
                "expert_shared_feed_forward_length",
                shared.intermediate_size,
            );
        } else {
            let n = shared.intermediate_size / experts.intermediate_size;
            keys.size("expert_shared_count", n);
        }
    }
    let n_dense = config.layers.iter().take_while(|layer| !layer.experts);
    keys.size("leading_dense_block_count", n_dense.count());
}

fn write_activation(config: &ModelConfig, architecture: &str, keys: &mut Keys<'_>) {
    match config.mlp.activation {
        Activation::ClampedSwish { limit, .. } => keys.f32(LIMIT_KEY, limit),
        // What the architectures of these have by themselves.
        Activation::Gelu if matches!(architecture, "gptneox" | "falcon") => {}
        Activation::GeluTanh if !matches!(architecture, "gptneox" | "falcon" | "llama") => {}
        Activation::Silu => {}
        Activation::Gelu => keys.out.string(ACTIVATION_KEY, "gelu"),
        Activation::GeluTanh => keys.out.string(ACTIVATION_KEY, "gelu_pytorch_tanh"),
        Activation::QuickGelu => keys.out.string(ACTIVATION_KEY, "quick_gelu"),
        Activation::Relu => keys.out.string(ACTIVATION_KEY, "relu"),
    }
}

fn write_rope(config: &ModelConfig, rope: &RopeConfig, keys: &mut Keys<'_>) {
    keys.size("rope.dimension_count", rope.dim);
    keys.f32("rope.freq_base", rope.theta as f32);
    match &rope.scaling {
        RopeScaling::Linear { factor } => {
            keys.string("rope.scaling.type", "linear");
            keys.f32("rope.scaling.factor", *factor as f32);
        }
        RopeScaling::Yarn {
            factor,
            original_positions,
            beta_fast,
            beta_slow,
            attention_factor,
            ..
        } => {
            keys.string("rope.scaling.type", "yarn");
            keys.f32("rope.scaling.factor", *factor as f32);
            keys.size("rope.scaling.original_context_length", *original_positions);
            keys.f32("rope.scaling.yarn_beta_fast", *beta_fast as f32);
            keys.f32("rope.scaling.yarn_beta_slow", *beta_slow as f32);
            if config.attention.latent.is_some() {
                // The temperature, squared, is in the scale of scores.
                let plain = 1.0 / (config.head_dim as f32).sqrt();
                let mscale = f64::from(config.attention.scale / plain).sqrt();
                let per_log = (mscale - 1.0) / factor.ln();
                keys.f32("rope.scaling.yarn_log_multiplier", per_log as f32);
            } else {
                // What every reader multiplies by itself is not repeated.
                let own = attention_factor / yarn_mscale(*factor, 1.0);
                if (own - 1.0).abs() > 1e-7 {
                    keys.f32("rope.scaling.attn_factor", own as f32);
                    keys.f32("rope.scaling.yarn_attn_factor", own as f32);
                }
            }
        }
        RopeScaling::LongRope {
            original_positions,
            attention_factor,
            ..
        } => {
            keys.size("rope.scaling.original_context_length", *original_positions);
            keys.f32("rope.scaling.attn_factor", *attention_factor as f32);
        }
        // As divisors in tensors.
        RopeScaling::Llama3 { .. } | RopeScaling::Divisors(_) => {}
        RopeScaling::None | RopeScaling::Dynamic { .. } => {}
    }
}

/// Divisors of frequencies that are stored as tensors.
pub(super) fn rope_tensors(config: &ModelConfig) -> Vec<(&'static str, Vec<f32>)> {
    let Some(rope) = config.ropes.first() else {
        return Vec::new();
    };
    match &rope.scaling {
        RopeScaling::LongRope { short, long, .. } => vec![
            ("rope_factors_long.weight", long.clone()),
            ("rope_factors_short.weight", short.clone()),
        ],
        RopeScaling::Divisors(divisors) => vec![("rope_freqs.weight", divisors.clone())],
        RopeScaling::Llama3 { .. } => {
            let plain = RopeConfig {
                scaling: RopeScaling::None,
                ..rope.clone()
            };
            let plain = Rope::new(&plain, config.max_positions);
            let scaled = Rope::new(rope, config.max_positions);
            let pairs = plain.inv_freq().iter().zip(scaled.inv_freq());
            vec![("rope_freqs.weight", pairs.map(|(p, s)| p / s).collect())]
        }
        _ => Vec::new(),
    }
}
