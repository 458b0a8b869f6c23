//! A mixture of experts: a router sends each row to a few feed-forward blocks and weighs what
//! they give. Each expert takes its rows together; what a row gets is summed in the order of
//! the experts' numbers, whatever rows are with it.

use kernels::{Buffer, Device};

use crate::LoadError;
use crate::ModelConfig;
use crate::activations::Activations;
use crate::config::ExpertsConfig;
use crate::families::ExpertStorage;
use crate::mlp::Mlp;
use crate::piece::Piece;
use crate::weights::{Projection, Weights};

/// Weights of one layer's experts.
#[derive(Debug)]
pub(crate) struct Experts {
    router: Projection,
    correction_bias: Option<Buffer>,
    experts: Vec<Mlp>,
    shared: Option<Mlp>,
    shared_gate: Option<Projection>,
    config: ExpertsConfig,
    hidden: usize,
}

impl Experts {
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        experts: &ExpertsConfig,
        prefix: &str,
    ) -> Result<Self, LoadError> {
        let names = &weights.names().experts;
        let hidden = config.hidden_size;
        let n_experts = experts.routing.n_experts;
        let full = |name: &str| format!("{prefix}{name}");
        let correction_bias = experts
            .correction_bias
            .then(|| weights.vector(&full(names.correction_bias), n_experts))
            .transpose()?;
        let loader = Loader {
            weights,
            config,
            experts,
            prefix,
        };
        let (shared, shared_gate) = match experts.shared {
            None => (None, None),
            Some(shared) => {
                let gate = shared
                    .gated
                    .then(|| weights.projection(&full(names.shared_gate), 1, hidden, false))
                    .transpose()?;
                let mlp = loader.separate(&names.shared.map(full), shared.intermediate_size)?;
                (Some(mlp), gate)
            }
        };
        Ok(Self {
            router: weights.projection(
                &full(names.router),
                n_experts,
                hidden,
                experts.router_bias,
            )?,
            correction_bias,
            experts: (0..n_experts)
                .map(|expert| loader.expert(expert))
                .collect::<Result<_, _>>()?,
            shared,
            shared_gate,
            config: experts.clone(),
            hidden,
        })
    }

    /// From `normed` to `block_out`.
    pub(crate) fn forward(&self, device: &Device, n_rows: usize, a: &mut Activations) {
        let width = self.hidden;
        let moe = &mut a.experts;
        device.linear_into(&a.normed, n_rows, &mut [self.router.call(&mut moe.scores)]);
        let bias = self.correction_bias.as_ref();
        let routing = &self.config.routing;
        device.route_into(&moe.scores, bias, n_rows, routing, &mut moe.routes);
        device.fill(&mut a.block_out, 0.0, n_rows * width);
        for (expert, rows) in self.experts.iter().zip(&moe.routes.by_expert) {
            if rows.is_empty() {
                continue;
            }
            moe.rows.clear();
            moe.rows.extend(rows.iter().map(|(row, _)| *row));
            device.gather_rows_into(&a.normed, width, &moe.rows, &mut moe.input);
            expert.forward(
                device,
                &moe.input,
                rows.len(),
                &mut a.inner,
                &mut moe.output,
            );
            device.scatter_add_rows(&moe.output, width, rows, &mut a.block_out);
        }
        let Some(shared) = &self.shared else {
            return;
        };
        shared.forward(device, &a.normed, n_rows, &mut a.inner, &mut moe.output);
        let len = n_rows * width;
        match &self.shared_gate {
            None => device.add_scaled(&mut a.block_out, &moe.output, 1.0, len),
            Some(gate) => {
                device.linear_into(&a.normed, n_rows, &mut [gate.call(&mut moe.scores)]);
                device.add_gated_rows(&moe.output, &moe.scores, width, n_rows, &mut a.block_out);
            }
        }
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let blocks = self.experts.iter().chain(&self.shared);
        let gate = self.shared_gate.as_ref().map_or(0, Projection::n_bytes);
        blocks.map(Mlp::n_bytes).sum::<usize>() + self.router.n_bytes() + gate
    }
}

/// Loads the experts of one layer.
struct Loader<'a> {
    weights: &'a Weights<'a>,
    config: &'a ModelConfig,
    experts: &'a ExpertsConfig,
    prefix: &'a str,
}

impl Loader<'_> {
    fn expert(&self, expert: usize) -> Result<Mlp, LoadError> {
        let inner = self.experts.intermediate_size;
        match self.weights.names().experts.storage {
            ExpertStorage::Separate(before, names) => {
                let full = |name: &str| format!("{}{before}{expert}.{name}", self.prefix);
                self.separate(&names.map(full), inner)
            }
            ExpertStorage::Stacked(names) => self.stacked(names, expert),
            ExpertStorage::Interleaved(names) => self.interleaved(names, expert),
        }
    }

    /// `names`: of gate, up and down.
    fn separate(&self, names: &[String; 3], inner: usize) -> Result<Mlp, LoadError> {
        let hidden = self.config.hidden_size;
        let [gate, up, down] = names;
        let bias = self.experts.bias;
        let load = |name: &str, n_out, n_in| self.weights.projection(name, n_out, n_in, bias);
        Ok(Mlp {
            gate: Some(load(gate, inner, hidden)?),
            up: load(up, inner, hidden)?,
            down: load(down, hidden, inner)?,
            activation: self.config.mlp.activation,
        })
    }

    fn stacked(&self, names: [&str; 3], expert: usize) -> Result<Mlp, LoadError> {
        let (hidden, inner) = (self.config.hidden_size, self.experts.intermediate_size);
        let n_experts = self.experts.routing.n_experts;
        let load = |name: &str, shape: [usize; 2]| {
            let name = format!("{}{name}", self.prefix);
            let piece = Piece::all(shape[0]).of_expert(n_experts, expert);
            self.weights
                .projection_of(&name, &piece, shape, self.experts.bias)
        };
        Ok(Mlp {
            gate: Some(load(names[0], [inner, hidden])?),
            up: load(names[1], [inner, hidden])?,
            down: load(names[2], [hidden, inner])?,
            activation: self.config.mlp.activation,
        })
    }

    fn interleaved(&self, names: [&str; 2], expert: usize) -> Result<Mlp, LoadError> {
        let (hidden, inner) = (self.config.hidden_size, self.experts.intermediate_size);
        let n_experts = self.experts.routing.n_experts;
        let load = |name: &str, piece: Piece<'_>, shape: [usize; 2]| {
            let name = format!("{}{name}", self.prefix);
            let piece = piece.of_expert(n_experts, expert).transposed(true);
            let bias = self.experts.bias.then(|| {
                self.weights
                    .bias_of(&format!("{name}_bias"), &piece, shape[0])
            });
            Ok(Projection {
                weight: self.weights.pack(&name, &piece, shape)?,
                bias: bias.transpose()?,
            })
        };
        let gate = Piece::rows(2 * inner, &|row| 2 * row);
        let up = Piece::rows(2 * inner, &|row| 2 * row + 1);
        Ok(Mlp {
            gate: Some(load(names[0], gate, [inner, hidden])?),
            up: load(names[0], up, [inner, hidden])?,
            down: load(names[1], Piece::all(hidden), [hidden, inner])?,
            activation: self.config.mlp.activation,
        })
    }
}
