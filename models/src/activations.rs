//! The buffers that a step works in, reserved once for the largest step.

use kernels::{Buffer, Device, Routes, RowGroups};

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
    /// `[n_parts, n_rows, hidden]`: `block_out` of all devices; empty for a device alone.
    pub(crate) parts: Buffer,
    /// `[n_rows, n_heads * head_dim]`.
    pub(crate) q: Buffer,
    /// `[n_rows, n_kv_heads * head_dim]`, as is `v`.
    pub(crate) k: Buffer,
    pub(crate) v: Buffer,
    /// `[n_rows, n_heads * head_dim]`.
    pub(crate) attended: Buffer,
    pub(crate) latent: Latent,
    pub(crate) inner: Inner,
    pub(crate) experts: ExpertRows,
    /// `[logits_rows, hidden]`: rows whose logits are asked for.
    pub(crate) gathered: Buffer,
    /// `[logits_rows, vocab]`.
    pub(crate) logits: Buffer,
    /// Rows of one chunk of logits.
    pub(crate) logits_rows: usize,
    /// The rows of `gathered` by adapter.
    pub(crate) logits_groups: RowGroups,
}

/// Inner values of feed-forward blocks, `[n_rows, widest inner]` each.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) gate: Buffer,
    pub(crate) up: Buffer,
    pub(crate) gated: Buffer,
}

/// What latent attention needs; empty for models without.
#[derive(Debug)]
pub(crate) struct Latent {
    /// `[n_rows, q_rank]`.
    pub(crate) q: Buffer,
    /// `[n_rows, kv_rank]`.
    pub(crate) kv: Buffer,
    /// `[n_rows, rope_dim]`.
    pub(crate) k_rope: Buffer,
    /// `[n_rows, n_heads, head_dim - rope_dim]`.
    pub(crate) k: Buffer,
    /// `[n_rows, n_heads, value_dim]`.
    pub(crate) v: Buffer,
}

/// What mixtures of experts need; empty for models without.
#[derive(Debug)]
pub(crate) struct ExpertRows {
    /// `[n_rows, n_experts]`.
    pub(crate) scores: Buffer,
    pub(crate) routes: Routes,
    /// Rows of the expert at work.
    pub(crate) rows: Vec<u32>,
    /// Those rows by adapter.
    pub(crate) groups: RowGroups,
    /// `[n_rows, hidden]`: what the expert at work takes and gives.
    pub(crate) input: Buffer,
    pub(crate) output: Buffer,
}

impl Activations {
    pub(crate) fn new(device: &Device, config: &ModelConfig, n_rows: usize) -> Self {
        let logits_rows = logits_rows(config, n_rows);
        let zeros = |width: usize| Buffer::zeros(device, n_rows * width);
        let q_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        let inner = config.widest_inner();
        Self {
            residual: zeros(config.hidden_size),
            normed: zeros(config.hidden_size),
            block_out: zeros(config.hidden_size),
            parts: zeros(parts_width(config)),
            q: zeros(q_width),
            k: zeros(kv_width),
            v: zeros(kv_width),
            attended: zeros(q_width),
            latent: Latent::new(config, &zeros),
            inner: Inner {
                gate: zeros(if config.mlp.gated { inner } else { 0 }),
                up: zeros(inner),
                gated: zeros(if config.mlp.gated { inner } else { 0 }),
            },
            experts: ExpertRows::new(config, &zeros),
            gathered: Buffer::zeros(device, logits_rows * config.hidden_size),
            logits: Buffer::zeros(device, logits_rows * config.vocab_size),
            logits_rows,
            logits_groups: RowGroups::default(),
        }
    }
}

