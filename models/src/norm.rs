//! A norm as a model holds it.

use kernels::{Buffer, Device, Norm, NormKind};

use crate::LoadError;
use crate::config::{NormConfig, NormWeight};
use crate::weights::Weights;

/// Weights of one norm.
#[derive(Debug)]
pub(crate) struct NormLayer {
    kind: NormKind,
    weight: Buffer,
    bias: Option<Buffer>,
    eps: f32,
}

impl NormLayer {
    /// `name`: without `.weight` and `.bias`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &NormConfig,
        name: &str,
        width: usize,
    ) -> Result<Self, LoadError> {
        let bias = config
            .bias
            .then(|| weights.vector(&format!("{name}.bias"), width))
            .transpose()?;
        let stored = || weights.values(&format!("{name}.weight"), width);
        let weight = match config.weight {
            NormWeight::Stored => stored()?,
            NormWeight::PlusOne => stored()?.iter().map(|x| 1.0 + x).collect(),
            NormWeight::Ones => vec![1.0; width],
        };
        Ok(Self {
            kind: config.kind,
            weight: weights.buffer(&weight),
            bias,
            eps: config.eps,
        })
    }

    fn call(&self) -> Norm<'_> {
        Norm {
            kind: self.kind,
            weight: &self.weight,
            bias: self.bias.as_ref(),
            eps: self.eps,
        }
    }

    /// `out = norm(x)`.
    pub(crate) fn forward(&self, device: &Device, x: &Buffer, n_rows: usize, out: &mut Buffer) {
        device.norm_into(x, self.call(), n_rows, out);
    }

    /// `x = norm(x)`.
    pub(crate) fn in_place(&self, device: &Device, x: &mut Buffer, n_rows: usize) {
        device.norm_in_place(x, self.call(), n_rows);
    }

    /// `residual += scale * x`, `out = norm(residual)`.
    pub(crate) fn add(
        &self,
        device: &Device,
        residual: &mut Buffer,
        (x, scale): (&Buffer, f32),
        n_rows: usize,
        out: &mut Buffer,
    ) {
        device.add_norm_into(residual, x, scale, self.call(), n_rows, out);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.as_ref().map_or(0, Buffer::len))
    }
}
