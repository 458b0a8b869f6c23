//! Which GGUF tensors a checkpoint becomes, and where their rows come from.
//!
//! Both containers have a table of names ([`Names`]); what stands for the same thing in both is
//! moved from one to the other. What differs beyond names: rows of queries and keys whose
//! rotated pairs are laid side by side, heads whose queries, keys and values lie together,
//! matrices stored transposed, norms stored as their difference from one, and experts that are
//! tensors of their own.

use kernels::{RopeStyle, WeightType};

use super::rows::{Place, Planned, Rows};
use super::rules::{role_of, type_for};
use crate::checkpoint::Tensor;
use crate::config::{NormWeight, Parallel, QkNorm};
use crate::families::{ExpertStorage, MlpIn, Names, Qkv};
use crate::lookup::Lookup;
use crate::{Checkpoint, LoadError, ModelConfig};

/// Everything that plans have to know.
pub(super) struct Planner<'a> {
    pub(super) lookup: Lookup<'a>,
    pub(super) config: &'a ModelConfig,
    pub(super) from: &'static Names,
    pub(super) to: &'static Names,
    /// How the GGUF architecture rotates.
    pub(super) style: RopeStyle,
    pub(super) ty: WeightType,
    pub(super) n_threads: usize,
    pub(super) planned: Vec<Planned<'a>>,
}

/// Plans all tensors of a checkpoint in Hugging Face layout.
pub(super) fn plan<'a>(
    checkpoint: &'a Checkpoint,
    to: &'static Names,
    style: RopeStyle,
    ty: WeightType,
    n_threads: usize,
) -> Result<Vec<Planned<'a>>, LoadError> {
    let from = checkpoint.tensor_map();
    let config = checkpoint.config();
    let mut planner = Planner {
        lookup: Lookup::new(checkpoint, from),
        config,
        from,
        to,
        style,
        ty,
        n_threads,
        planned: Vec::new(),
    };
    planner.tables()?;
    for layer in 0..config.n_layers {
        planner.layer(layer)?;
    }
    planner.lookup.finish(config.n_layers)?;
    Ok(planner.planned)
}

impl<'a> Planner<'a> {
    /// Plans a tensor whose rows are already known.
    pub(super) fn push(&mut self, name: String, shape: &[usize], rows: Rows<'a>) {
        let role = role_of(&name, shape);
        let stored = rows.tensors[0].ty;
        self.planned.push(Planned {
            ty: type_for(self.ty, role, rows.n_in, stored),
            name,
            shape: shape.to_vec(),
            rows,
            n_threads: self.n_threads,
        });
    }

    /// A vector, the same but for `plus`.
    pub(super) fn vector(
        &mut self,
        from: &str,
        to: String,
        len: usize,
        plus: f32,
    ) -> Result<(), LoadError> {
        let tensor = self.lookup.tensor(from, &[len])?;
        let rows = Rows {
            plus,
            ..Rows::of(tensor, len)
        };
        self.push(to, &[len], rows);
        Ok(())
    }

    /// A matrix, rows in order `row`, stored transposed if layers' matrices are.
    fn matrix(
        &mut self,
        from: &str,
        to: String,
        shape: [usize; 2],
        transposed: bool,
        row: impl Fn(usize) -> usize + Send + Sync + 'a,
    ) -> Result<(), LoadError> {
        let [n_out, n_in] = shape;
        let stored = if transposed { [n_in, n_out] } else { shape };
        let tensor = self.lookup.tensor(from, &stored)?;
        let rows = Rows {
            n_in,
            tensors: vec![tensor],
            pick: Box::new(move |i| {
                let (start, stride) = if transposed {
                    (row(i), n_out)
                } else {
                    (row(i) * n_in, 1)
                };
                Place {
                    tensor: 0,
                    start,
                    stride,
                }
            }),
            plus: 0.0,
        };
        self.push(to, &shape, rows);
        Ok(())
    }

