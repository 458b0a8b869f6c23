//! Plans for mixtures of experts and for latent attention.

use super::plan::Planner;
use super::rows::{Place, Rows};
use crate::LoadError;
use crate::config::ExpertsConfig;
use crate::families::ExpertStorage;

impl Planner<'_> {
    pub(super) fn experts(&mut self, old: &str, new: &str) -> Result<(), LoadError> {
        let config = self.config;
        let hidden = config.hidden_size;
        let Some(experts) = &config.experts else {
            return Ok(());
        };
        let (from, to) = (self.from.experts, self.to.experts);
        let n_experts = experts.routing.n_experts;
        let (router, new_router) = (
            format!("{old}{}", from.router),
            format!("{new}{}", to.router),
        );
        let shape = [n_experts, hidden];
        self.linear(&router, &new_router, shape, experts.router_bias, |row| row)?;
        if experts.correction_bias {
            let name = format!("{new}{}", to.correction_bias);
            self.vector(
                &format!("{old}{}", from.correction_bias),
                name,
                n_experts,
                0.0,
            )?;
        }
        match from.storage {
            ExpertStorage::Separate(before, names) => {
                self.separate_experts(experts, &format!("{old}{before}"), names, new)?;
            }
            ExpertStorage::Interleaved(names) => {
                self.interleaved_experts(experts, old, names, new)?;
            }
            ExpertStorage::Stacked(_) => {
                return Err(self.lookup.error("stacked experts have no such plan"));
            }
        }
        let Some(shared) = experts.shared else {
            return Ok(());
        };
        let inner = shared.intermediate_size;
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        for ((from, to), shape) in from.shared.into_iter().zip(to.shared).zip(shapes) {
            let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
            self.linear(&from, &to, shape, false, |row| row)?;
        }
        if shared.gated {
            // One row: a vector in GGUF.
            let name = format!("{old}{}.weight", from.shared_gate);
            let tensor = self.lookup.tensor(&name, &[1, hidden])?;
            let name = format!("{new}{}.weight", to.shared_gate);
            self.push(name, &[hidden], Rows::of(tensor, hidden));
        }
        Ok(())
    }

    fn separate_experts(
        &mut self,
        experts: &ExpertsConfig,
        before: &str,
        names: [&str; 3],
        new: &str,
    ) -> Result<(), LoadError> {
        let (hidden, inner) = (self.config.hidden_size, experts.intermediate_size);
        let n_experts = experts.routing.n_experts;
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        let stacked = self.stacked_names()?;
        for ((name, to), shape) in names.into_iter().zip(stacked).zip(shapes) {
            let tensor = |expert: usize, end: &str, shape: &[usize]| {
                let name = format!("{before}{expert}.{name}.{end}");
                self.lookup.tensor(&name, shape)
            };
            let matrices = (0..n_experts)
                .map(|expert| tensor(expert, "weight", &shape))
                .collect::<Result<_, _>>()?;
            let biases = if experts.bias {
                (0..n_experts)
                    .map(|expert| tensor(expert, "bias", &shape[..1]))
                    .collect::<Result<_, _>>()?
            } else {
                Vec::new()
            };
            let [n_out, n_in] = shape;
            let name = format!("{new}{to}");
            self.joined(
                format!("{name}.weight"),
                &[n_experts, n_out, n_in],
                matrices,
                n_out,
            );
            if experts.bias {
                self.joined(format!("{name}.bias"), &[n_experts, n_out], biases, 1);
            }
        }
        Ok(())
    }

    /// Gate and up in alternating columns of one tensor, all transposed.
    fn interleaved_experts(
        &mut self,
        experts: &ExpertsConfig,
        old: &str,
        names: [&str; 2],
        new: &str,
    ) -> Result<(), LoadError> {
        let (hidden, inner) = (self.config.hidden_size, experts.intermediate_size);
        let n_experts = experts.routing.n_experts;
        let [gate_up, down] = names.map(|name| format!("{old}{name}"));
        let pieces = [
            (&gate_up, inner, hidden, 2, 0),
            (&gate_up, inner, hidden, 2, 1),
            (&down, hidden, inner, 1, 0),
        ];
        let stacked = self.stacked_names()?;
        for ((name, n_out, n_in, step, first), to) in pieces.into_iter().zip(stacked) {
            let n_columns = n_out * step;
            let tensor = self.lookup.tensor(name, &[n_experts, n_in, n_columns])?;
            let column = move |row: usize| row % n_out * step + first;
            let rows = Rows {
                n_in,
                tensors: vec![tensor],
                pick: Box::new(move |row| Place {
                    tensor: 0,
                    start: row / n_out * n_in * n_columns + column(row),
                    stride: n_columns,
                }),
                plus: 0.0,
            };
            self.push(format!("{new}{to}.weight"), &[n_experts, n_out, n_in], rows);
            if experts.bias {
                let name = format!("{name}_bias");
                let tensor = self.lookup.tensor(&name, &[n_experts, n_columns])?;
                let rows = Rows {
                    n_in: 1,
                    tensors: vec![tensor],
                    pick: Box::new(move |row| Place {
                        tensor: 0,
                        start: row / n_out * n_columns + column(row),
                        stride: 1,
                    }),
                    plus: 0.0,
                };
                self.push(format!("{new}{to}.bias"), &[n_experts, n_out], rows);
            }
        }
        Ok(())
    }

    /// In the form of heads as they are computed, which llama.cpp reads beside the turned one.
    pub(super) fn latent(&mut self, old: &str, new: &str) -> Result<(), LoadError> {
        let config = self.config;
        let Some(latent) = config.attention.latent else {
            return Ok(());
        };
        let (from, to) = (&self.from.latent, &self.to.latent);
        let (hidden, n_heads) = (config.hidden_size, config.n_heads);
        let (bias, rank) = (config.attention.qkv_bias, latent.kv_rank);
        let q_width = n_heads * config.head_dim;
        let kv_dim = config.head_dim - latent.rope_dim + latent.value_dim;
        let mut linear = |from: &str, to: &str, shape, bias| {
            let (from, to) = (format!("{old}{from}"), format!("{new}{to}"));
            self.linear(&from, &to, shape, bias, |row| row)
        };
        match latent.q_rank {
            None => linear(from.q, to.q, [q_width, hidden], false)?,
            Some(rank) => {
                linear(from.q_down, to.q_down, [rank, hidden], bias)?;
                linear(from.q_up, to.q_up, [q_width, rank], false)?;
            }
        }
        linear(
            from.kv_down,
            to.kv_down,
            [rank + latent.rope_dim, hidden],
            bias,
        )?;
        linear(from.kv_up, to.kv_up, [n_heads * kv_dim, rank], false)?;
        if let Some(rank) = latent.q_rank {
            self.norm(
                &format!("{old}{}", from.q_norm),
                &format!("{new}{}", to.q_norm),
                rank,
            )?;
        }
        self.norm(
            &format!("{old}{}", from.kv_norm),
            &format!("{new}{}", to.kv_norm),
            rank,
        )
    }
}
