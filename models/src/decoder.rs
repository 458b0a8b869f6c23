//! A decoder: the one engine of all families.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::{Buffer, Device, KvCache, Linear, LinearCall, Numerics, WeightType};

use crate::activations::Activations;
use crate::adapter::AdapterRows;
use crate::adapter::sites::{self, SiteLayer, Sites};
use crate::attention::{Attention, AttentionStep};
use crate::config::Parallel;
use crate::experts::Experts;
use crate::mlp::Mlp;
use crate::norm::NormLayer;
use crate::shared::{SharedWeights, WeightKey};
use crate::weights::Weights;
use crate::{AdapterTarget, Checkpoint, LoadError, ModelConfig};

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    embedding: Arc<Linear>,
    embedding_norm: Option<NormLayer>,
    /// Learned vectors of positions.
    positions: Option<Arc<Linear>>,
    layers: Vec<Layer>,
    final_norm: NormLayer,
    /// `None`: the embedding is the head.
    head: Option<Arc<Linear>>,
    head_bias: Option<Arc<Buffer>>,
    adapter_target: AdapterTarget,
    widened_bytes: usize,
    matrices: Vec<(WeightKey, u64)>,
}

/// The tokens of a step's rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenRows<'a> {
    pub(crate) given: &'a [u32],
    /// See [`crate::step::Step::drawn`].
    pub(crate) drawn: &'a [Option<u32>],
    /// Rows of the table of learned positions.
    pub(crate) positions: &'a [u32],
}

/// How a model is packed.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    pub numerics: Numerics,
    /// Store unquantized weights in this type instead of the checkpoint's; a quantized type has
    /// exceptions, as in [`crate::convert`].
    pub dense: Option<WeightType>,
    /// Where models on this device find what others have packed already.
    pub shared: Option<&'a SharedWeights>,
}

/// Norms are where the family has them.
#[derive(Debug)]
struct Layer {
    before_attention: Option<NormLayer>,
    attention: Attention,
    after_attention: Option<NormLayer>,
    before_mlp: Option<NormLayer>,
    mlp: FeedForward,
    after_mlp: Option<NormLayer>,
}

#[derive(Debug)]
enum FeedForward {
    Mlp(Box<Mlp>),
    Experts(Box<Experts>),
}

