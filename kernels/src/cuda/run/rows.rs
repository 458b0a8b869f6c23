//! Ops on rows and values, noted.

use super::gpu::Gpu;
use crate::cuda::{self, Copied, DevicePtr, NormRows};
use crate::{Activation, Norm, StridedCopy};

/// Where a norm reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormAt {
    pub(crate) x: DevicePtr,
    /// Null for a norm alone; else `residual += scale * x` comes first.
    pub(crate) residual: DevicePtr,
    pub(crate) scale: f32,
    pub(crate) out: DevicePtr,
}

impl NormAt {
    /// Without an addition.
    pub(crate) fn alone(x: DevicePtr, out: DevicePtr) -> Self {
        Self {
            x,
            residual: DevicePtr::NULL,
            scale: 1.0,
            out,
        }
    }
}

impl Gpu {
    pub(crate) fn norm(&self, norm: Norm<'_>, n_rows: usize, at: NormAt) {
        let op = NormRows {
            kind: norm.kind,
            x: at.x,
            residual: at.residual,
            scale: at.scale,
            weight: norm.weight.device_ptr(),
            bias: norm.bias.map_or(DevicePtr::NULL, crate::Buffer::device_ptr),
            eps: norm.eps,
            width: norm.weight.len(),
            out: at.out,
        };
        self.step().push(cuda::norm_rows(&op, n_rows));
    }

    /// A null `up` is an activation that gates nothing.
    pub(crate) fn activate(
        &self,
        activation: Activation,
        gate: DevicePtr,
        up: DevicePtr,
        len: usize,
        out: DevicePtr,
    ) {
        self.step()
            .push(cuda::activate(activation, gate, up, len, out));
    }

    pub(crate) fn fill(&self, x: DevicePtr, value: f32, len: usize) {
        self.step().push(cuda::fill(x, value, len));
    }

    pub(crate) fn add_scaled(&self, out: DevicePtr, x: DevicePtr, scale: f32, len: usize) {
        self.step().push(cuda::add_scaled(out, x, scale, len));
    }

    pub(crate) fn scale_softcap(&self, x: DevicePtr, scale: f32, cap: Option<f32>, len: usize) {
        self.step().push(cuda::scale_softcap(x, scale, cap, len));
    }

    pub(crate) fn clamp(&self, x: DevicePtr, limit: f32, len: usize) {
        self.step().push(cuda::clamp(x, limit, len));
    }

    pub(crate) fn add_gated_rows(
        &self,
        x: DevicePtr,
        gate: DevicePtr,
        width: usize,
        n_rows: usize,
        out: DevicePtr,
    ) {
        self.step()
            .push(cuda::add_gated_rows(x, gate, width, n_rows, out));
    }

    /// `op` says sizes, the addresses say where.
    pub(crate) fn strided_copy(&self, op: &StridedCopy<'_>, from: DevicePtr, to: DevicePtr) {
        let from = Copied {
            at: from,
            stride: op.from_stride,
            offset: op.from_offset,
        };
        let to = Copied {
            at: to,
            stride: op.to_stride,
            offset: op.to_offset,
        };
        self.step()
            .push(cuda::strided_copy(from, op.repeat, to, op.n, op.len));
    }

    pub(crate) fn copy(&self, x: DevicePtr, len: usize, out: DevicePtr) {
        /// Values that a block of threads copies.
        const PIECE: usize = 1024;
        let whole = len / PIECE;
        let copied = |first: usize, stride: usize| {
            [x, out].map(|at| Copied {
                at: at.offset(4 * first),
                stride,
                offset: 0,
            })
        };
        let mut step = self.step();
        let [from, to] = copied(0, PIECE);
        step.push(cuda::strided_copy(from, 1, to, whole, PIECE));
        if !len.is_multiple_of(PIECE) {
            let [from, to] = copied(whole * PIECE, len % PIECE);
            step.push(cuda::strided_copy(from, 1, to, 1, len % PIECE));
        }
    }

    pub(crate) fn gather_rows(&self, x: DevicePtr, width: usize, rows: &[u32], out: DevicePtr) {
        let mut step = self.step();
        let at = step.put_u32(rows);
        step.push(cuda::gather_rows(x, width, at, rows.len(), out));
    }

    pub(crate) fn scatter_rows(&self, x: DevicePtr, width: usize, rows: &[u32], out: DevicePtr) {
        let mut step = self.step();
        let at = step.put_u32(rows);
        step.push(cuda::scatter_rows(x, width, at, rows.len(), out));
    }

    pub(crate) fn scatter_add_rows(
        &self,
        x: DevicePtr,
        width: usize,
        rows: &[(u32, f32)],
        out: DevicePtr,
    ) {
        let (numbers, weights): (Vec<u32>, Vec<f32>) = rows.iter().copied().unzip();
        let mut step = self.step();
        let (numbers, weights) = (step.put_u32(&numbers), step.put_f32(&weights));
        step.push(cuda::scatter_add_rows(
            x,
            width,
            numbers,
            weights,
            rows.len(),
            out,
        ));
    }
}
