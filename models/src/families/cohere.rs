//! Command R: parallel blocks, LayerNorm without biases, pairs rotated side by side.

use kernels::{NormKind, RopeStyle};

use super::llama::{LLAMA, read_biases};
use super::{Family, Spelling};
use crate::config::Parallel;

pub(super) const COHERE: Family = Family {
    model_types: &["cohere"],
    gguf: &["command-r"],
    gguf_form: Some("command-r"),
    spelling: Spelling {
        aliases: &[("rms_norm_eps", "layer_norm_eps")],
        eps: Some(1e-5),
        tied: true,
        ..LLAMA.spelling
    },
    shape: |config| {
        config.norm.kind = NormKind::Layer;
        config.block.parallel = Parallel::SharedNorm;
        config.attention.rope_style = RopeStyle::Interleaved;
    },
    read_json: |fields, config| {
        fields.needs("use_qk_norm", false)?;
        config.logits.scale = fields.opt_f32("logit_scale")?.unwrap_or(0.0625);
        read_biases(fields, config)
    },
    read_gguf: |keys, config| {
        config.logits.scale = keys.number("logit_scale")? as f32;
        Ok(())
    },
    ..LLAMA
};
