//! The gated feed-forward block: `down(silu(gate(x)) * up(x))`.

use kernels::Device;

use crate::activations::Activations;
use crate::weights::{Projection, Weights};
use crate::{LoadError, ModelConfig};

/// Names of a layer's tensors, without `.weight` and `.bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpNames {
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

/// Weights of one layer's feed-forward block.
#[derive(Debug)]
pub(crate) struct Mlp {
    gate: Projection,
    up: Projection,
    down: Projection,
}

impl Mlp {
    /// `layer`: what stands before the names, as `model.layers.0.`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &ModelConfig,
        layer: &str,
        names: &MlpNames,
    ) -> Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let load = |name: &str, n_out, n_in| {
            weights.projection(&format!("{layer}{name}"), n_out, n_in, config.mlp_bias)
        };
        Ok(Self {
            gate: load(names.gate, inner, hidden)?,
            up: load(names.up, inner, hidden)?,
            down: load(names.down, hidden, inner)?,
        })
    }

    /// From `normed` to `block_out`.
    pub(crate) fn forward(&self, device: &Device, n_rows: usize, activations: &mut Activations) {
        let a = activations;
        device.linear_into(
            &a.normed,
            n_rows,
            &mut [self.gate.call(&mut a.gate), self.up.call(&mut a.up)],
        );
        let len = n_rows * self.gate.weight.n_out();
        device.silu_mul_into(&a.gate, &a.up, len, &mut a.gated);
        device.linear_into(&a.gated, n_rows, &mut [self.down.call(&mut a.block_out)]);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.gate.n_bytes() + self.up.n_bytes() + self.down.n_bytes()
    }
}
