//! A norm as a model holds it.

use kernels::{Buffer, Device, Norm, NormKind};

use crate::LoadError;
use crate::adapter::{AdapterRows, OwnNorm};
use crate::config::{NormConfig, NormWeight};
use crate::weights::Weights;

/// Weights of one norm.
#[derive(Debug)]
pub(crate) struct NormLayer {
    kind: NormKind,
    weight: Buffer,
    bias: Option<Buffer>,
    eps: f32,
    /// Its number among the model's norms.
    id: usize,
}

impl NormLayer {
    /// `name`: without `.weight` and `.bias`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &NormConfig,
        name: &str,
        id: usize,
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
            id,
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
    pub(crate) fn forward(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        x: &Buffer,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        device.norm_into(x, self.call(), n_rows, out);
        self.adapt(device, adapters, x, n_rows, out);
    }

    /// `x = norm(x)`.
    pub(crate) fn in_place(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        x: &mut Buffer,
        n_rows: usize,
    ) {
        let width = self.weight.len();
        // What rows were is gone after the norm, so theirs is taken before.
        let own = adapters.own_norms(device, self.id, x, (width, n_rows), |own| self.of(own));
        device.norm_in_place(x, self.call(), n_rows);
        adapters.put_back(device, own, x);
    }

    /// `residual += scale * x`, `out = norm(residual)`.
    pub(crate) fn add(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        residual: &mut Buffer,
        (x, scale): (&Buffer, f32),
        n_rows: usize,
        out: &mut Buffer,
    ) {
        device.add_norm_into(residual, x, scale, self.call(), n_rows, out);
        self.adapt(device, adapters, residual, n_rows, out);
    }

    /// Norms rows whose adapter has a norm of its own with that.
    fn adapt(
        &self,
        device: &Device,
        adapters: AdapterRows<'_>,
        x: &Buffer,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        let width = self.weight.len();
        let own = adapters.own_norms(device, self.id, x, (width, n_rows), |own| self.of(own));
        adapters.put_back(device, own, out);
    }

    /// This norm with an adapter's weights.
    fn of<'a>(&'a self, own: &'a OwnNorm) -> Norm<'a> {
        Norm {
            weight: own.weight.as_ref().unwrap_or(&self.weight),
            bias: own.bias.as_ref().or(self.bias.as_ref()),
            ..self.call()
        }
    }

    /// Weight and bias, on the host.
    pub(crate) fn values(&self) -> (Vec<f32>, Option<Vec<f32>>) {
        let values = |buffer: &Buffer| buffer.read(0..buffer.len()).into_owned();
        (values(&self.weight), self.bias.as_ref().map(values))
    }

    pub(crate) fn id(&self) -> usize {
        self.id
    }

    pub(crate) fn n_bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.as_ref().map_or(0, Buffer::len))
    }
}
