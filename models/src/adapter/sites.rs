//! Where adapters can change a model.
//!
//! A site is a call of linear layers that take one input: queries, keys and values are one site
//! of three outputs. Sites and norms are numbered by layer and kind, so that a model's parts and
//! an adapter agree without names.

use std::ops::Range;
use std::sync::Arc;

use kernels::{Buffer, Linear};

use crate::ModelConfig;
use crate::cut::Cut;
use crate::families::Qkv;
use crate::weights::Projection;

/// The head's site. Those of layers follow.
pub(crate) const HEAD: usize = 0;

// Sites of a layer. Latent attention enters its way down at `QKV`.
pub(crate) const QKV: usize = 0;
pub(crate) const Q_DOWN: usize = 1;
pub(crate) const Q_UP: usize = 2;
pub(crate) const KV_UP: usize = 3;
pub(crate) const OUTPUT: usize = 4;
pub(crate) const MLP_IN: usize = 5;
pub(crate) const SHARED_IN: usize = 7;
pub(crate) const ROUTER: usize = 9;
pub(crate) const SHARED_GATE: usize = 10;
const EXPERTS: usize = 11;

pub(crate) const FINAL_NORM: usize = 0;
pub(crate) const EMBEDDING_NORM: usize = 1;

// Norms of a layer.
pub(crate) const BEFORE_ATTENTION: usize = 0;
pub(crate) const AFTER_ATTENTION: usize = 1;
pub(crate) const BEFORE_MLP: usize = 2;
pub(crate) const AFTER_MLP: usize = 3;
pub(crate) const Q_NORM: usize = 4;
pub(crate) const K_NORM: usize = 5;
pub(crate) const LATENT_Q_NORM: usize = 6;
pub(crate) const LATENT_KV_NORM: usize = 7;
const NORMS: usize = 8;

/// The first site of a layer.
pub(crate) fn layer(config: &ModelConfig, layer: usize) -> usize {
    let n_experts = config.experts.as_ref().map_or(0, |e| e.routing.n_experts);
    1 + layer * expert(n_experts)
}

/// Where an expert's way in is among the sites of its layer; its way down is the next.
pub(crate) fn expert(expert: usize) -> usize {
    EXPERTS + 2 * expert
}

/// The number of a layer's norm.
pub(crate) fn norm(layer: usize, kind: usize) -> usize {
    2 + layer * NORMS + kind
}

/// The stored row of row `row` of queries (`part` 0), keys (1) or values (2).
pub(crate) fn qkv_row(config: &ModelConfig, qkv: Qkv, part: usize, row: usize) -> usize {
    let dim = config.head_dim;
    let (q_width, kv_width) = (config.n_heads * dim, config.n_kv_heads * dim);
    match qkv {
        Qkv::Separate(_) => row,
        Qkv::Stacked(_) => [0, q_width, q_width + kv_width][part] + row,
        Qkv::Grouped(_) => {
            let shared = config.n_heads / config.n_kv_heads;
            let (head, i) = (row / dim, row % dim);
            let (group, place) = match part {
                0 => (head / shared, head % shared),
                part => (head, shared + part - 1),
            };
            (group * (shared + 2) + place) * dim + i
        }
    }
}

/// What comes out of the matrices of latent attention.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LatentPart {
    Query,
    Narrow,
    KeyRope,
    Key,
    Value,
}

/// The stored row of row `row` of a part.
pub(crate) fn latent_row(config: &ModelConfig, part: LatentPart, row: usize) -> usize {
    let Some(latent) = config.attention.latent else {
        return row;
    };
    let head_dim = config.head_dim;
    let plain_dim = head_dim - latent.rope_dim;
    let kv_dim = plain_dim + latent.value_dim;
    match part {
        LatentPart::Query => {
            let (head, i) = (row / head_dim, row % head_dim);
            head * head_dim + (i + plain_dim) % head_dim
        }
        LatentPart::Narrow => row,
        LatentPart::KeyRope => latent.kv_rank + row,
        LatentPart::Key => row / plain_dim * kv_dim + row % plain_dim,
        LatentPart::Value => row / latent.value_dim * kv_dim + plain_dim + row % latent.value_dim,
    }
}

/// One layer of a site, as the model holds it.
#[derive(Clone, Debug)]
pub(crate) struct SiteLayer {
    pub(crate) weight: Arc<Linear>,
    pub(crate) bias: Option<Arc<Buffer>>,
    /// Which part of the layer this is; `None`: all of it.
    pub(crate) cut: Option<Cut>,
}

impl SiteLayer {
    /// Which of the layer's outputs is the first here.
    pub(crate) fn first_row(&self) -> usize {
        match &self.cut {
            Some(Cut::Outputs(rows)) => rows.start,
            Some(Cut::Inputs(_)) | None => 0,
        }
    }

    /// Which of the layer's inputs are those here.
    pub(crate) fn columns(&self) -> Range<usize> {
        match &self.cut {
            Some(Cut::Inputs(columns)) => columns.clone(),
            Some(Cut::Outputs(_)) | None => 0..self.weight.n_in(),
        }
    }

    /// Whether what is added to outputs is added here; parts of inputs are summed, and the first
    /// has it for all.
    pub(crate) fn adds_shifts(&self) -> bool {
        self.columns().start == 0
    }
}

/// The layers of all sites of a model, by number.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    layers: Vec<Vec<SiteLayer>>,
}

impl Sites {
    /// Enters the layers of a site, in the order of its call.
    pub(crate) fn enter<'a>(
        &mut self,
        site: usize,
        projections: impl IntoIterator<Item = &'a Projection>,
    ) {
        let layers = projections.into_iter().map(|projection| SiteLayer {
            weight: projection.weight.clone(),
            bias: projection.bias.clone(),
            cut: projection.cut.clone(),
        });
        self.enter_layers(site, layers.collect());
    }

    pub(crate) fn enter_layers(&mut self, site: usize, layers: Vec<SiteLayer>) {
        if self.layers.len() <= site {
            self.layers.resize_with(site + 1, Vec::new);
        }
        self.layers[site] = layers;
    }

    /// The layers of a site; empty when the model has no such site.
    pub(crate) fn layers(&self, site: usize) -> &[SiteLayer] {
        self.layers.get(site).map_or(&[], Vec::as_slice)
    }
}
