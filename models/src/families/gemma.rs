//! Gemma 1 to 3: norms stored as their difference from one, a scaled embedding; from the second
//! on norms around each block and windows on most layers; soft caps in the second, norms of
//! queries and keys and two rotary embeddings in the third.

use super::llama::LLAMA;
use super::names::HUGGING_FACE;
use super::{Family, Names, NormNames, Spelling};
use crate::LoadError;
use crate::config::{
    Fields, Keys, ModelConfig, NormWeight, QkNorm, RopeConfig, RopeScaling, layer_windows,
    read_scaled,
};

pub(super) const GEMMA: Family = Family {
    model_types: &["gemma"],
    gguf: &["gemma"],
    gguf_form: Some("gemma"),
    spelling: Spelling {
        // The first files name another activation in `hidden_act` than they were trained with.
        aliases: &[("hidden_act", "hidden_activation")],
        activation: "gelu_pytorch_tanh",
        tied: true,
        head_dim: Some(256),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.mlp.activation = kernels::Activation::GeluTanh;
        config.embedding.scale = (config.hidden_size as f32).sqrt();
    },
    read_json: |fields, config| {
        config.norm.weight = NormWeight::PlusOne;
        super::llama::read_biases(fields, config)
    },
    read_gguf: |_, _| Ok(()),
    ..LLAMA
};

const NAMES: Names = Names {
    norms: NormNames {
        before_attention: "input_layernorm",
        after_attention: "post_attention_layernorm",
        before_mlp: "pre_feedforward_layernorm",
        after_mlp: "post_feedforward_layernorm",
    },
    ..HUGGING_FACE
};

pub(super) const GEMMA2: Family = Family {
    model_types: &["gemma2"],
    gguf: &["gemma2"],
    gguf_form: Some("gemma2"),
    shape: |config| {
        (GEMMA.shape)(config);
        config.block.norm_after = true;
    },
    read_json: |fields, config| {
        (GEMMA.read_json)(fields, config)?;
        read_scale(fields, config)?;
        config.attention.softcap = fields.opt_f32("attn_logit_softcapping")?;
        config.logits.softcap = fields.opt_f32("final_logit_softcapping")?;
        layer_windows(fields, config, |layer| layer.is_multiple_of(2))
    },
    read_gguf: |keys, config| {
        config.attention.softcap = keys.opt_f32("attn_logit_softcapping")?;
        config.logits.softcap = keys.opt_f32("final_logit_softcapping")?;
        for layer in config.layers.iter_mut().skip(1).step_by(2) {
            layer.window = None;
        }
        read_gguf_scale(keys, config, 46)
    },
    names: |_| &NAMES,
    ..GEMMA
};

/// Every sixth layer sees everything, unless the file says otherwise.
const PATTERN: usize = 6;
const LOCAL_THETA: f64 = 10_000.0;

pub(super) const GEMMA3: Family = Family {
    model_types: &["gemma3_text"],
    gguf: &["gemma3"],
    gguf_form: Some("gemma3"),
    shape: |config| {
        (GEMMA2.shape)(config);
        config.attention.qk_norm = QkNorm::Head;
    },
    read_json: |fields, config| {
        (GEMMA.read_json)(fields, config)?;
        read_scale(fields, config)?;
        config.attention.softcap = fields.opt_f32("attn_logit_softcapping")?;
        config.logits.softcap = fields.opt_f32("final_logit_softcapping")?;
        fields.needs("use_bidirectional_attention", false)?;
        let pattern = fields
            .opt_size("sliding_window_pattern")?
            .unwrap_or(PATTERN);
        layer_windows(fields, config, |layer| {
            pattern == 0 || !(layer + 1).is_multiple_of(pattern)
        })?;
        read_ropes(fields, config)?;
        use_local_rope(config);
        Ok(())
    },
    read_gguf: read_gguf3,
    names: |_| &NAMES,
    ..GEMMA
};

fn read_gguf3(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    config.logits.softcap = keys.opt_f32("final_logit_softcapping")?;
    let pattern = keys.opt_size("attention.sliding_window_pattern")?;
    let pattern = pattern.filter(|n| *n > 0).unwrap_or(PATTERN);
    for layer in config.layers.iter_mut().skip(pattern - 1).step_by(pattern) {
        layer.window = None;
    }
    let theta = keys
        .opt_number("rope.freq_base_swa")?
        .unwrap_or(LOCAL_THETA);
    config.ropes.push(RopeConfig {
        theta,
        dim: config.head_dim,
        scaling: RopeScaling::None,
    });
    if keys.opt_number("rope.freq_base")?.is_none() {
        config.ropes[0].theta = 1_000_000.0;
    }
    use_local_rope(config);
    read_gguf_scale(keys, config, 62)
}

/// Files seldom say. Then the largest model, known by its layers, is the only one of its
/// generation whose queries are not scaled by the length of a head.
fn read_gguf_scale(
    keys: &Keys<'_>,
    config: &mut ModelConfig,
    largest: usize,
) -> Result<(), LoadError> {
    if let Some(scale) = keys.opt_f32("attention.scale")? {
        config.attention.scale = scale;
    } else if config.n_layers == largest {
        config.attention.scale = 1.0 / ((config.hidden_size / config.n_heads) as f32).sqrt();
    }
    Ok(())
}

fn read_scale(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let scalar = fields.number("query_pre_attn_scalar")?;
    config.attention.scale = (1.0 / scalar.sqrt()) as f32;
    Ok(())
}

/// One rotary embedding for layers that see everything, one for those with a window: spelled in
/// two fields, or as an object for each kind of layer.
fn read_ropes(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let (dim, max_positions) = (config.head_dim, config.max_positions);
    let by_kind = match fields.object("rope_parameters")? {
        Some(parameters) => {
            let full = parameters.object("full_attention")?;
            full.zip(parameters.object("sliding_attention")?)
        }
        None => None,
    };
    if let Some((full, local)) = by_kind {
        config.ropes = vec![
            read_scaled(Some(&full), fields, dim, max_positions)?,
            read_scaled(Some(&local), fields, dim, max_positions)?,
        ];
        return Ok(());
    }
    if fields.get("rope_theta").is_none() && fields.get("rope_parameters").is_none() {
        config.ropes[0].theta = 1_000_000.0;
    }
    let theta = fields
        .opt_number("rope_local_base_freq")?
        .unwrap_or(LOCAL_THETA);
    config.ropes.push(RopeConfig {
        theta,
        dim,
        scaling: RopeScaling::None,
    });
    Ok(())
}

fn use_local_rope(config: &mut ModelConfig) {
    for layer in &mut config.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
}
