//! GPT-2 (matrices stored transposed) and GPT-BigCode (StarCoder 1, SantaCoder).

use super::llama::nothing_more;
use super::names::{GGUF_STACKED, HUGGING_FACE};
use super::{Family, MlpIn, Names, NormNames, Qkv, Spelling};
use crate::LoadError;
use crate::config::Fields;

pub(super) const GPT2: Family = Family {
    model_types: &["gpt2"],
    gguf: &["gpt2"],
    gguf_form: Some("gpt2"),
    spelling: Spelling {
        aliases: &[
            ("hidden_size", "n_embd"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "n_positions"),
            ("intermediate_size", "n_inner"),
            ("hidden_act", "activation_function"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ],
        eps: Some(1e-5),
        activation: "gelu_new",
        tied: true,
        max_positions: None,
        head_dim: None,
        inner_is_fourfold: true,
        rotary_part: None,
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.without_rope();
        config.embedding.positions_offset = Some(0);
    },
    read_json: |fields, _| refuse_scaling(fields),
    read_gguf: |_, config| {
        config.mlp.activation = kernels::Activation::GeluTanh;
        Ok(())
    },
    names: |_| {
        const NAMES: Names = Names {
            transposed: true,
            qkv: Qkv::Stacked("attn.c_attn"),
            ..PLAIN
        };
        &NAMES
    },
    gguf_names: |_| &GGUF_STACKED,
};

pub(super) const GPT_BIGCODE: Family = Family {
    model_types: &["gpt_bigcode"],
    gguf: &["starcoder"],
    gguf_form: Some("starcoder"),
    spelling: Spelling {
        activation: "gelu_pytorch_tanh",
        ..GPT2.spelling
    },
    read_json: |fields, config| {
        refuse_scaling(fields)?;
        if fields.bool_or("multi_query", true)? {
            config.n_kv_heads = 1;
        }
        Ok(())
    },
    read_gguf: |keys, config| {
        config.mlp.activation = kernels::Activation::GeluTanh;
        nothing_more(keys, config)
    },
    names: |_| &PLAIN,
    ..GPT2
};

const PLAIN: Names = Names {
    prefix: "transformer.",
    embedding: "transformer.wte",
    positions: "transformer.wpe",
    final_norm: "transformer.ln_f",
    layers: "transformer.h.",
    norms: NormNames {
        before_attention: "ln_1",
        before_mlp: "ln_2",
        ..HUGGING_FACE.norms
    },
    // One head of keys, or as many as of queries: either way the pieces are head by head.
    qkv: Qkv::Grouped("attn.c_attn"),
    output: "attn.c_proj",
    mlp_in: MlpIn::Separate(["", "mlp.c_fc"]),
    mlp_down: "mlp.c_proj",
    ignored: &[".attn.bias", ".attn.masked_bias"],
    ..HUGGING_FACE
};

fn refuse_scaling(fields: &Fields<'_>) -> Result<(), LoadError> {
    fields.needs("scale_attn_weights", true)?;
    fields.needs("scale_attn_by_inverse_layer_idx", false)?;
    fields.needs("add_cross_attention", false)
}
