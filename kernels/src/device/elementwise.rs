//! Values one by one.

use super::{Backend, Device, at, at_mut, check, first, first_mut};
use crate::{Buffer, StridedCopy, cpu};

impl Device {
    /// `out = x`, the first `len` values.
    pub fn copy(&self, x: &Buffer, len: usize, out: &mut Buffer) {
        match &*self.backend {
            Backend::Cpu(_) => first_mut(out, len, "out").copy_from_slice(first(x, len, "x")),
            Backend::Cuda(gpu) => gpu.copy(at(x, len, "x"), len, at_mut(out, len, "out")),
        }
    }

    /// Sets the first `len` values.
    pub fn fill(&self, x: &mut Buffer, value: f32, len: usize) {
        match &*self.backend {
            Backend::Cpu(_) => first_mut(x, len, "x").fill(value),
            Backend::Cuda(gpu) => gpu.fill(at_mut(x, len, "x"), value, len),
        }
    }

    /// `out += scale * x`, elementwise over the first `len` values.
    pub fn add_scaled(&self, out: &mut Buffer, x: &Buffer, scale: f32, len: usize) {
        match &*self.backend {
            Backend::Cpu(cpu) => {
                let (out, x) = (first_mut(out, len, "out"), first(x, len, "x"));
                cpu::elementwise::add_scaled(cpu, out, x, scale);
            }
            Backend::Cuda(gpu) => {
                gpu.add_scaled(at_mut(out, len, "out"), at(x, len, "x"), scale, len);
            }
        }
    }

    /// `x = scale * x` or, with a cap, `cap * tanh(scale * x / cap)`, over the first `len` values.
    pub fn scale_softcap(&self, x: &mut Buffer, scale: f32, cap: Option<f32>, len: usize) {
        match &*self.backend {
            Backend::Cpu(cpu) => {
                cpu::elementwise::scale_softcap(cpu, first_mut(x, len, "x"), scale, cap);
            }
            Backend::Cuda(gpu) => gpu.scale_softcap(at_mut(x, len, "x"), scale, cap, len),
        }
    }

    /// Limits the first `len` values to `-limit..=limit`.
    pub fn clamp(&self, x: &mut Buffer, limit: f32, len: usize) {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::clamp(cpu, first_mut(x, len, "x"), limit),
            Backend::Cuda(gpu) => gpu.clamp(at_mut(x, len, "x"), limit, len),
        }
    }

    /// Copies pieces of rows: piece `i / repeat` of `from` to piece `i` of `to`.
    pub fn strided_copy(&self, op: StridedCopy<'_>) {
        let within = |offset: usize, stride: usize| op.len > 0 && offset + op.len <= stride;
        assert!(op.repeat > 0, "a piece goes somewhere");
        assert!(
            within(op.from_offset, op.from_stride),
            "a piece leaves its stride"
        );
        assert!(
            within(op.to_offset, op.to_stride),
            "a piece leaves its stride"
        );
        check(op.from, op.n.div_ceil(op.repeat) * op.from_stride, "from");
        check(op.to, op.n * op.to_stride, "to");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::elementwise::strided_copy(cpu, op),
            Backend::Cuda(gpu) => {
                gpu.strided_copy(&op, op.from.device_ptr(), op.to.device_ptr());
            }
        }
    }
}
