//! A model's modules by the names that adapter files use.
//!
//! An adapter may come in another container than the model: names are those of the adapter's,
//! and rows are brought into the order of the model's.

use std::collections::BTreeMap;

use super::sites::{self, LatentPart, latent_row, qkv_row};
use crate::ModelConfig;
use crate::config::Parallel;
use crate::families::{ExpertStorage, MlpIn, Names, Qkv};

/// Something in a model that an adapter can change.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) layer: Option<usize>,
    pub(crate) kind: ModuleKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ModuleKind {
    Linear(LinearModule),
    /// The norm of this number.
    Norm(usize),
    Embedding,
}

/// A matrix as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct LinearModule {
    pub(crate) site: usize,
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    /// Stored `[n_in, n_out]`.
    pub(crate) transposed: bool,
    pub(crate) parts: Vec<Part>,
}

/// One layer of a site, taken out of a stored matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Index of the layer in its site.
    pub(crate) output: usize,
    rows: Rows,
    order: Order,
}

/// Which rows of a stored matrix a layer takes.
#[derive(Clone, Copy, Debug)]
enum Rows {
    /// All from this one on.
    From(usize),
    /// Queries, keys or values.
    Qkv(Qkv, usize),
    Latent(LatentPart),
}

/// How values of query and key heads are ordered in an adapter's file, seen from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Same,
    /// The model has rotated pairs side by side, the file in halves.
    Halves,
}

impl Order {
    /// Where row `row` of the model is in the file.
    fn row(self, dim: usize, row: usize) -> usize {
        let (head, i, half) = (row / dim * dim, row % dim, dim / 2);
        match self {
            Self::Same => row,
            Self::Halves => head + i % 2 * half + i / 2,
        }
    }
}

impl Part {
    fn all(output: usize) -> Self {
        Self {
            output,
            rows: Rows::From(0),
            order: Order::Same,
        }
    }

    /// The stored row of the layer's row `row`.
    pub(crate) fn row(&self, config: &ModelConfig, row: usize) -> usize {
        let row = self.order.row(config.head_dim, row);
        match self.rows {
            Rows::From(first) => first + row,
            Rows::Qkv(qkv, part) => qkv_row(config, qkv, part, row),
            Rows::Latent(part) => latent_row(config, part, row),
        }
    }
}

/// All modules of a model under the names of one container.
pub(crate) fn modules(
    config: &ModelConfig,
    names: &Names,
    order: Order,
) -> BTreeMap<String, Module> {
    let mut all = Collector {
        config,
        names,
        order,
        layer: None,
        prefix: String::new(),
        modules: BTreeMap::new(),
    };
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    all.put(names.embedding, ModuleKind::Embedding);
    all.linear(names.head, sites::HEAD, [vocab, hidden], vec![Part::all(0)]);
    all.put(names.final_norm, ModuleKind::Norm(sites::FINAL_NORM));
    if config.embedding.norm {
        all.put(
            names.embedding_norm,
            ModuleKind::Norm(sites::EMBEDDING_NORM),
        );
    }
    for layer in 0..config.n_layers {
        all.layer = Some(layer);
        all.prefix = format!("{}{layer}.", names.layers);
        all.attention(sites::layer(config, layer));
        all.feed_forward(layer, sites::layer(config, layer));
        all.norms(layer);
    }
    all.modules
}

struct Collector<'a> {
    config: &'a ModelConfig,
    names: &'a Names,
    order: Order,
    layer: Option<usize>,
    prefix: String,
    modules: BTreeMap<String, Module>,
}

