//! A model's hyperparameters, whichever spelling they come in.

mod check;
mod experts_gguf;
mod fields;
mod gguf;
mod json;
mod parts;
mod rope;
mod rope_gguf;
mod rope_json;

use kernels::{Activation, NormKind, RopeStyle};

pub(crate) use experts_gguf::read_gguf_experts;
pub(crate) use fields::Fields;
pub(crate) use gguf::{ACTIVATION_KEY, Keys, read_gguf_config};
pub(crate) use json::{layer_windows, read_config_json};
pub use parts::{
    AttentionConfig, BlockConfig, EmbeddingConfig, ExpertsConfig, LatentConfig, LayerConfig,
    LogitsConfig, MlpConfig, NormConfig, NormWeight, Parallel, QkNorm, SharedExpert,
};
pub(crate) use rope::yarn_mscale;
pub use rope::{RopeConfig, RopeScaling};
pub(crate) use rope_json::{read_rope, read_scaled};

/// What a decoder is made of. Every family is a value of this: nothing else tells one from
/// another when a model runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `llama`, `qwen3`, ...: the file's own name for it.
    pub architecture: String,
    pub n_layers: usize,
    pub hidden_size: usize,
    /// Inner width of feed-forward blocks without experts.
    pub intermediate_size: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Rows of the embedding; may be larger than the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
    pub embedding: EmbeddingConfig,
    pub norm: NormConfig,
    pub block: BlockConfig,
    pub attention: AttentionConfig,
    pub mlp: MlpConfig,
    pub experts: Option<ExpertsConfig>,
    /// Rotary embeddings; layers say which of them they use.
    pub ropes: Vec<RopeConfig>,
    /// What differs from layer to layer; `n_layers` of them.
    pub layers: Vec<LayerConfig>,
    pub logits: LogitsConfig,
    /// Devices that compute it together. The numbers of heads and the inner widths are those of
    /// one of them.
    pub n_parts: usize,
}

impl ModelConfig {
    /// Positions that a query sees at most, itself among them, if every layer has a window: keys
    /// and values of earlier ones are never read again. A single layer without one needs all.
    pub fn kv_window(&self) -> Option<usize> {
        let widest = |widest: usize, layer: &LayerConfig| Some(widest.max(layer.window?));
        self.layers.iter().try_fold(1, widest)
    }

    /// A Llama whose sizes are still to be filled in.
    fn plain(architecture: &str, n_layers: usize, head_dim: usize) -> Self {
        let layer = LayerConfig {
            window: None,
            rope: Some(0),
            experts: false,
        };
        Self {
            architecture: architecture.to_string(),
            n_layers,
            hidden_size: 0,
            intermediate_size: 0,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim,
            vocab_size: 0,
            max_positions: 0,
            embedding: EmbeddingConfig {
                scale: 1.0,
                norm: false,
                positions_offset: None,
            },
            norm: NormConfig {
                kind: NormKind::Rms,
                eps: 0.0,
                weight: NormWeight::Stored,
                bias: false,
            },
            block: BlockConfig {
                norm_before: true,
                norm_after: false,
                parallel: Parallel::No,
                residual_scale: 1.0,
            },
            attention: AttentionConfig {
                scale: 1.0 / (head_dim as f32).sqrt(),
                softcap: None,
                alibi: None,
                sinks: false,
                clip: None,
                qk_norm: QkNorm::None,
                rope_style: RopeStyle::Half,
                qkv_bias: false,
                output_bias: false,
                latent: None,
            },
            mlp: MlpConfig {
                activation: Activation::Silu,
                gated: true,
                bias: false,
            },
            experts: None,
            ropes: Vec::new(),
            layers: vec![layer; n_layers],
            logits: LogitsConfig {
                tied: false,
                bias: false,
                scale: 1.0,
                softcap: None,
            },
            n_parts: 1,
        }
    }

    /// The widest inner values that a feed-forward block of this model has.
    pub(crate) fn widest_inner(&self) -> usize {
        let experts = self.experts.as_ref();
        let routed = experts.map_or(0, |experts| experts.intermediate_size);
        let shared = experts.and_then(|experts| experts.shared);
        let shared = shared.map_or(0, |shared| shared.intermediate_size);
        self.intermediate_size.max(routed).max(shared)
    }

    /// LayerNorm with biases, projections with biases, and no gate: what came before Llama.
    pub(crate) fn with_biases_everywhere(&mut self) {
        self.norm.kind = NormKind::Layer;
        self.norm.bias = true;
        self.attention.qkv_bias = true;
        self.attention.output_bias = true;
        self.mlp.gated = false;
        self.mlp.bias = true;
    }

    /// No layer rotates its heads.
    pub(crate) fn without_rope(&mut self) {
        self.ropes.clear();
        for layer in &mut self.layers {
            layer.rope = None;
        }
    }
}
