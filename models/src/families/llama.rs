//! The Llama family: Llama 1 to 3, Code Llama, Vicuna, TinyLlama, SmolLM2; Mistral, Mixtral.

use kernels::{RopeStyle, RouteScore, Routing};

use super::names::{GGUF, HUGGING_FACE};
use super::{ExpertNames, ExpertStorage, Family, Names, Spelling};
use crate::LoadError;
use crate::config::{ExpertsConfig, Fields, Keys, ModelConfig, layer_windows, read_gguf_experts};

/// What most families are the same in.
pub(super) const LLAMA: Family = Family {
    model_types: &["llama"],
    gguf: &["llama"],
    gguf_form: Some("llama"),
    spelling: Spelling {
        aliases: &[],
        eps: None,
        activation: "silu",
        tied: false,
        max_positions: None,
        head_dim: None,
        inner_is_fourfold: false,
        rotary_part: Some(1.0),
    },
    shape: |_| (),
    read_json: |fields, config| {
        read_biases(fields, config)?;
        config.mlp.bias = fields.bool_or("mlp_bias", false)?;
        Ok(())
    },
    read_gguf: |keys, config| {
        // The converter of this architecture lays rotated pairs side by side.
        config.attention.rope_style = RopeStyle::Interleaved;
        // Mixtral says that it is a Llama.
        read_gguf_experts(keys, config, true)
    },
    names: |_| &HUGGING_FACE,
    gguf_names: |_| &GGUF,
};

/// One field for the biases of all four projections of attention.
pub(super) fn read_biases(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let bias = fields.bool_or("attention_bias", false)?;
    config.attention.qkv_bias = bias;
    config.attention.output_bias = bias;
    Ok(())
}

/// Metadata says all there is to say.
pub(super) fn nothing_more(_: &Keys<'_>, _: &mut ModelConfig) -> Result<(), LoadError> {
    Ok(())
}

/// A window over all layers if the file has one.
pub(super) fn read_window(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<(), LoadError> {
    let slides = fields.get("sliding_window").is_some();
    layer_windows(fields, config, |_| slides)
}

/// Its GGUF files say that they are Llama's.
pub(super) const MISTRAL: Family = Family {
    model_types: &["mistral"],
    gguf: &[],
    gguf_form: Some("llama"),
    read_json: |fields, config| {
        // Its default is not the number of heads.
        fields.size("num_key_value_heads")?;
        read_window(fields, config)
    },
    ..LLAMA
};

pub(super) const MIXTRAL: Family = Family {
    model_types: &["mixtral"],
    gguf: &[],
    gguf_form: Some("llama"),
    read_json: |fields, config| {
        fields.size("num_key_value_heads")?;
        read_window(fields, config)?;
        config.experts = Some(ExpertsConfig {
            intermediate_size: config.intermediate_size,
            routing: Routing {
                n_experts: fields.size("num_local_experts")?,
                n_used: fields.size("num_experts_per_tok")?,
                score: RouteScore::Softmax,
                groups: None,
                renormalize: true,
                scale: 1.0,
            },
            router_bias: false,
            correction_bias: false,
            bias: false,
            shared: None,
        });
        for layer in &mut config.layers {
            layer.experts = true;
        }
        Ok(())
    },
    names: |_| {
        const NAMES: Names = Names {
            experts: ExpertNames {
                router: "block_sparse_moe.gate",
                storage: ExpertStorage::Separate("block_sparse_moe.experts.", ["w1", "w3", "w2"]),
                ..HUGGING_FACE.experts
            },
            ..HUGGING_FACE
        };
        &NAMES
    },
    ..LLAMA
};
