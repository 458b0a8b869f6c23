//! The families of architectures: for each, a file of words that says how its files are spelled
//! and in what it differs from Llama.
//!
//! A family changes a [`ModelConfig`] that starts out as Llama's, and gives the [`Names`] of its
//! tensors. The engine reads nothing but those two.

mod bloom;
mod cohere;
mod deepseek;
mod falcon;
mod gemma;
mod glm;
mod gpt2;
mod gpt_oss;
mod granite;
mod llama;
mod names;
mod neox;
mod olmo;
mod opt;
mod phi;
mod qwen;
mod smollm;
mod stablelm;
mod starcoder;

use kernels::RopeStyle;

use crate::LoadError;
use crate::config::{Fields, Keys, ModelConfig};

pub(crate) use gpt_oss::LIMIT_KEY;
pub(crate) use names::{ExpertNames, ExpertStorage, MlpIn, Names, NormNames, Qkv};

/// How a family's `config.json` is spelled, as far as it differs in names and defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spelling {
    /// (usual name, the family's name); the first listed is preferred.
    pub(crate) aliases: &'static [(&'static str, &'static str)],
    /// Epsilon of the norms when the file gives none; `None`: it must.
    pub(crate) eps: Option<f32>,
    pub(crate) activation: &'static str,
    pub(crate) tied: bool,
    /// As `eps`.
    pub(crate) max_positions: Option<usize>,
    /// `None`: hidden values divided by heads.
    pub(crate) head_dim: Option<usize>,
    /// The inner width is four times the hidden size when the file gives none.
    pub(crate) inner_is_fourfold: bool,
    /// Part of a head that is rotated when the file says nothing; `None`: no rotary embedding.
    pub(crate) rotary_part: Option<f64>,
}

/// A family of architectures.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in `config.json`.
    pub(crate) model_types: &'static [&'static str],
    /// `general.architecture` in GGUF files; empty: not one of its own there.
    pub(crate) gguf: &'static [&'static str],
    /// The architecture that its models become in GGUF files; `None`: they have no such form.
    pub(crate) gguf_form: Option<&'static str>,
    pub(crate) spelling: Spelling,
    /// What holds for all models of the family, in both containers.
    pub(crate) shape: fn(&mut ModelConfig),
    /// What `config.json` says beyond what all families have.
    pub(crate) read_json: fn(&Fields<'_>, &mut ModelConfig) -> Result<(), LoadError>,
    /// What GGUF metadata says beyond what all families have.
    pub(crate) read_gguf: fn(&Keys<'_>, &mut ModelConfig) -> Result<(), LoadError>,
    pub(crate) names: fn(&ModelConfig) -> &'static Names,
    pub(crate) gguf_names: fn(&ModelConfig) -> &'static Names,
}

/// All of them. The order is that of lists in error messages.
const FAMILIES: &[&Family] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &llama::MIXTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &smollm::SMOLLM3,
    &phi::PHI,
    &phi::PHI3,
    &olmo::OLMO,
    &olmo::OLMO2,
    &olmo::OLMO3,
    &granite::GRANITE,
    &starcoder::STARCODER2,
    &stablelm::STABLELM,
    &neox::GPT_NEOX,
    &gpt2::GPT2,
    &gpt2::GPT_BIGCODE,
    &opt::OPT,
    &bloom::BLOOM,
    &falcon::FALCON,
    &cohere::COHERE,
    &glm::GLM4,
    &gpt_oss::GPT_OSS,
    &deepseek::DEEPSEEK_V3,
];

pub(crate) fn family_of_model_type(name: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .copied()
        .find(|family| family.model_types.contains(&name))
}

pub(crate) fn family_of_gguf(name: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .copied()
        .find(|family| family.gguf.contains(&name))
}

/// How the GGUF form of a model is rotated: the converters of some architectures lay pairs side
/// by side, all others keep the checkpoint's order.
pub(crate) fn gguf_rope_style(architecture: &str, config: &ModelConfig) -> RopeStyle {
    match architecture {
        "llama" | "granite" | "olmo" | "smollm3" => RopeStyle::Interleaved,
        _ => config.attention.rope_style,
    }
}

pub(crate) fn supported_model_types() -> String {
    let names = FAMILIES.iter().flat_map(|family| family.model_types);
    names.copied().collect::<Vec<_>>().join(", ")
}

pub(crate) fn supported_gguf() -> String {
    let names = FAMILIES.iter().flat_map(|family| family.gguf);
    names.copied().collect::<Vec<_>>().join(", ")
}
