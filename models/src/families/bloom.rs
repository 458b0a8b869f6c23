//! BLOOM: positions by ALiBi, a norm after the embedding.

use super::llama::LLAMA;
use super::names::{GGUF_STACKED, HUGGING_FACE};
use super::{Family, MlpIn, Names, Qkv, Spelling};

pub(super) const BLOOM: Family = Family {
    model_types: &["bloom"],
    gguf: &["bloom"],
    gguf_form: Some("bloom"),
    spelling: Spelling {
        aliases: &[
            ("hidden_size", "n_embed"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "seq_length"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ],
        eps: Some(1e-5),
        activation: "gelu_new",
        tied: true,
        // What it was trained with; nothing in the model limits it.
        max_positions: Some(2048),
        inner_is_fourfold: true,
        rotary_part: None,
        ..LLAMA.spelling
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.mlp.activation = kernels::Activation::GeluTanh;
        config.without_rope();
        config.embedding.norm = true;
        config.attention.alibi = Some(1.0);
    },
    read_json: |fields, _| fields.needs("apply_residual_connection_post_layernorm", false),
    read_gguf: |_, _| Ok(()),
    names: |_| {
        const NAMES: Names = Names {
            prefix: "transformer.",
            embedding: "transformer.word_embeddings",
            embedding_norm: "transformer.word_embeddings_layernorm",
            final_norm: "transformer.ln_f",
            layers: "transformer.h.",
            qkv: Qkv::Grouped("self_attention.query_key_value"),
            output: "self_attention.dense",
            mlp_in: MlpIn::Separate(["", "mlp.dense_h_to_4h"]),
            mlp_down: "mlp.dense_4h_to_h",
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| &GGUF_STACKED,
};