    /// A linear layer: matrix, and bias if it has one.
    pub(super) fn linear(
        &mut self,
        from: &str,
        to: &str,
        shape: [usize; 2],
        has_bias: bool,
        row: impl Fn(usize) -> usize + Copy + Send + Sync + 'a,
    ) -> Result<(), LoadError> {
        let transposed = self.from.transposed;
        let name = format!("{from}.weight");
        self.matrix(&name, format!("{to}.weight"), shape, transposed, row)?;
        if has_bias {
            let name = format!("{from}.bias");
            let tensor = self.lookup.tensor(&name, &[shape[0]])?;
            let rows = Rows {
                // As rows of one value, so that they can be put in order.
                n_in: 1,
                tensors: vec![tensor],
                pick: Box::new(move |i| Place {
                    tensor: 0,
                    start: row(i),
                    stride: 1,
                }),
                plus: 0.0,
            };
            self.push(format!("{to}.bias"), &[shape[0]], rows);
        }
        Ok(())
    }

    /// A norm, if the model stores any.
    pub(super) fn norm(&mut self, from: &str, to: &str, len: usize) -> Result<(), LoadError> {
        let plus = match self.config.norm.weight {
            NormWeight::Ones => return Ok(()),
            NormWeight::Stored => 0.0,
            NormWeight::PlusOne => 1.0,
        };
        self.vector(&format!("{from}.weight"), format!("{to}.weight"), len, plus)?;
        if self.config.norm.bias {
            self.vector(&format!("{from}.bias"), format!("{to}.bias"), len, 0.0)?;
        }
        Ok(())
    }

    fn tables(&mut self) -> Result<(), LoadError> {
        let (config, from, to) = (self.config, self.from, self.to);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let mut table = |from: &str, to: &str, shape| {
            let (from, to) = (format!("{from}.weight"), format!("{to}.weight"));
            self.matrix(&from, to, shape, false, |row| row)
        };
        table(from.embedding, to.embedding, [vocab, hidden])?;
        if let Some(offset) = config.embedding.positions_offset {
            let shape = [config.max_positions + offset, hidden];
            table(from.positions, to.positions, shape)?;
        }
        if !config.logits.tied {
            table(from.head, to.head, [vocab, hidden])?;
        }
        if config.logits.bias {
            let (from, to) = (from.head, to.head);
            self.vector(&format!("{from}.bias"), format!("{to}.bias"), vocab, 0.0)?;
        }
        if config.embedding.norm {
            self.norm(from.embedding_norm, to.embedding_norm, hidden)?;
        }
        self.norm(from.final_norm, to.final_norm, hidden)
    }

    fn layer(&mut self, layer: usize) -> Result<(), LoadError> {
        let (config, from, to) = (self.config, self.from, self.to);
        let (block, hidden) = (&config.block, config.hidden_size);
        let own_norm = block.norm_before && block.parallel != Parallel::SharedNorm;
        let norms = [
            (
                block.norm_before,
                from.norms.before_attention,
                to.norms.before_attention,
            ),
            (
                block.norm_after,
                from.norms.after_attention,
                to.norms.after_attention,
            ),
            (own_norm, from.norms.before_mlp, to.norms.before_mlp),
            (block.norm_after, from.norms.after_mlp, to.norms.after_mlp),
        ];
        let old = format!("{}{layer}.", from.layers);
        let new = format!("{}{layer}.", to.layers);
        for (is_there, from, to) in norms {
            if is_there {
                self.norm(&format!("{old}{from}"), &format!("{new}{to}"), hidden)?;
            }
        }
        self.attention(&old, &new)?;
        if config.experts.is_some() && config.layers[layer].experts {
            return self.experts(&old, &new);
        }
        self.mlp(&old, &new)
    }

