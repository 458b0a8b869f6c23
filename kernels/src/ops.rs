//! Parameters of the ops that take more than a few.

use crate::{Buffer, KvCache};

/// Which two values of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(x[i], x[i + half])`: Hugging Face checkpoints.
    Half,
    /// `(x[2 i], x[2 i + 1])`: GGUF files of the Llama family.
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
    /// Block of position `p` is `blocks[p / block_size]`.
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
    /// `[n_rows, n_heads, head_dim]`.
    pub out: &'a mut Buffer,
}
