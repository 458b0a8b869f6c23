//! Parameters of the ops that take more than a few.

use crate::{Buffer, KvCache};

/// Which two values of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(x[i], x[i + half])`: Hugging Face checkpoints.
    Half,
    /// `(x[2 i], x[2 i + 1])`: GGUF files of the Llama family, and a few other families.
    Interleaved,
}

/// Cosines and sines of the rows of one step, any attention factor included; both
/// `[n_rows, rotary_dim / 2]`.
#[derive(Clone, Copy, Debug)]
pub struct RopeAngles<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// Leading values of each head that are rotated; the others pass.
    pub rotary_dim: usize,
    pub style: RopeStyle,
}

/// See [`crate::Device::rope_write_kv`].
#[derive(Debug)]
pub struct RopeWriteKv<'a> {
    /// `[n_rows, n_heads, head_dim]`, rotated in place.
    pub q: &'a mut Buffer,
    /// `[n_rows, n_kv_heads, head_dim]`.
    pub k: &'a Buffer,
    /// `[n_rows, n_kv_heads, head_dim]`.
    pub v: &'a Buffer,
    pub n_heads: usize,
    pub angles: RopeAngles<'a>,
    /// Slot of each row; its length is `n_rows`.
    pub slots: &'a [u32],
    pub kv: &'a mut KvCache,
    pub layer: usize,
}

/// Query rows of one sequence: consecutive positions `start..start + n_rows`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRow<'a> {
    /// Index of its first query row.
    pub first_row: usize,
    pub n_rows: usize,
    /// Position of its first query row; row `i` sees positions `0..=start + i`.
    pub start: usize,
    /// Blocks that come before `blocks` and that no row of the sequence sees.
    pub first_block: usize,
    /// Block of position `p` is `blocks[p / block_size - first_block]`.
    pub blocks: &'a [u32],
}

/// See [`crate::Device::paged_attention_into`].
#[derive(Debug)]
pub struct PagedAttention<'a> {
    /// `[n_rows, n_heads, head_dim]`.
    pub q: &'a Buffer,
    pub kv: &'a KvCache,
    pub layer: usize,
    /// In ascending order of their rows, which do not overlap.
    pub rows: &'a [AttentionRow<'a>],
    pub n_heads: usize,
    /// Multiplies `q . k` before the softmax.
    pub scale: f32,
    /// Positions that a query sees, itself among them; `None`: all before it.
    pub window: Option<usize>,
    /// Scores `s` become `softcap * tanh(s / softcap)`.
    pub softcap: Option<f32>,
    /// `[n_heads]`: what a score loses for each position between query and key.
    pub alibi_slopes: Option<&'a Buffer>,
    /// `[n_heads]`: one more score for each head, whose share of the softmax goes nowhere.
    pub sinks: Option<&'a Buffer>,
    /// `[n_rows, n_heads, head_dim]`.
    pub out: &'a mut Buffer,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// The root of the mean square.
    Rms,
    /// The standard deviation, after the mean is taken away.
    Layer,
}

/// `x / sqrt(mean(x^2) + eps) * weight + bias` of rows of `weight.len()` values.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    pub kind: NormKind,
    pub weight: &'a Buffer,
    /// As long as `weight`.
    pub bias: Option<&'a Buffer>,
    pub eps: f32,
}

/// Functions between the layers of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x` times the normal distribution function of `x`.
    Gelu,
    /// The same by an approximation with tanh, which many models were trained with.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// As a gate only: `(clamp(up) + 1) * g * sigmoid(alpha * g)`, `g = min(gate, limit)`.
    ClampedSwish { alpha: f32, limit: f32 },
}

/// See [`crate::Device::strided_copy`].
#[derive(Debug)]
pub struct StridedCopy<'a> {
    pub from: &'a Buffer,
    pub from_stride: usize,
    pub from_offset: usize,
    /// Pieces of `to` that one piece of `from` goes to, one after the other.
    pub repeat: usize,
    pub to: &'a mut Buffer,
    pub to_stride: usize,
    pub to_offset: usize,
    /// Pieces of `to`.
    pub n: usize,
    /// Values of a piece.
    pub len: usize,
}

/// What experts' logits become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteScore {
    Softmax,
    Sigmoid,
    /// The softmax is taken among the chosen only.
    SoftmaxOfChosen,
}

/// Experts are chosen from the groups whose two best scores sum up highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteGroups {
    /// Groups of equal size.
    pub n_groups: usize,
    /// Groups that a row may use.
    pub n_used: usize,
}

/// How rows choose their experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    pub n_experts: usize,
    /// Experts of a row.
    pub n_used: usize,
    pub score: RouteScore,
    pub groups: Option<RouteGroups>,
    /// Weights of a row are divided by their sum.
    pub renormalize: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// Rows of each expert, ascending, and the weights of what it gives for them. Kept from step to
/// step.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    pub by_expert: Vec<Vec<(u32, f32)>>,
}
