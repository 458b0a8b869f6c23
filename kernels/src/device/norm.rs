//! Norms and activations.

use super::{Backend, Device, at, at_mut, first, first_mut};
use crate::cuda::{DevicePtr, NormAt};
use crate::{Activation, Buffer, Norm, cpu};

impl Device {
    /// Norms each row; `x`, `out`: `[n_rows, norm.weight.len()]`.
    pub fn norm_into(&self, x: &Buffer, norm: Norm<'_>, n_rows: usize, out: &mut Buffer) {
        let len = n_rows * check_norm(norm);
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::norm::norm(cpu, first(x, len, "x"), norm, first_mut(out, len, "out"));
            }
            Backend::Cuda(gpu) => {
                let (x, out) = (at(x, len, "x"), at_mut(out, len, "out"));
                gpu.norm(norm, n_rows, NormAt::alone(x, out));
            }
        }
    }

    /// Norms each row where it is: `x` is `[n_rows, norm.weight.len()]`.
    pub fn norm_in_place(&self, x: &mut Buffer, norm: Norm<'_>, n_rows: usize) {
        let len = n_rows * check_norm(norm);
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::norm::norm_in_place(cpu, first_mut(x, len, "x"), norm),
            Backend::Cuda(gpu) => {
                let x = at_mut(x, len, "x");
                gpu.norm(norm, n_rows, NormAt::alone(x, x));
            }
        }
    }

    /// `residual += scale * x`, then `out = norm(residual)`; all `[n_rows, norm.weight.len()]`.
    pub fn add_norm_into(
        &self,
        residual: &mut Buffer,
        x: &Buffer,
        scale: f32,
        norm: Norm<'_>,
        n_rows: usize,
        out: &mut Buffer,
    ) {
        let len = n_rows * check_norm(norm);
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let residual = first_mut(residual, len, "residual");
                let (x, out) = (first(x, len, "x"), first_mut(out, len, "out"));
                cpu::norm::add_norm(cpu, residual, x, scale, norm, out);
            }
            Backend::Cuda(gpu) => {
                let at = NormAt {
                    residual: at_mut(residual, len, "residual"),
                    scale,
                    ..NormAt::alone(at(x, len, "x"), at_mut(out, len, "out"))
                };
                gpu.norm(norm, n_rows, at);
            }
        }
    }

    /// `out = activation(gate) * up`, elementwise over the first `len` values.
    pub fn gate_into(
        &self,
        activation: Activation,
        gate: &Buffer,
        up: &Buffer,
        len: usize,
        out: &mut Buffer,
    ) {
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let (gate, up) = (first(gate, len, "gate"), first(up, len, "up"));
                cpu::activate::gate(cpu, activation, gate, up, first_mut(out, len, "out"));
            }
            Backend::Cuda(gpu) => {
                let (gate, up) = (at(gate, len, "gate"), at(up, len, "up"));
                gpu.activate(activation, gate, up, len, at_mut(out, len, "out"));
            }
        }
    }

    /// `x = activation(x)`, elementwise over the first `len` values.
    ///
    /// # Panics
    /// For an activation that is a gate only.
    pub fn activate(&self, activation: Activation, x: &mut Buffer, len: usize) {
        assert!(
            !matches!(activation, Activation::ClampedSwish { .. }),
            "a gate needs something to gate"
        );
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::activate::activate(cpu, activation, first_mut(x, len, "x"));
            }
            Backend::Cuda(gpu) => {
                let x = at_mut(x, len, "x");
                gpu.activate(activation, x, DevicePtr::NULL, len, x);
            }
        }
    }
}

/// The width of a norm.
fn check_norm(norm: Norm<'_>) -> usize {
    let width = norm.weight.len();
    assert!(width > 0, "a norm of no values");
    assert!(
        norm.bias.is_none_or(|bias| bias.len() == width),
        "a bias is as long as the weight"
    );
    width
}
