//! The attention block: projections, rotation, paged attention, output projection.

use kernels::{AttentionRow, Device, KvCache, PagedAttention, RopeAngles, RopeStyle, RopeWriteKv};

use crate::activations::Activations;
use crate::weights::{Projection, Weights};
use crate::{LoadError, ModelConfig};

/// What attention has to know of a step, the same for all layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionStep<'a> {
    pub(crate) angles: RopeAngles<'a>,
    pub(crate) slots: &'a [u32],
    pub(crate) rows: &'a [AttentionRow<'a>],
}

/// Names of a layer's tensors, without `.weight` and `.bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionNames {
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    pub(crate) v: &'static str,
    pub(crate) output: &'static str,
}

/// Weights of one layer's attention.
#[derive(Debug)]
pub(crate) struct Attention {
    q: Projection,
    k: Projection,
    v: Projection,
    output: Projection,
    n_heads: usize,
    scale: f32,
}

impl Attention {
    /// `layer`: what stands before the names, as `model.layers.0.`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        layer: &str,
        names: &AttentionNames,
    ) -> Result<Self, LoadError> {
        let hidden = config.hidden_size;
        let q_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        let load = |name: &str, n_out, n_in, bias| {
            weights.projection(&format!("{layer}{name}"), n_out, n_in, bias)
        };
        Ok(Self {
            q: load(names.q, q_width, hidden, config.qkv_bias)?,
            k: load(names.k, kv_width, hidden, config.qkv_bias)?,
            v: load(names.v, kv_width, hidden, config.qkv_bias)?,
            output: load(names.output, hidden, q_width, config.attention_output_bias)?,
            n_heads: config.n_heads,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
        })
    }

    /// From `normed` to `block_out`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        step: AttentionStep<'_>,
        layer: usize,
        kv: &mut KvCache,
        activations: &mut Activations,
    ) {
        let a = activations;
        let n_rows = step.slots.len();
        device.linear_into(
            &a.normed,
            n_rows,
            &mut [
                self.q.call(&mut a.q),
                self.k.call(&mut a.k),
                self.v.call(&mut a.v),
            ],
        );
        device.rope_write_kv(RopeWriteKv {
            q: &mut a.q,
            k: &a.k,
            v: &a.v,
            n_heads: self.n_heads,
            angles: step.angles,
            slots: step.slots,
            kv,
            layer,
        });
        device.paged_attention_into(PagedAttention {
            q: &a.q,
            kv,
            layer,
            rows: step.rows,
            n_heads: self.n_heads,
            scale: self.scale,
            out: &mut a.attended,
        });
        device.linear_into(
            &a.attended,
            n_rows,
            &mut [self.output.call(&mut a.block_out)],
        );
    }

    pub(crate) fn n_bytes(&self) -> usize {
        [&self.q, &self.k, &self.v, &self.output]
            .iter()
            .map(|projection| projection.n_bytes())
            .sum()
    }
}

/// How a container stores the rows of query and key projections. Converters to GGUF permute
/// those of the Llama family so that rotated pairs lie side by side; we rotate such pairs
/// instead of permuting back.
pub(crate) fn rope_style(is_gguf: bool) -> RopeStyle {
    if is_gguf {
        RopeStyle::Interleaved
    } else {
        RopeStyle::Half
    }
}