/// Bytes that the buffers for steps of up to `n_rows` tokens take.
pub(crate) fn n_bytes(config: &ModelConfig, n_rows: usize) -> u64 {
    let logits_rows = logits_rows(config, n_rows);
    let hidden = config.hidden_size;
    let attention = 2 * (config.n_heads + config.n_kv_heads) * config.head_dim;
    let latent = config.attention.latent.map_or(0, |latent| {
        let heads = config.n_heads * (config.head_dim - latent.rope_dim + latent.value_dim);
        latent.q_rank.unwrap_or(0) + latent.kv_rank + latent.rope_dim + heads
    });
    let inner = config.widest_inner() * if config.mlp.gated { 3 } else { 1 };
    let experts = config.experts.as_ref().map_or(0, |e| e.routing.n_experts);
    let experts = experts + if experts > 0 { 2 * hidden } else { 0 };
    let row = 3 * hidden + parts_width(config) + attention + latent + inner + experts;
    let n_values = n_rows as u64 * row as u64 + (logits_rows * (hidden + config.vocab_size)) as u64;
    4 * n_values
}

/// Values of a row of what all devices have.
fn parts_width(config: &ModelConfig) -> usize {
    match config.n_parts {
        1 => 0,
        n => n * config.hidden_size,
    }
}

/// Rows of one chunk of logits.
fn logits_rows(config: &ModelConfig, n_rows: usize) -> usize {
    let n_affordable = LOGITS_BYTES / (4 * config.vocab_size);
    n_affordable.clamp(1, 64).min(n_rows)
}

impl Latent {
    fn new(config: &ModelConfig, zeros: &impl Fn(usize) -> Buffer) -> Self {
        let latent = config.attention.latent;
        let width = |width: fn(&ModelConfig, crate::config::LatentConfig) -> usize| {
            zeros(latent.map_or(0, |latent| width(config, latent)))
        };
        Self {
            q: width(|_, latent| latent.q_rank.unwrap_or(0)),
            kv: width(|_, latent| latent.kv_rank),
            k_rope: width(|_, latent| latent.rope_dim),
            k: width(|config, latent| config.n_heads * (config.head_dim - latent.rope_dim)),
            v: width(|config, latent| config.n_heads * latent.value_dim),
        }
    }
}

impl ExpertRows {
    fn new(config: &ModelConfig, zeros: &impl Fn(usize) -> Buffer) -> Self {
        let n_experts = config.experts.as_ref().map_or(0, |e| e.routing.n_experts);
        let width = if n_experts > 0 { config.hidden_size } else { 0 };
        Self {
            scores: zeros(n_experts),
            routes: Routes::default(),
            rows: Vec::new(),
            groups: RowGroups::default(),
            input: zeros(width),
            output: zeros(width),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kernels::CpuOptions;

    use super::*;
    use crate::Checkpoint;

    /// Of all buffers, by what they were made as.
    fn n_held(activations: &Activations) -> usize {
        let Activations {
            residual,
            normed,
            block_out,
            parts,
            q,
            k,
            v,
            attended,
            latent,
            inner,
            experts,
            gathered,
            logits,
            ..
        } = activations;
        let buffers = [
            residual,
            normed,
            block_out,
            parts,
            q,
            k,
            v,
            attended,
            gathered,
            logits,
            &latent.q,
            &latent.kv,
            &latent.k_rope,
            &latent.k,
            &latent.v,
            &inner.gate,
            &inner.up,
            &inner.gated,
            &experts.scores,
            &experts.input,
            &experts.output,
        ];
        buffers.iter().map(|buffer| 4 * buffer.len()).sum()
    }

    #[test]
    fn the_plan_counts_every_buffer() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let device = Device::cpu(CpuOptions::default());
        let mut n_models = 0;
        for entry in std::fs::read_dir(models).unwrap() {
            let Ok(checkpoint) = Checkpoint::open(&entry.unwrap().path()) else {
                continue;
            };
            for n_parts in [1, 2] {
                let Ok(config) = checkpoint.config().part_of(n_parts) else {
                    continue;
                };
                for n_rows in [1, 100] {
                    let held = n_held(&Activations::new(&device, &config, n_rows));
                    assert_eq!(n_bytes(&config, n_rows), held as u64);
                }
                n_models += 1;
            }
        }
        assert!(n_models > 0);
    }
}
