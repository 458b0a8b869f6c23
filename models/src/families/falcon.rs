//! Falcon, in both layouts: one norm for both blocks or one for each, rotated or by ALiBi.

use kernels::NormKind;

use super::llama::LLAMA;
use super::names::{GGUF_STACKED, HUGGING_FACE};
use super::{Family, MlpIn, Names, NormNames, Qkv, Spelling};
use crate::LoadError;
use crate::config::{Fields, ModelConfig, Parallel};

pub(super) const FALCON: Family = Family {
    model_types: &["falcon"],
    gguf: &["falcon"],
    gguf_form: Some("falcon"),
    spelling: Spelling {
        aliases: &[
            ("hidden_size", "n_embed"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("num_key_value_heads", "num_kv_heads"),
            ("num_key_value_heads", "n_head_kv"),
            ("intermediate_size", "ffn_hidden_size"),
            ("hidden_act", "activation"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ],
        eps: Some(1e-5),
        activation: "gelu",
        tied: true,
        max_positions: Some(2048),
        inner_is_fourfold: true,
        ..LLAMA.spelling
    },
    shape: |config| {
        config.norm.kind = NormKind::Layer;
        config.norm.bias = true;
        config.mlp.gated = false;
        config.block.parallel = Parallel::SharedNorm;
    },
    read_json,
    read_gguf: |keys, config| {
        config.mlp.activation = kernels::Activation::Gelu;
        if keys.has("blk.0.attn_norm_2.weight") {
            config.block.parallel = Parallel::OwnNorm;
        }
        Ok(())
    },
    names: |config| match config.block.parallel {
        Parallel::OwnNorm => {
            const NAMES: Names = Names {
                norms: NormNames {
                    before_attention: "ln_attn",
                    before_mlp: "ln_mlp",
                    ..HUGGING_FACE.norms
                },
                ..PLAIN
            };
            &NAMES
        }
        _ => &PLAIN,
    },
    gguf_names: |config| match config.block.parallel {
        Parallel::OwnNorm => {
            const NAMES: Names = Names {
                norms: NormNames {
                    before_attention: "attn_norm_2",
                    before_mlp: "attn_norm",
                    ..HUGGING_FACE.norms
                },
                ..GGUF_STACKED
            };
            &NAMES
        }
        _ => &GGUF_STACKED,
    },
};

const PLAIN: Names = Names {
    prefix: "transformer.",
    embedding: "transformer.word_embeddings",
    final_norm: "transformer.ln_f",
    layers: "transformer.h.",
    qkv: Qkv::Grouped("self_attention.query_key_value"),
    output: "self_attention.dense",
    mlp_in: MlpIn::Separate(["", "mlp.dense_h_to_4h"]),
    mlp_down: "mlp.dense_4h_to_h",
    ..HUGGING_FACE
};

fn read_json(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let bias = fields.bool_or("bias", false)?;
    config.attention.qkv_bias = bias;
    config.attention.output_bias = bias;
    config.mlp.bias = bias;
    let is_new = fields.bool_or("new_decoder_architecture", false)?;
    if !is_new {
        // The number of key-value heads is for the new layout only.
        let multi_query = fields.bool_or("multi_query", true)?;
        config.n_kv_heads = if multi_query { 1 } else { config.n_heads };
    }
    let n_norms = fields.opt_size("num_ln_in_parallel_attn")?;
    config.block.parallel = match (is_new, fields.bool_or("parallel_attn", true)?) {
        (true, _) if n_norms.unwrap_or(2) == 2 => Parallel::OwnNorm,
        (true, _) | (false, true) => Parallel::SharedNorm,
        (false, false) => Parallel::No,
    };
    if fields.bool_or("alibi", false)? {
        config.without_rope();
        // Here the slopes are scaled together with the scores.
        config.attention.alibi = Some(config.attention.scale);
    }
    Ok(())
}
