//! GPT-NeoX and Pythia: LayerNorm, biases, blocks side by side.

use super::llama::LLAMA;
use super::names::{GGUF_STACKED, HUGGING_FACE};
use super::{Family, MlpIn, Names, Qkv, Spelling};
use crate::config::Parallel;

pub(super) const GPT_NEOX: Family = Family {
    model_types: &["gpt_neox"],
    gguf: &["gptneox"],
    gguf_form: Some("gptneox"),
    spelling: Spelling {
        aliases: &[
            ("rms_norm_eps", "layer_norm_eps"),
            ("partial_rotary_factor", "rotary_pct"),
            ("rope_theta", "rotary_emb_base"),
        ],
        eps: Some(1e-5),
        activation: "gelu",
        rotary_part: Some(0.25),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.block.parallel = Parallel::OwnNorm;
    },
    read_json: |fields, config| {
        let bias = fields.bool_or("attention_bias", true)?;
        config.attention.qkv_bias = bias;
        config.attention.output_bias = bias;
        if !fields.bool_or("use_parallel_residual", true)? {
            config.block.parallel = Parallel::No;
        }
        Ok(())
    },
    read_gguf: |keys, config| {
        config.mlp.activation = kernels::Activation::Gelu;
        if !keys.opt_bool("use_parallel_residual")?.unwrap_or(true) {
            config.block.parallel = Parallel::No;
        }
        Ok(())
    },
    names: |_| {
        const NAMES: Names = Names {
            prefix: "gpt_neox.",
            embedding: "gpt_neox.embed_in",
            final_norm: "gpt_neox.final_layer_norm",
            head: "embed_out",
            layers: "gpt_neox.layers.",
            qkv: Qkv::Grouped("attention.query_key_value"),
            output: "attention.dense",
            mlp_in: MlpIn::Separate(["", "mlp.dense_h_to_4h"]),
            mlp_down: "mlp.dense_4h_to_h",
            ignored: &[
                ".attention.bias",
                ".attention.masked_bias",
                ".rotary_emb.inv_freq",
            ],
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| &GGUF_STACKED,
};
