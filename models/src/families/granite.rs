//! Granite 3: Llama with four multipliers.

use kernels::RopeStyle;

use super::Family;
use super::llama::LLAMA;

pub(super) const GRANITE: Family = Family {
    model_types: &["granite"],
    gguf: &["granite"],
    gguf_form: Some("granite"),
    read_json: |fields, config| {
        (LLAMA.read_json)(fields, config)?;
        let factor = |name: &str| Ok(fields.opt_f32(name)?.unwrap_or(1.0));
        config.attention.scale = factor("attention_multiplier")?;
        config.embedding.scale = factor("embedding_multiplier")?;
        config.block.residual_scale = factor("residual_multiplier")?;
        config.logits.scale = 1.0 / factor("logits_scaling")?;
        Ok(())
    },
    read_gguf: |keys, config| {
        config.attention.rope_style = RopeStyle::Interleaved;
        let given = keys.opt_f32("attention.scale")?.filter(|x| *x > 0.0);
        config.attention.scale = given.unwrap_or(config.attention.scale);
        config.embedding.scale = keys.opt_f32("embedding_scale")?.unwrap_or(1.0);
        config.block.residual_scale = keys.opt_f32("residual_scale")?.unwrap_or(1.0);
        config.logits.scale = 1.0 / keys.opt_f32("logit_scale")?.unwrap_or(1.0);
        Ok(())
    },
    ..LLAMA
};