impl Collector<'_> {
    /// An empty name stands for what the family does not have.
    fn put(&mut self, name: &str, kind: ModuleKind) {
        if !name.is_empty() {
            let layer = self.layer;
            let module = Module { layer, kind };
            self.modules
                .insert(format!("{}{name}", self.prefix), module);
        }
    }

    fn linear(&mut self, name: &str, site: usize, [n_out, n_in]: [usize; 2], parts: Vec<Part>) {
        let module = LinearModule {
            site,
            n_out,
            n_in,
            transposed: self.layer.is_some() && self.names.transposed,
            parts,
        };
        self.put(name, ModuleKind::Linear(module));
    }

    fn attention(&mut self, site: usize) {
        let config = self.config;
        let hidden = config.hidden_size;
        let q_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        let output_in = match config.attention.latent {
            Some(latent) => config.n_heads * latent.value_dim,
            None => q_width,
        };
        let output = self.names.output;
        let part = Part::all(0);
        self.linear(
            output,
            site + sites::OUTPUT,
            [hidden, output_in],
            vec![part],
        );
        if config.attention.latent.is_some() {
            return self.latent_attention(site);
        }
        let qkv = self.names.qkv;
        let part = |i: usize| Part {
            output: i,
            rows: Rows::Qkv(qkv, i),
            order: if i < 2 { self.order } else { Order::Same },
        };
        let parts = [part(0), part(1), part(2)];
        let site = site + sites::QKV;
        match qkv {
            Qkv::Separate(names) => {
                let widths = [q_width, kv_width, kv_width];
                for ((name, width), part) in names.into_iter().zip(widths).zip(parts) {
                    self.linear(name, site, [width, hidden], vec![part]);
                }
            }
            Qkv::Stacked(name) | Qkv::Grouped(name) => {
                let shape = [q_width + 2 * kv_width, hidden];
                self.linear(name, site, shape, parts.into());
            }
        }
    }

    fn latent_attention(&mut self, site: usize) {
        let config = self.config;
        let (hidden, heads) = (config.hidden_size, config.n_heads);
        let latent = config.attention.latent.expect("asked for before");
        let part = |output, part| Part {
            output,
            rows: Rows::Latent(part),
            order: Order::Same,
        };
        let query = vec![part(0, LatentPart::Query)];
        let q_width = heads * config.head_dim;
        let q_up = site + sites::Q_UP;
        match latent.q_rank {
            None => self.linear("self_attn.q_proj", q_up, [q_width, hidden], query),
            Some(rank) => {
                let down = site + sites::Q_DOWN;
                let all = vec![Part::all(0)];
                self.linear("self_attn.q_a_proj", down, [rank, hidden], all);
                self.linear("self_attn.q_b_proj", q_up, [q_width, rank], query);
            }
        }
        let down = [part(0, LatentPart::Narrow), part(1, LatentPart::KeyRope)];
        let shape = [latent.kv_rank + latent.rope_dim, hidden];
        let name = "self_attn.kv_a_proj_with_mqa";
        self.linear(name, site + sites::QKV, shape, down.into());
        let up = [part(0, LatentPart::Key), part(1, LatentPart::Value)];
        let width = heads * (config.head_dim - latent.rope_dim + latent.value_dim);
        let shape = [width, latent.kv_rank];
        self.linear("self_attn.kv_b_proj", site + sites::KV_UP, shape, up.into());
    }

    fn feed_forward(&mut self, layer: usize, site: usize) {
        let config = self.config;
        if config.experts.is_some() && config.layers[layer].experts {
            return self.experts(site);
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let into = site + sites::MLP_IN;
        match self.names.mlp_in {
            MlpIn::Separate([gate, up]) => {
                let gated = config.mlp.gated;
                if gated {
                    self.linear(gate, into, [inner, hidden], vec![Part::all(0)]);
                }
                let part = Part::all(usize::from(gated));
                self.linear(up, into, [inner, hidden], vec![part]);
            }
            MlpIn::Stacked(name) => {
                let up = Part {
                    rows: Rows::From(inner),
                    ..Part::all(1)
                };
                let parts = vec![Part::all(0), up];
                self.linear(name, into, [2 * inner, hidden], parts);
            }
        }
        let down = self.names.mlp_down;
        self.linear(down, into + 1, [hidden, inner], vec![Part::all(0)]);
    }

    fn experts(&mut self, site: usize) {
        let (hidden, names) = (self.config.hidden_size, &self.names.experts);
        let Some(experts) = &self.config.experts else {
            return;
        };
        let one = || vec![Part::all(0)];
        let n_experts = experts.routing.n_experts;
        let router = site + sites::ROUTER;
        self.linear(names.router, router, [n_experts, hidden], one());
        let mut block = |names: [&str; 3], site: usize, inner: usize| {
            let [gate, up, down] = names;
            self.linear(gate, site, [inner, hidden], one());
            self.linear(up, site, [inner, hidden], vec![Part::all(1)]);
            self.linear(down, site + 1, [hidden, inner], one());
        };
        // Experts that are stored in one tensor are no modules of their own.
        if let ExpertStorage::Separate(before, [gate, up, down]) = names.storage {
            for expert in 0..n_experts {
                let name = |name: &str| format!("{before}{expert}.{name}");
                let names = [&*name(gate), &*name(up), &*name(down)];
                let site = site + sites::expert(expert);
                block(names, site, experts.intermediate_size);
            }
        }
        if let Some(shared) = experts.shared {
            let into = site + sites::SHARED_IN;
            block(names.shared, into, shared.intermediate_size);
            if shared.gated {
                let gate = site + sites::SHARED_GATE;
                self.linear(names.shared_gate, gate, [1, hidden], one());
            }
        }
    }

    fn norms(&mut self, layer: usize) {
        let (config, names) = (self.config, self.names);
        let block = &config.block;
        let own = block.norm_before && block.parallel != Parallel::SharedNorm;
        let of_blocks = [
            (
                block.norm_before,
                names.norms.before_attention,
                sites::BEFORE_ATTENTION,
            ),
            (
                block.norm_after,
                names.norms.after_attention,
                sites::AFTER_ATTENTION,
            ),
            (own, names.norms.before_mlp, sites::BEFORE_MLP),
            (block.norm_after, names.norms.after_mlp, sites::AFTER_MLP),
        ];
        // Weights over whole projections would have to be brought into order with their rows.
        let has_own = match config.attention.qk_norm {
            crate::config::QkNorm::None => false,
            _ => self.order == Order::Same,
        };
        let of_heads = [
            (has_own, names.q_norm, sites::Q_NORM),
            (has_own, names.k_norm, sites::K_NORM),
        ];
        for (is_there, name, kind) in of_blocks.into_iter().chain(of_heads) {
            if is_there {
                self.put(name, ModuleKind::Norm(sites::norm(layer, kind)));
            }
        }
        if let Some(latent) = config.attention.latent {
            let kind = |kind| ModuleKind::Norm(sites::norm(layer, kind));
            self.put("self_attn.kv_a_layernorm", kind(sites::LATENT_KV_NORM));
            if latent.q_rank.is_some() {
                self.put("self_attn.q_a_layernorm", kind(sites::LATENT_Q_NORM));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_pairs() {
        let halves: Vec<usize> = (0..16).map(|row| Order::Halves.row(8, row)).collect();
        assert_eq!(halves[..8], [0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!(halves[8..10], [8, 12]);
        assert_eq!(Order::Same.row(8, 5), 5);
    }
}