impl Model {
    /// Packs all weights for `device`. `dense`: store unquantized weights in this type instead
    /// of the checkpoint's; a quantized type has exceptions, as in [`crate::convert`].
    pub fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        numerics: Numerics,
        dense: Option<WeightType>,
    ) -> Result<Self, LoadError> {
        let options = LoadOptions {
            numerics,
            dense,
            shared: None,
        };
        Self::load_with(checkpoint, device, options)
    }

    /// The same; matrices that another model in the pool has are not packed again.
    pub fn load_with(
        checkpoint: &Checkpoint,
        device: &Device,
        options: LoadOptions<'_>,
    ) -> Result<Self, LoadError> {
        let whole = checkpoint.config();
        let config = checkpoint.part_of(device.part().of)?;
        let names = checkpoint.tensor_map();
        let weights = Weights::new(checkpoint, device, names, options);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let norm = |name: &str, id| NormLayer::load(&weights, &config.norm, name, id, hidden);
        let head = (!config.logits.tied)
            .then(|| weights.matrix(names.head, vocab, hidden))
            .transpose()?;
        let head_bias = config
            .logits
            .bias
            .then(|| weights.vector(&format!("{}.bias", names.head), vocab))
            .transpose()?;
        let positions = config
            .embedding
            .positions_offset
            .map(|offset| weights.matrix(names.positions, config.max_positions + offset, hidden));
        let embedding_norm = config
            .embedding
            .norm
            .then(|| norm(names.embedding_norm, sites::EMBEDDING_NORM))
            .transpose()?;
        let final_norm = norm(names.final_norm, sites::FINAL_NORM)?;
        let embedding = weights.matrix(names.embedding, vocab, hidden)?;
        let mut layers = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            // What is packed is not needed as it was stored: the peak stays near the result.
            checkpoint.drop_pages();
            layers.push(Layer::load(&weights, whole, layer)?);
        }
        let mut norms = vec![&final_norm];
        norms.extend(&embedding_norm);
        let head_bias = head_bias.map(Arc::new);
        let head_layer = SiteLayer {
            weight: head.clone().unwrap_or_else(|| embedding.clone()),
            bias: head_bias.clone(),
            cut: None,
        };
        let (sites, norms) = describe(&layers, head_layer, norms);
        let adapter_target = AdapterTarget::new(checkpoint, device, sites, norms, &embedding);
        let model = Self {
            embedding,
            embedding_norm,
            positions: positions.transpose()?,
            layers,
            final_norm,
            head,
            head_bias,
            adapter_target,
            widened_bytes: weights.widened_bytes(),
            matrices: weights.matrices(),
            device: device.clone(),
            config,
        };
        weights.finish(model.config.n_layers)?;
        let checked = device.check_memory();
        checked.map_err(|error| LoadError::new(checkpoint.path(), error.to_string()))?;
        checkpoint.drop_pages();
        Ok(model)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of packed weights.
    pub fn n_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::n_bytes).sum();
        let tables = [
            Some(&*self.embedding),
            self.positions.as_deref(),
            self.head.as_deref(),
        ];
        let tables = tables
            .into_iter()
            .flatten()
            .map(Linear::n_bytes)
            .sum::<usize>();
        tables + layers + self.final_norm.n_bytes()
    }

    /// What adapters for this model are loaded against.
    pub fn adapter_target(&self) -> &AdapterTarget {
        &self.adapter_target
    }

    /// Bytes of weights that the checkpoint has in fewer bits, and that are held widened because
    /// no format of the kernels says the same exactly.
    pub fn widened_bytes(&self) -> usize {
        self.widened_bytes
    }

    /// Matrices that other models of its pool may have too, and their bytes; empty without a pool.
    pub fn matrices(&self) -> &[(WeightKey, u64)] {
        &self.matrices
    }

    /// What adapters are loaded against is all parts, this one being the first.
    pub(crate) fn join<'a>(&mut self, others: impl Iterator<Item = &'a Model>) {
        let others = others.map(|part| part.adapter_target.clone());
        self.adapter_target.join(others.collect());
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Runs all layers over the rows of a step and leaves their final states in `normed`.
    pub(crate) fn forward(
        &self,
        tokens: TokenRows<'_>,
        step: AttentionStep<'_>,
        kv: &mut KvCache,
        a: &mut Activations,
    ) {
        let n_rows = tokens.given.len();
        let device = &self.device;
        let adapters = step.adapters;
        self.embed(tokens, adapters, a);
        let first = self.layers[0].before_attention.as_ref();
        self.norm_residual(first, adapters, n_rows, a);
        for (i, layer) in self.layers.iter().enumerate() {
            layer.attention.forward(device, step, i, kv, a);
            self.sum_parts(n_rows, a);
            if let Some(norm) = &layer.after_attention {
                norm.in_place(device, adapters, &mut a.block_out, n_rows);
            }
            let before_mlp = layer.before_mlp.as_ref();
            match self.config.block.parallel {
                Parallel::No => self.add_and_norm(before_mlp, adapters, n_rows, a),
                // Both blocks see the stream as it was before either.
                Parallel::SharedNorm => self.add(n_rows, a),
                Parallel::OwnNorm => {
                    self.norm_residual(before_mlp, adapters, n_rows, a);
                    self.add(n_rows, a);
                }
            }
            layer.mlp.forward(device, adapters, n_rows, a);
            self.sum_parts(n_rows, a);
            if let Some(norm) = &layer.after_mlp {
                norm.in_place(device, adapters, &mut a.block_out, n_rows);
            }
            match self.layers.get(i + 1) {
                Some(next) => {
                    self.add_and_norm(next.before_attention.as_ref(), adapters, n_rows, a)
                }
                None => self.add_and_norm(Some(&self.final_norm), adapters, n_rows, a),
            }
        }
    }

    /// Tokens (and positions) to `residual`.
    fn embed(&self, rows: TokenRows<'_>, adapters: AdapterRows<'_>, a: &mut Activations) {
        let (device, tokens) = (&self.device, rows.given);
        let n_rows = tokens.len();
        let len = n_rows * self.config.hidden_size;
        if rows.drawn.is_empty() {
            device.embed_into(&self.embedding, tokens, &mut a.residual);
        } else {
            device.embed_drawn_into(&self.embedding, tokens, rows.drawn, &mut a.residual);
        }
        adapters.adapt_embedding(device, tokens, self.config.hidden_size, &mut a.residual);
        if self.config.embedding.scale != 1.0 {
            device.scale_softcap(&mut a.residual, self.config.embedding.scale, None, len);
        }
        if let Some(table) = &self.positions {
            device.embed_into(table, rows.positions, &mut a.block_out);
            device.add_scaled(&mut a.residual, &a.block_out, 1.0, len);
        }
        if let Some(norm) = &self.embedding_norm {
            norm.in_place(device, adapters, &mut a.residual, n_rows);
        }
    }

    /// `residual` to `normed`; without a norm, a copy.
    fn norm_residual(
        &self,
        norm: Option<&NormLayer>,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        match norm {
            Some(norm) => norm.forward(&self.device, adapters, &a.residual, n_rows, &mut a.normed),
            None => {
                let len = n_rows * self.config.hidden_size;
                self.device.copy(&a.residual, len, &mut a.normed);
            }
        }
    }

    /// Makes `block_out` what the parts of a block on all devices give together.
    fn sum_parts(&self, n_rows: usize, a: &mut Activations) {
        let len = n_rows * self.config.hidden_size;
        self.device.sum_parts(&mut a.block_out, len, &mut a.parts);
    }

    /// Adds `block_out` to the stream.
    fn add(&self, n_rows: usize, a: &mut Activations) {
        let len = n_rows * self.config.hidden_size;
        let scale = self.config.block.residual_scale;
        self.device
            .add_scaled(&mut a.residual, &a.block_out, scale, len);
    }

    /// Adding to the stream and norming what comes next is one op where there is a norm.
    fn add_and_norm(
        &self,
        norm: Option<&NormLayer>,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        let Some(norm) = norm else {
            self.add(n_rows, a);
            return self.norm_residual(None, adapters, n_rows, a);
        };
        let added = (&a.block_out, self.config.block.residual_scale);
        norm.add(
            &self.device,
            adapters,
            &mut a.residual,
            added,
            n_rows,
            &mut a.normed,
        );
    }

    /// Logits of some rows of `normed`, at most `logits_rows`, into `logits`.
    pub(crate) fn logits(
        &self,
        rows: &[u32],
        adapters: AdapterRows<'_>,
        activations: &mut Activations,
    ) {
        let a = activations;
        let width = self.config.hidden_size;
        let logits = &self.config.logits;
        self.device
            .gather_rows_into(&a.normed, width, rows, &mut a.gathered);
        let call = LinearCall {
            weight: self.head.as_ref().unwrap_or(&self.embedding),
            bias: self.head_bias.as_deref(),
            out: &mut a.logits,
        };
        adapters.of_rows(rows, &mut a.logits_groups).linear_into(
            &self.device,
            &a.gathered,
            rows.len(),
            sites::HEAD,
            &mut [call],
        );
        if logits.scale != 1.0 || logits.softcap.is_some() {
            let len = rows.len() * self.config.vocab_size;
            self.device
                .scale_softcap(&mut a.logits, logits.scale, logits.softcap, len);
        }
    }
}

