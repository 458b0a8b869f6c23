//! OPT: learned positions that begin at row two, ReLU.

use super::llama::LLAMA;
use super::names::HUGGING_FACE;
use super::{Family, MlpIn, Names, NormNames, Spelling};

pub(super) const OPT: Family = Family {
    model_types: &["opt"],
    gguf: &[],
    gguf_form: None,
    spelling: Spelling {
        aliases: &[
            ("intermediate_size", "ffn_dim"),
            ("hidden_act", "activation_function"),
        ],
        eps: Some(1e-5),
        activation: "relu",
        tied: true,
        rotary_part: None,
        ..LLAMA.spelling
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.without_rope();
        config.embedding.positions_offset = Some(2);
    },
    read_json: |fields, config| {
        fields.needs("do_layer_norm_before", true)?;
        fields.needs("layer_norm_elementwise_affine", true)?;
        fields.needs("_remove_final_layer_norm", false)?;
        if let Some(width) = fields.opt_size("word_embed_proj_dim")?
            && width != config.hidden_size
        {
            let message = format!("an embedding of {width} values is not supported");
            return Err(fields.error("word_embed_proj_dim", message));
        }
        let bias = fields.bool_or("enable_bias", true)?;
        config.attention.qkv_bias = bias;
        config.attention.output_bias = bias;
        config.mlp.bias = bias;
        Ok(())
    },
    names: |_| {
        const NAMES: Names = Names {
            embedding: "model.decoder.embed_tokens",
            positions: "model.decoder.embed_positions",
            final_norm: "model.decoder.final_layer_norm",
            layers: "model.decoder.layers.",
            norms: NormNames {
                before_attention: "self_attn_layer_norm",
                before_mlp: "final_layer_norm",
                ..HUGGING_FACE.norms
            },
            output: "self_attn.out_proj",
            mlp_in: MlpIn::Separate(["", "fc1"]),
            mlp_down: "fc2",
            ..HUGGING_FACE
        };
        &NAMES
    },
    ..LLAMA
};
