//! The Llama family: Llama 1 to 3, Code Llama, TinyLlama, SmolLM2, Mistral without a window.

use kernels::{Buffer, Device, KvCache, Linear, LinearCall, Numerics, RopeStyle, WeightType};

use crate::activations::Activations;
use crate::attention::{Attention, AttentionNames, AttentionStep, rope_style};
use crate::mlp::{Mlp, MlpNames};
use crate::weights::Weights;
use crate::{Checkpoint, LoadError, ModelConfig};

/// Names of the family's tensors in one container.
struct Names {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    /// Stands before a layer's number.
    layers: &'static str,
    attention_norm: &'static str,
    attention: AttentionNames,
    mlp_norm: &'static str,
    mlp: MlpNames,
}

const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens",
    final_norm: "model.norm",
    head: "lm_head",
    layers: "model.layers.",
    attention_norm: "input_layernorm",
    attention: AttentionNames {
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
        output: "self_attn.o_proj",
    },
    mlp_norm: "post_attention_layernorm",
    mlp: MlpNames {
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
        down: "mlp.down_proj",
    },
};

const GGUF: Names = Names {
    embedding: "token_embd",
    final_norm: "output_norm",
    head: "output",
    layers: "blk.",
    attention_norm: "attn_norm",
    attention: AttentionNames {
        q: "attn_q",
        k: "attn_k",
        v: "attn_v",
        output: "attn_output",
    },
    mlp_norm: "ffn_norm",
    mlp: MlpNames {
        gate: "ffn_gate",
        up: "ffn_up",
        down: "ffn_down",
    },
};

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    rope_style: RopeStyle,
    embedding: Linear,
    layers: Vec<Layer>,
    final_norm: Buffer,
    /// `None`: the embedding is the head.
    head: Option<Linear>,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Buffer,
    attention: Attention,
    mlp_norm: Buffer,
    mlp: Mlp,
}

impl Model {
    /// Packs all weights for `device`. `dense`: store unquantized weights in this type instead
    /// of the checkpoint's.
    pub fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        numerics: Numerics,
        dense: Option<WeightType>,
    ) -> Result<Self, LoadError> {
        let config = checkpoint.config().clone();
        let is_gguf = checkpoint.gguf().is_some();
        let names = if is_gguf { &GGUF } else { &HUGGING_FACE };
        let weights = Weights::new(checkpoint, device, numerics, dense)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let head = (!config.tied_embeddings)
            .then(|| weights.matrix(names.head, vocab, hidden))
            .transpose()?;
        let embedding = weights.matrix(names.embedding, vocab, hidden)?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            // What is packed is not needed as it was stored: the peak stays near the result.
            checkpoint.drop_pages();
            layers.push(Layer::load(&weights, &config, names, layer)?);
        }
        let model = Self {
            rope_style: rope_style(is_gguf),
            embedding,
            layers,
            final_norm: weights.vector(&format!("{}.weight", names.final_norm), hidden)?,
            head,
            device: device.clone(),
            config,
        };
        weights.finish()?;
        checkpoint.drop_pages();
        Ok(model)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of packed weights.
    pub fn n_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::n_bytes).sum();
        let head = self.head.as_ref().map_or(0, Linear::n_bytes);
        self.embedding.n_bytes() + layers + 4 * self.final_norm.len() + head
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn rope_style(&self) -> RopeStyle {
        self.rope_style
    }

    /// Runs all layers over the rows of a step and leaves their final states in `normed`.
    pub(crate) fn forward(
        &self,
        tokens: &[u32],
        step: AttentionStep<'_>,
        kv: &mut KvCache,
        activations: &mut Activations,
    ) {
        let (device, a, eps) = (&self.device, activations, self.config.norm_eps);
        let n_rows = tokens.len();
        device.embed_into(&self.embedding, tokens, &mut a.residual);
        let first = &self.layers[0].attention_norm;
        device.rms_norm_into(&a.residual, first, eps, n_rows, &mut a.normed);
        for (i, layer) in self.layers.iter().enumerate() {
            layer.attention.forward(device, step, i, kv, a);
            // Adding to the stream and norming what comes next is one op.
            let add_and_norm = |a: &mut Activations, norm: &Buffer| {
                device.add_rms_norm_into(
                    &mut a.residual,
                    &a.block_out,
                    norm,
                    eps,
                    n_rows,
                    &mut a.normed,
                );
            };
            add_and_norm(a, &layer.mlp_norm);
            layer.mlp.forward(device, n_rows, a);
            let next = self.layers.get(i + 1);
            add_and_norm(
                a,
                next.map_or(&self.final_norm, |next| &next.attention_norm),
            );
        }
    }

    /// Logits of some rows of `normed`, at most `logits_rows`, into `logits`.
    pub(crate) fn logits(&self, rows: &[u32], activations: &mut Activations) {
        let a = activations;
        let width = self.config.hidden_size;
        self.device
            .gather_rows_into(&a.normed, width, rows, &mut a.gathered);
        let call = LinearCall {
            weight: self.head.as_ref().unwrap_or(&self.embedding),
            bias: None,
            out: &mut a.logits,
        };
        self.device
            .linear_into(&a.gathered, rows.len(), &mut [call]);
    }
}

impl Layer {
    fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        names: &Names,
        layer: usize,
    ) -> Result<Self, LoadError> {
        let prefix = format!("{}{layer}.", names.layers);
        let norm =
            |name: &str| weights.vector(&format!("{prefix}{name}.weight"), config.hidden_size);
        Ok(Self {
            attention_norm: norm(names.attention_norm)?,
            attention: Attention::load(weights, config, &prefix, &names.attention)?,
            mlp_norm: norm(names.mlp_norm)?,
            mlp: Mlp::load(weights, config, &prefix, &names.mlp)?,
        })
    }

    fn n_bytes(&self) -> usize {
        4 * (self.attention_norm.len() + self.mlp_norm.len())
            + self.attention.n_bytes()
            + self.mlp.n_bytes()
    }
}
