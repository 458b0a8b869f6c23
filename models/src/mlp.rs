//! The feed-forward block: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))`.

use kernels::{Activation, Buffer, Device};

use crate::LoadError;
use crate::activations::Inner;
use crate::adapter::AdapterRows;
use crate::adapter::sites::Sites;
use crate::config::MlpConfig;
use crate::cut::{self, Cut};
use crate::families::MlpIn;
use crate::piece::Piece;
use crate::weights::{Projection, Weights};

/// Weights of a feed-forward block.
#[derive(Debug)]
pub(crate) struct Mlp {
    pub(crate) gate: Option<Projection>,
    pub(crate) up: Projection,
    pub(crate) down: Projection,
    pub(crate) activation: Activation,
    /// Where what it takes comes in; what goes out is the next site.
    pub(crate) site: usize,
}

impl Mlp {
    /// A layer's only block. `prefix`: what stands before the names, as `model.layers.0.`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &MlpConfig,
        hidden: usize,
        inner: usize,
        prefix: &str,
        site: usize,
    ) -> Result<Self, LoadError> {
        let names = weights.names();
        let own = cut::inner(weights.part(), inner);
        let (in_cut, out_cut) = (Cut::Outputs(own.clone()), Cut::Inputs(own));
        let cut = |cut: &Cut, name: &str, piece: &Piece<'_>, shape| {
            weights.cut_projection(cut, &format!("{prefix}{name}"), piece, shape, config.bias)
        };
        let load = |name: &str, piece: &Piece<'_>, shape| cut(&in_cut, name, piece, shape);
        let shape = [inner, hidden];
        let (gate, up) = match names.mlp_in {
            MlpIn::Separate([gate, up]) => {
                let all = Piece::all(inner);
                let gate = config.gated.then(|| load(gate, &all, shape)).transpose()?;
                (gate, load(up, &all, shape)?)
            }
            MlpIn::Stacked(name) => (
                Some(load(name, &Piece::rows(2 * inner, &|row| row), shape)?),
                load(name, &Piece::rows(2 * inner, &|row| inner + row), shape)?,
            ),
        };
        let all = Piece::all(hidden);
        let down = cut(&out_cut, names.mlp_down, &all, [hidden, inner])?;
        Ok(Self {
            gate,
            up,
            down,
            activation: config.activation,
            site,
        })
    }

    /// From `x` to `out`, both `[n_rows, hidden]`.
    pub(crate) fn forward(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        x: &Buffer,
        n_rows: usize,
        inner: &mut Inner,
        out: &mut Buffer,
    ) {
        let len = n_rows * self.up.weight.n_out();
        let gated = match &self.gate {
            Some(gate) => {
                let calls = &mut [gate.call(&mut inner.gate), self.up.call(&mut inner.up)];
                adapters.linear_into(device, x, n_rows, self.site, calls);
                device.gate_into(
                    self.activation,
                    &inner.gate,
                    &inner.up,
                    len,
                    &mut inner.gated,
                );
                &inner.gated
            }
            None => {
                let calls = &mut [self.up.call(&mut inner.up)];
                adapters.linear_into(device, x, n_rows, self.site, calls);
                device.activate(self.activation, &mut inner.up, len);
                &inner.up
            }
        };
        let calls = &mut [self.down.call(out)];
        adapters.linear_into(device, gated, n_rows, self.site + 1, calls);
    }

    /// Enters its layers at their sites.
    pub(crate) fn enter_sites(&self, sites: &mut Sites) {
        sites.enter(self.site, self.gate.iter().chain([&self.up]));
        sites.enter(self.site + 1, [&self.down]);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let gate = self.gate.as_ref().map_or(0, Projection::n_bytes);
        gate + self.up.n_bytes() + self.down.n_bytes()
    }
}
