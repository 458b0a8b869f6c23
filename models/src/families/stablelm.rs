//! StableLM 2 and StableLM 3B: LayerNorm, part of each head rotated.

use kernels::NormKind;

use super::llama::{LLAMA, nothing_more};
use super::{Family, Spelling};
use crate::config::Parallel;

pub(super) const STABLELM: Family = Family {
    model_types: &["stablelm"],
    gguf: &["stablelm"],
    gguf_form: Some("stablelm"),
    spelling: Spelling {
        aliases: &[("rms_norm_eps", "layer_norm_eps")],
        eps: Some(1e-5),
        rotary_part: Some(0.25),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.norm.kind = NormKind::Layer;
        config.norm.bias = true;
    },
    read_json: |fields, config| {
        fields.needs("qk_layernorm", false)?;
        config.attention.qkv_bias = fields.bool_or("use_qkv_bias", false)?;
        if fields.bool_or("use_parallel_residual", false)? {
            config.block.parallel = Parallel::SharedNorm;
        }
        Ok(())
    },
    read_gguf: |keys, config| {
        // Files without a second norm have parallel blocks.
        if !keys.has("blk.0.ffn_norm.weight") {
            config.block.parallel = Parallel::SharedNorm;
        }
        nothing_more(keys, config)
    },
    ..LLAMA
};
