//! A model's hyperparameters, whichever spelling they come in.

mod fields;
mod gguf;
mod json;
mod rope;
mod rope_json;

use std::path::Path;

use crate::LoadError;

pub(crate) use fields::Fields;
pub(crate) use gguf::read_gguf_config;
pub(crate) use json::read_config_json;
pub use rope::{RopeConfig, RopeScaling};

/// Architectures that can be loaded, by the name that `config.json` has for them.
pub(crate) const SUPPORTED: &str = "llama, mistral";

/// Hyperparameters of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `llama`, `mistral`, ...
    pub architecture: String,
    pub n_layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Rows of the embedding; may be larger than the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
    pub norm_eps: f32,
    pub rope: RopeConfig,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// The projection after attention has a bias.
    pub attention_output_bias: bool,
    /// Gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// The head is the embedding.
    pub tied_embeddings: bool,
}

/// Sizes beyond these are damaged files, not models: products of any few of them stay far from
/// overflow.
const MAX_LAYERS: usize = 1 << 12;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 28;

impl ModelConfig {
    /// Refuses sizes that no model has. `field` gives the file's own name of a size.
    fn check(&self, file: &Path, field: impl Fn(&str) -> String) -> Result<(), LoadError> {
        let sizes = [
            ("n_layers", self.n_layers, MAX_LAYERS),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("n_heads", self.n_heads, MAX_LAYERS),
            ("n_kv_heads", self.n_kv_heads, MAX_LAYERS),
            ("head_dim", self.head_dim, MAX_LAYERS),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("max_positions", self.max_positions, MAX_POSITIONS),
        ];
        for (name, size, most) in sizes {
            if size == 0 || size > most {
                return Err(LoadError::new(
                    file,
                    format!(
                        "field `{}`: {size} is not between 1 and {most}",
                        field(name)
                    ),
                ));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(LoadError::new(
                file,
                format!(
                    "field `{}`: {} heads cannot share {} key-value heads equally",
                    field("n_kv_heads"),
                    self.n_heads,
                    self.n_kv_heads
                ),
            ));
        }
        if self.rope.dim > self.head_dim || !self.rope.dim.is_multiple_of(2) || self.rope.dim == 0 {
            return Err(LoadError::new(
                file,
                format!(
                    "field `{}`: cannot rotate {} of the {} values of a head",
                    field("rope_dim"),
                    self.rope.dim,
                    self.head_dim
                ),
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(LoadError::new(
                file,
                format!(
                    "field `{}`: {} is not an epsilon",
                    field("norm_eps"),
                    self.norm_eps
                ),
            ));
        }
        self.rope
            .check()
            .map_err(|message| LoadError::new(file, message))
    }
}
