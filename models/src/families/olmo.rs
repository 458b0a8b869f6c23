//! OLMo 1 (norms without weights), 2 (norms after the blocks, of queries and keys too) and 3
//! (windows on most layers).

use kernels::NormKind;

use super::llama::{LLAMA, nothing_more, read_biases};
use super::names::HUGGING_FACE;
use super::{Family, Names, NormNames, Spelling};
use crate::config::{NormWeight, QkNorm, RopeScaling, layer_windows};

pub(super) const OLMO: Family = Family {
    model_types: &["olmo"],
    gguf: &["olmo"],
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
    read_gguf: nothing_more,
    names: |_| &NAMES,
    ..LLAMA
};

/// Layers with a window rotate without the scaling that stretches the others.
pub(super) const OLMO3: Family = Family {
    model_types: &["olmo3"],
    gguf: &[],
    read_json: |fields, config| {
        read_biases(fields, config)?;
        layer_windows(fields, config, |layer| !(layer + 1).is_multiple_of(4))?;
        let mut local = config.ropes[0].clone();
        local.scaling = RopeScaling::None;
        config.ropes.push(local);
        for layer in &mut config.layers {
            layer.rope = Some(usize::from(layer.window.is_some()));
        }
        Ok(())
    },
    ..OLMO2
};
