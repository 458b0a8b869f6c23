//! The parts of a [`super::ModelConfig`].

use kernels::{Activation, NormKind, RopeStyle, Routing};

/// How norms are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    Stored,
    /// What is stored is added to one.
    PlusOne,
    /// Nothing is stored: all ones.
    Ones,
}

/// The norms of a model; all are of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    pub kind: NormKind,
    pub eps: f32,
    pub weight: NormWeight,
    pub bias: bool,
}

/// Whether the feed-forward block sees what attention gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallel {
    /// It does: the blocks follow one another.
    No,
    /// Both take the same normed input.
    SharedNorm,
    /// Both take the layer's input, each through a norm of its own.
    OwnNorm,
}

/// Where norms stand in a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockConfig {
    pub norm_before: bool,
    pub norm_after: bool,
    pub parallel: Parallel,
    /// Multiplies what a block adds to the residual stream.
    pub residual_scale: f32,
}

/// What happens to a token before the first layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingConfig {
    pub scale: f32,
    pub norm: bool,
    /// `Some(n)`: a learned vector for each position is added, that of position `p` in row
    /// `p + n`.
    pub positions_offset: Option<usize>,
}

/// Norms of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Over each head, one weight for all.
    Head,
    /// Over all heads together.
    Whole,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Multiplies `q . k`.
    pub scale: f32,
    pub softcap: Option<f32>,
    /// Positions lower scores by slopes; the value multiplies the usual slopes.
    pub alibi: Option<f32>,
    /// Each head has a sink.
    pub sinks: bool,
    /// Queries, keys and values are limited to this size.
    pub clip: Option<f32>,
    pub qk_norm: QkNorm,
    pub rope_style: RopeStyle,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// The projection after attention has a bias.
    pub output_bias: bool,
    /// Keys and values come out of a narrow vector.
    pub latent: Option<LatentConfig>,
}

/// Multi-head latent attention (<https://arxiv.org/abs/2405.04434>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentConfig {
    /// Width of the vector that queries come out of; `None`: they come from the input.
    pub q_rank: Option<usize>,
    pub kv_rank: usize,
    /// Rotated values of a head.
    pub rope_dim: usize,
    pub value_dim: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlpConfig {
    pub activation: Activation,
    /// Whether a gate multiplies the inner values, or the activation takes them alone.
    pub gated: bool,
    pub bias: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Inner width of an expert.
    pub intermediate_size: usize,
    pub routing: Routing,
    pub router_bias: bool,
    /// A stored bias is added to the scores for the choice.
    pub correction_bias: bool,
    /// Experts' layers have biases.
    pub bias: bool,
    pub shared: Option<SharedExpert>,
}

/// An expert that every row uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    pub intermediate_size: usize,
    /// A sigmoid of each row weighs what it gives.
    pub gated: bool,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Positions that a query sees, itself among them; `None`: all.
    pub window: Option<usize>,
    /// Index of its rotary embedding; `None`: heads are not rotated.
    pub rope: Option<usize>,
    /// Whether its feed-forward block is a mixture of experts.
    pub experts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitsConfig {
    /// The head is the embedding.
    pub tied: bool,
    pub bias: bool,
    pub scale: f32,
    pub softcap: Option<f32>,
}
