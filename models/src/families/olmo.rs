//! OLMo 1 (norms without weights), 2 (norms after the blocks, of queries and keys too) and 3
//! (windows on most layers).

use kernels::NormKind;

use super::llama::{LLAMA, read_biases};
use super::names::HUGGING_FACE;
use super::{Family, Names, NormNames, Spelling};
use crate::config::{ModelConfig, NormWeight, QkNorm, RopeScaling, layer_windows};

pub(super) const OLMO: Family = Family {
    model_types: &["olmo"],
    gguf: &["olmo"],
    gguf_form: Some("olmo"),
    shape: |config| {
        config.norm.kind = NormKind::Layer;
        config.norm.weight = NormWeight::Ones;
    },
    spelling: Spelling {
        eps: Some(1e-5),
        ..LLAMA.spelling
    },
    read_json: |fields, config| {
        // Whatever the file says: the norm has no parameters at all.
        config.norm.eps = 1e-5;
        config.attention.clip = fields.opt_f32("clip_qkv")?;
        read_biases(fields, config)
    },
    read_gguf: |keys, config| {
        config.attention.clip = keys.opt_f32("attention.clamp_kqv")?.filter(|x| *x > 0.0);
        // As Llama's converter does.
        config.attention.rope_style = kernels::RopeStyle::Interleaved;
        Ok(())
    },
    ..LLAMA
};

const NAMES: Names = Names {
    norms: NormNames {
        before_attention: "",
        after_attention: "post_attention_layernorm",
        before_mlp: "",
        after_mlp: "post_feedforward_layernorm",
    },
    ..HUGGING_FACE
};

pub(super) const OLMO2: Family = Family {
    model_types: &["olmo2"],
    gguf: &["olmo2"],
    gguf_form: Some("olmo2"),
    spelling: Spelling {
        eps: Some(1e-5),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.block.norm_before = false;
        config.block.norm_after = true;
        config.attention.qk_norm = QkNorm::Whole;
    },
    read_json: read_biases,
    // The third generation says that it is the second.
    read_gguf: |keys, config| {
        if config.layers.iter().all(|layer| layer.window.is_none()) {
            return Ok(());
        }
        let windows = keys.layer_pattern("attention.sliding_window_pattern", |layer| {
            !(layer + 1).is_multiple_of(4)
        })?;
        for (layer, slides) in config.layers.iter_mut().zip(windows) {
            layer.window = layer.window.filter(|_| slides);
        }
        use_local_rope(config);
        Ok(())
    },
    names: |_| &NAMES,
    ..LLAMA
};

/// Layers with a window rotate without the scaling that stretches the others.
pub(super) const OLMO3: Family = Family {
    model_types: &["olmo3"],
    gguf: &[],
    gguf_form: Some("olmo2"),
    read_json: |fields, config| {
        read_biases(fields, config)?;
        layer_windows(fields, config, |layer| !(layer + 1).is_multiple_of(4))?;
        use_local_rope(config);
        Ok(())
    },
    ..OLMO2
};

/// Layers with a window rotate without scaling.
fn use_local_rope(config: &mut ModelConfig) {
    let mut local = config.ropes[0].clone();
    local.scaling = RopeScaling::None;
    config.ropes.push(local);
    for layer in &mut config.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
}
