//! StarCoder 2: biases everywhere, rotary embedding, a window.

use super::llama::{LLAMA, nothing_more, read_window};
use super::names::{GGUF_PLAIN, HUGGING_FACE};
use super::{Family, MlpIn, Names, Spelling};

pub(super) const STARCODER2: Family = Family {
    model_types: &["starcoder2"],
    gguf: &["starcoder2"],
    gguf_form: Some("starcoder2"),
    spelling: Spelling {
        aliases: &[("rms_norm_eps", "norm_epsilon")],
        eps: Some(1e-5),
        activation: "gelu_pytorch_tanh",
        tied: true,
        ..LLAMA.spelling
    },
    shape: |config| {
        config.with_biases_everywhere();
        config.mlp.activation = kernels::Activation::GeluTanh;
    },
    read_json: |fields, config| {
        let bias = fields.bool_or("use_bias", true)?;
        config.attention.qkv_bias = bias;
        config.attention.output_bias = bias;
        config.mlp.bias = bias;
        read_window(fields, config)
    },
    read_gguf: nothing_more,
    names: |_| {
        const NAMES: Names = Names {
            mlp_in: MlpIn::Separate(["", "mlp.c_fc"]),
            mlp_down: "mlp.c_proj",
            ..HUGGING_FACE
        };
        &NAMES
    },
    gguf_names: |_| &GGUF_PLAIN,
};