/// Weight and bias of norms, by number.
type NormValues = BTreeMap<usize, (Vec<f32>, Option<Vec<f32>>)>;

/// What adapters can change, by number: sites, and the norms of layers beside `norms`.
fn describe<'a>(
    layers: &'a [Layer],
    head: SiteLayer,
    mut norms: Vec<&'a NormLayer>,
) -> (Sites, NormValues) {
    let mut sites = Sites::default();
    sites.enter_layers(sites::HEAD, vec![head]);
    for layer in layers {
        layer.attention.enter_sites(&mut sites);
        match &layer.mlp {
            FeedForward::Mlp(mlp) => mlp.enter_sites(&mut sites),
            FeedForward::Experts(experts) => experts.enter_sites(&mut sites),
        }
        norms.extend(&layer.before_attention);
        norms.extend(&layer.after_attention);
        norms.extend(&layer.before_mlp);
        norms.extend(&layer.after_mlp);
        norms.extend(layer.attention.norms());
    }
    let values = norms.iter().map(|norm| (norm.id(), norm.values()));
    (sites, values.collect())
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &ModelConfig, layer: usize) -> Result<Self, LoadError> {
        let names = weights.names();
        let prefix = format!("{}{layer}.", names.layers);
        let (block, hidden) = (&config.block, config.hidden_size);
        let norm = |is_there: bool, name: &str, kind| {
            let name = format!("{prefix}{name}");
            let id = sites::norm(layer, kind);
            let load = || NormLayer::load(weights, &config.norm, &name, id, hidden);
            is_there.then(load).transpose()
        };
        let own_norm = block.norm_before && block.parallel != Parallel::SharedNorm;
        Ok(Self {
            before_attention: norm(
                block.norm_before,
                names.norms.before_attention,
                sites::BEFORE_ATTENTION,
            )?,
            attention: Attention::load(weights, config, &prefix, layer)?,
            after_attention: norm(
                block.norm_after,
                names.norms.after_attention,
                sites::AFTER_ATTENTION,
            )?,
            before_mlp: norm(own_norm, names.norms.before_mlp, sites::BEFORE_MLP)?,
            mlp: FeedForward::load(weights, config, &prefix, layer)?,
            after_mlp: norm(block.norm_after, names.norms.after_mlp, sites::AFTER_MLP)?,
        })
    }

    fn n_bytes(&self) -> usize {
        let norms = [
            &self.before_attention,
            &self.after_attention,
            &self.before_mlp,
            &self.after_mlp,
        ];
        let norms: usize = norms.into_iter().flatten().map(NormLayer::n_bytes).sum();
        norms + self.attention.n_bytes() + self.mlp.n_bytes()
    }
}

impl FeedForward {
    fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        prefix: &str,
        layer: usize,
    ) -> Result<Self, LoadError> {
        if let Some(experts) = &config.experts
            && config.layers[layer].experts
        {
            let experts = Experts::load(weights, config, experts, prefix, layer)?;
            return Ok(Self::Experts(Box::new(experts)));
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mlp = Mlp::load(
            weights,
            &config.mlp,
            hidden,
            inner,
            prefix,
            sites::layer(config, layer) + sites::MLP_IN,
        )?;
        Ok(Self::Mlp(Box::new(mlp)))
    }

    /// From `normed` to `block_out`.
    fn forward(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        match self {
            Self::Mlp(mlp) => {
                mlp.forward(
                    device,
                    adapters,
                    &a.normed,
                    n_rows,
                    &mut a.inner,
                    &mut a.block_out,
                );
            }
            Self::Experts(experts) => experts.forward(device, adapters, n_rows, a),
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::Mlp(mlp) => mlp.n_bytes(),
            Self::Experts(experts) => experts.n_bytes(),
        }
    }
}