    fn attention(&mut self, old: &str, new: &str) -> Result<(), LoadError> {
        let (config, from, to) = (self.config, self.from, self.to);
        let attention = &config.attention;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (q, kv) = (config.n_heads * dim, config.n_kv_heads * dim);
        let output_in = match attention.latent {
            Some(latent) => {
                self.latent(old, new)?;
                config.n_heads * latent.value_dim
            }
            None => {
                self.qkv(old, new)?;
                q
            }
        };
        let qk_norms = match attention.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some([dim, dim]),
            QkNorm::Whole => Some([q, kv]),
        };
        if let Some([q, k]) = qk_norms {
            self.norm(
                &format!("{old}{}", from.q_norm),
                &format!("{new}{}", to.q_norm),
                q,
            )?;
            self.norm(
                &format!("{old}{}", from.k_norm),
                &format!("{new}{}", to.k_norm),
                k,
            )?;
        }
        if attention.sinks {
            let (from, to) = (format!("{old}{}", from.sinks), format!("{new}{}", to.sinks));
            self.vector(&from, to, config.n_heads, 0.0)?;
        }
        let (from, to) = (
            format!("{old}{}", from.output),
            format!("{new}{}", to.output),
        );
        self.linear(
            &from,
            &to,
            [hidden, output_in],
            attention.output_bias,
            |row| row,
        )
    }

    fn qkv(&mut self, old: &str, new: &str) -> Result<(), LoadError> {
        let config = self.config;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (q, kv) = (config.n_heads * dim, config.n_kv_heads * dim);
        let bias = config.attention.qkv_bias;
        match (self.from.qkv, self.to.qkv) {
            (Qkv::Separate(from), Qkv::Separate(to)) => {
                // Two halves of a head become pairs side by side.
                let permutes = self.style != config.attention.rope_style;
                for (i, n_out) in [q, kv, kv].into_iter().enumerate() {
                    let (from, to) = (format!("{old}{}", from[i]), format!("{new}{}", to[i]));
                    let permutes = permutes && i < 2;
                    let row = move |row| if permutes { paired(dim, row) } else { row };
                    self.linear(&from, &to, [n_out, hidden], bias, row)?;
                }
                Ok(())
            }
            (Qkv::Stacked(from), Qkv::Stacked(to)) => {
                let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
                self.linear(&from, &to, [q + 2 * kv, hidden], bias, |row| row)
            }
            (Qkv::Grouped(from), Qkv::Stacked(to)) => {
                let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
                let (n_heads, n_kv) = (config.n_heads, config.n_kv_heads);
                let row = move |row| dealt(n_heads, n_kv, dim, row);
                self.linear(&from, &to, [q + 2 * kv, hidden], bias, row)
            }
            (from, to) => Err(self.lookup.error(format!("{from:?} has no form as {to:?}"))),
        }
    }

    fn mlp(&mut self, old: &str, new: &str) -> Result<(), LoadError> {
        let config = self.config;
        let (hidden, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp.bias,
        );
        match (self.from.mlp_in, self.to.mlp_in) {
            (MlpIn::Separate(from), MlpIn::Separate(to)) => {
                let first = usize::from(!config.mlp.gated);
                for (from, to) in from.into_iter().zip(to).skip(first) {
                    let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
                    self.linear(&from, &to, [inner, hidden], bias, |row| row)?;
                }
            }
            (MlpIn::Stacked(from), MlpIn::Stacked(to)) => {
                let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
                self.linear(&from, &to, [2 * inner, hidden], bias, |row| row)?;
            }
            (from, to) => {
                return Err(self.lookup.error(format!("{from:?} has no form as {to:?}")));
            }
        }
        let from = format!("{old}{}", self.from.mlp_down);
        let to = format!("{new}{}", self.to.mlp_down);
        self.linear(&from, &to, [hidden, inner], bias, |row| row)
    }

    /// Names of the three stacked tensors of experts.
    pub(super) fn stacked_names(&self) -> Result<[&'static str; 3], LoadError> {
        match self.to.experts.storage {
            ExpertStorage::Stacked(names) => Ok(names),
            other => Err(self.lookup.error(format!("no GGUF form as {other:?}"))),
        }
    }

    /// Tensors that are rows of one, one after the other.
    pub(super) fn joined(
        &mut self,
        to: String,
        shape: &[usize],
        tensors: Vec<Tensor<'a>>,
        n_each: usize,
    ) {
        let n_in = shape.last().copied().unwrap_or(1);
        let rows = Rows {
            n_in,
            tensors,
            pick: Box::new(move |row| Place {
                tensor: row / n_each,
                start: row % n_each * n_in,
                stride: 1,
            }),
            plus: 0.0,
        };
        self.push(to, shape, rows);
    }
}

/// Puts the two values of each rotated pair side by side: where row `row` comes from.
fn paired(head_dim: usize, row: usize) -> usize {
    let (head, place) = (row / head_dim, row % head_dim);
    head * head_dim + place % 2 * (head_dim / 2) + place / 2
}

/// Where row `row` of all queries, all keys, all values is when they lie together by key-value
/// head.
fn dealt(n_heads: usize, n_kv: usize, dim: usize, row: usize) -> usize {
    let shared = n_heads / n_kv;
    let (head, i) = (row / dim, row % dim);
    let (group, place) = match head.checked_sub(n_heads) {
        None => (head / shared, head % shared),
        Some(kv) => (kv % n_kv, shared + kv / n_kv),
    };
    (group * (shared + 2) + place) * dim + i
}
