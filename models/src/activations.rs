//! The buffers that a step works in, reserved once for the largest step.

use kernels::{Buffer, Device};

use crate::ModelConfig;

/// Logits of one chunk take at most about this much memory.
const LOGITS_BYTES: usize = 32 << 20;

/// Activations of up to `max_batched_tokens` rows. Which buffer holds what at which point is
/// said in `Model::forward`.
#[derive(Debug)]
pub(crate) struct Activations {
    /// `[n_rows, hidden]`: the residual stream.
    pub(crate) residual: Buffer,
    /// `[n_rows, hidden]`: the normed input of a block.
    pub(crate) normed: Buffer,
    /// `[n_rows, hidden]`: what a block adds to the stream.
    pub(crate) block_out: Buffer,
    /// `[n_rows, n_heads * head_dim]`.
    pub(crate) q: Buffer,
    /// `[n_rows, n_kv_heads * head_dim]`, as is `v`.
    pub(crate) k: Buffer,
    pub(crate) v: Buffer,
    /// `[n_rows, n_heads * head_dim]`.
    pub(crate) attended: Buffer,
    /// `[n_rows, intermediate]`, as are `up` and `gated`.
    pub(crate) gate: Buffer,
    pub(crate) up: Buffer,
    pub(crate) gated: Buffer,
    /// `[logits_rows, hidden]`: rows whose logits are asked for.
    pub(crate) gathered: Buffer,
    /// `[logits_rows, vocab]`.
    pub(crate) logits: Buffer,
    /// Rows of one chunk of logits.
    pub(crate) logits_rows: usize,
}

impl Activations {
    pub(crate) fn new(device: &Device, config: &ModelConfig, n_rows: usize) -> Self {
        let logits_rows = (LOGITS_BYTES / (4 * config.vocab_size))
            .clamp(1, 64)
            .min(n_rows);
        let zeros = |width: usize| Buffer::zeros(device, n_rows * width);
        let q_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        Self {
            residual: zeros(config.hidden_size),
            normed: zeros(config.hidden_size),
            block_out: zeros(config.hidden_size),
            q: zeros(q_width),
            k: zeros(kv_width),
            v: zeros(kv_width),
            attended: zeros(q_width),
            gate: zeros(config.intermediate_size),
            up: zeros(config.intermediate_size),
            gated: zeros(config.intermediate_size),
            gathered: Buffer::zeros(device, logits_rows * config.hidden_size),
            logits: Buffer::zeros(device, logits_rows * config.vocab_size),
            logits_rows,
        }
    }
}
