//! GLM 4: norms around each block, half of each head rotated in neighbouring pairs.

use kernels::RopeStyle;

use super::llama::LLAMA;
use super::names::{GGUF, HUGGING_FACE};
use super::{Family, MlpIn, Names, NormNames, Spelling};

pub(super) const GLM4: Family = Family {
    model_types: &["glm4"],
    gguf: &["glm4"],
    gguf_form: Some("glm4"),
    spelling: Spelling {
        rotary_part: Some(0.5),
        ..LLAMA.spelling
    },
    shape: |config| {
        config.block.norm_after = true;
        config.attention.rope_style = RopeStyle::Interleaved;
    },
    read_json: |fields, config| {
        config.attention.qkv_bias = fields.bool_or("attention_bias", false)?;
        Ok(())
    },
    read_gguf: |_, _| Ok(()),
    names: |_| {
        const NAMES: Names = Names {
            norms: NormNames {
                before_attention: "input_layernorm",
                after_attention: "post_self_attn_layernorm",
                before_mlp: "post_attention_layernorm",
                after_mlp: "post_mlp_layernorm",
            },
            mlp_in: MlpIn::Stacked("mlp.gate_up_proj"),
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| {
        const NAMES: Names = Names {
            mlp_in: MlpIn::Stacked("ffn_up"),
            ..GGUF
        };
        &NAMES
    },
};
