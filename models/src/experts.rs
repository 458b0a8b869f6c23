//! A mixture of experts: a router sends each row to a few feed-forward blocks and weighs what
//! they give. Each expert takes its rows together; what a row gets is summed in the order of
//! the experts' numbers, whatever rows are with it.

use kernels::{Buffer, Device};

use crate::LoadError;
use crate::ModelConfig;
use crate::activations::Activations;
use crate::adapter::AdapterRows;
use crate::adapter::sites::{self, Sites};
use crate::config::ExpertsConfig;
use crate::cut::{self, Cut};
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
    /// The layer's first site.
    site: usize,
}

impl Experts {
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        experts: &ExpertsConfig,
        prefix: &str,
        layer: usize,
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
            site: sites::layer(config, layer),
        };
        let (shared, shared_gate) = match experts.shared {
            None => (None, None),
            Some(shared) => {
                let gate = shared
                    .gated
                    .then(|| weights.projection(&full(names.shared_gate), 1, hidden, false))
                    .transpose()?;
                let site = loader.site + sites::SHARED_IN;
                let mlp =
                    loader.separate(&names.shared.map(full), shared.intermediate_size, site)?;
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
            site: loader.site,
        })
    }

    /// From `normed` to `block_out`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        n_rows: usize,
        a: &mut Activations,
    ) {
        let width = self.hidden;
        let moe = &mut a.experts;
        let calls = &mut [self.router.call(&mut moe.scores)];
        adapters.linear_into(device, &a.normed, n_rows, self.site + sites::ROUTER, calls);
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
            let adapters = adapters.of_rows(&moe.rows, &mut moe.groups);
            expert.forward(
                device,
                adapters,
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
        shared.forward(
            device,
            adapters,
            &a.normed,
            n_rows,
            &mut a.inner,
            &mut moe.output,
        );
        let len = n_rows * width;
        match &self.shared_gate {
            None => device.add_scaled(&mut a.block_out, &moe.output, 1.0, len),
            Some(gate) => {
                let calls = &mut [gate.call(&mut moe.scores)];
                let site = self.site + sites::SHARED_GATE;
                adapters.linear_into(device, &a.normed, n_rows, site, calls);
                device.add_gated_rows(&moe.output, &moe.scores, width, n_rows, &mut a.block_out);
            }
        }
    }

    /// Enters its layers at their sites.
    pub(crate) fn enter_sites(&self, sites: &mut Sites) {
        sites.enter(self.site + sites::ROUTER, [&self.router]);
        sites.enter(self.site + sites::SHARED_GATE, &self.shared_gate);
        for mlp in self.experts.iter().chain(&self.shared) {
            mlp.enter_sites(sites);
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
    /// The layer's first site.
    site: usize,
}

impl Loader<'_> {
    /// How the layers of a block of so many inner values are cut: those into it, that out of it.
    fn cuts(&self, inner: usize) -> (Cut, Cut) {
        let own = cut::inner(self.weights.part(), inner);
        (Cut::Outputs(own.clone()), Cut::Inputs(own))
    }

    fn expert(&self, expert: usize) -> Result<Mlp, LoadError> {
        let inner = self.experts.intermediate_size;
        let site = self.site + sites::expert(expert);
        match self.weights.names().experts.storage {
            ExpertStorage::Separate(before, names) => {
                let full = |name: &str| format!("{}{before}{expert}.{name}", self.prefix);
                self.separate(&names.map(full), inner, site)
            }
            ExpertStorage::Stacked(names) => self.stacked(names, expert),
            ExpertStorage::Interleaved(names) => self.interleaved(names, expert),
        }
    }

    /// `names`: of gate, up and down.
    fn separate(&self, names: &[String; 3], inner: usize, site: usize) -> Result<Mlp, LoadError> {
        let hidden = self.config.hidden_size;
        let [gate, up, down] = names;
        let bias = self.experts.bias;
        let (in_cut, out_cut) = self.cuts(inner);
        let load = |cut, name: &str, n_out, n_in| {
            let piece = Piece::all(n_out);
            self.weights
                .cut_projection(cut, name, &piece, [n_out, n_in], bias)
        };
        Ok(Mlp {
            gate: Some(load(&in_cut, gate, inner, hidden)?),
            up: load(&in_cut, up, inner, hidden)?,
            down: load(&out_cut, down, hidden, inner)?,
            activation: self.config.mlp.activation,
            site,
        })
    }

    fn stacked(&self, names: [&str; 3], expert: usize) -> Result<Mlp, LoadError> {
        let site = self.site + sites::expert(expert);
        let (hidden, inner) = (self.config.hidden_size, self.experts.intermediate_size);
        let n_experts = self.experts.routing.n_experts;
        let (in_cut, out_cut) = self.cuts(inner);
        let load = |cut, name: &str, shape: [usize; 2]| {
            let name = format!("{}{name}", self.prefix);
            let piece = Piece::all(shape[0]).of_expert(n_experts, expert);
            self.weights
                .cut_projection(cut, &name, &piece, shape, self.experts.bias)
        };
        Ok(Mlp {
            gate: Some(load(&in_cut, names[0], [inner, hidden])?),
            up: load(&in_cut, names[1], [inner, hidden])?,
            down: load(&out_cut, names[2], [hidden, inner])?,
            activation: self.config.mlp.activation,
            site,
        })
    }

    fn interleaved(&self, names: [&str; 2], expert: usize) -> Result<Mlp, LoadError> {
        let site = self.site + sites::expert(expert);
        let (hidden, inner) = (self.config.hidden_size, self.experts.intermediate_size);
        let n_experts = self.experts.routing.n_experts;
        let (in_cut, out_cut) = self.cuts(inner);
        let load = |cut, name: &str, piece: Piece<'_>, shape: [usize; 2]| {
            let name = format!("{}{name}", self.prefix);
            let piece = piece.of_expert(n_experts, expert).transposed(true);
            let bias = format!("{name}_bias");
            let names = (&*name, self.experts.bias.then_some(&*bias));
            self.weights.projection_part(cut, names, &piece, shape)
        };
        let gate = Piece::rows(2 * inner, &|row| 2 * row);
        let up = Piece::rows(2 * inner, &|row| 2 * row + 1);
        Ok(Mlp {
            gate: Some(load(&in_cut, names[0], gate, [inner, hidden])?),
            up: load(&in_cut, names[0], up, [inner, hidden])?,
            down: load(&out_cut, names[1], Piece::all(hidden), [hidden, inner])?,
            activation: self.config.mlp.activation,
            site,
        })
    }
}
