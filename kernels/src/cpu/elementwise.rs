//! Ops that take rows or values one by one: adding, scaling, gathering, copying, embedding.

use super::Cpu;
use super::math::{sigmoid, tanh};
use super::packed::PackedLinear;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::StridedCopy;

/// Runs `work` over parts of the first `len` values, each part whole vectors but the last, so
/// that every value takes the same path whatever the part. `cost`: of one value, in plain ones.
pub(super) fn for_values(cpu: &Cpu, len: usize, cost: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    cpu.for_parts(len.div_ceil(LANES), cost * LANES, &|vectors| {
        let first = vectors.start * LANES;
        work(first, (vectors.end * LANES).min(len) - first);
    });
}

/// `out += scale * x`.
pub(crate) fn add_scaled(cpu: &Cpu, out: &mut [f32], x: &[f32], scale: f32) {
    let len = out.len();
    let out = SharedMut::new(out);
    for_values(cpu, len, 1, &|first, n| {
        cpu.isa.run(AddScaled {
            x: &x[first..first + n],
            scale,
            // SAFETY: parts do not overlap.
            out: unsafe { out.part(first, n) },
        });
    });
}

/// With a scale of one this is a plain addition, bit for bit.
pub(super) struct AddScaled<'a> {
    pub(super) x: &'a [f32],
    pub(super) scale: f32,
    pub(super) out: &'a mut [f32],
}

impl Kernel for AddScaled<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(self.scale);
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            s.store_part(s.fma(s.load_part(x), scale, s.load_part(out)), out);
        }
    }
}

/// `x = cap * tanh(scale * x / cap)`, or `scale * x` without a cap.
pub(crate) fn scale_softcap(cpu: &Cpu, x: &mut [f32], scale: f32, cap: Option<f32>) {
    let len = x.len();
    let x = SharedMut::new(x);
    for_values(cpu, len, 4, &|first, n| {
        // SAFETY: parts do not overlap.
        let x = unsafe { x.part(first, n) };
        cpu.isa.run(ScaleSoftcap { x, scale, cap });
    });
}

struct ScaleSoftcap<'a> {
    x: &'a mut [f32],
    scale: f32,
    cap: Option<f32>,
}

impl Kernel for ScaleSoftcap<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            let scaled = s.mul(s.load_part(x), s.splat(self.scale));
            s.store_part(softcap(s, scaled, self.cap), x);
        }
    }
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
pub(super) fn softcap<S: Simd>(s: S, x: S::F, cap: Option<f32>) -> S::F {
    match cap {
        Some(cap) => s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap)),
        None => x,
    }
}

/// Limits values to `-limit..=limit`.
pub(crate) fn clamp(cpu: &Cpu, x: &mut [f32], limit: f32) {
    let len = x.len();
    let x = SharedMut::new(x);
    for_values(cpu, len, 1, &|first, n| {
        // SAFETY: parts do not overlap.
        let x = unsafe { x.part(first, n) };
        cpu.isa.run(Clamp { x, limit });
    });
}

struct Clamp<'a> {
    x: &'a mut [f32],
    limit: f32,
}

impl Kernel for Clamp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            let low = s.max(s.splat(-self.limit), s.load_part(x));
            s.store_part(s.min(s.splat(self.limit), low), x);
        }
    }
}

/// `out[row] += sigmoid(gate[row]) * x[row]`, rows of `width` values.
pub(crate) fn add_gated_rows(cpu: &Cpu, x: &[f32], gate: &[f32], out: &mut [f32]) {
    let width = out.len() / gate.len().max(1);
    let out = SharedMut::new(out);
    cpu.for_parts(gate.len(), width, &|part| {
        for row in part {
            cpu.isa.run(AddGated {
                gate: gate[row],
                x: &x[row * width..][..width],
                // SAFETY: rows of the output do not overlap.
                out: unsafe { out.part(row * width, width) },
            });
        }
    });
}

struct AddGated<'a> {
    gate: f32,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for AddGated<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let gate = sigmoid(s, s.splat(self.gate));
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            s.store_part(s.fma(s.load_part(x), gate, s.load_part(out)), out);
        }
    }
}

/// `out[i] = x[rows[i]]`, rows of `width` values.
pub(crate) fn gather_rows(cpu: &Cpu, x: &[f32], width: usize, rows: &[u32], out: &mut [f32]) {
    let out = SharedMut::new(out);
    cpu.for_parts(rows.len(), width, &|part| {
        for i in part {
            let row = rows[i] as usize;
            // SAFETY: rows of the output do not overlap.
            let out = unsafe { out.part(i * width, width) };
            out.copy_from_slice(&x[row * width..][..width]);
        }
    });
}

/// `out[rows[i]] = x[i]`, rows of `width` values.
pub(crate) fn scatter_rows(cpu: &Cpu, x: &[f32], width: usize, rows: &[u32], out: &mut [f32]) {
    let out = SharedMut::new(out);
    cpu.for_parts(rows.len(), width, &|part| {
        for i in part {
            // SAFETY: the device checked that rows ascend, so no two are the same.
            let out = unsafe { out.part(rows[i] as usize * width, width) };
            out.copy_from_slice(&x[i * width..][..width]);
        }
    });
}

/// See [`crate::Device::strided_copy`]; shapes are checked there.
pub(crate) fn strided_copy(cpu: &Cpu, op: StridedCopy<'_>) {
    let from = op.from.as_slice();
    let to = SharedMut::new(op.to.as_mut_slice());
    cpu.for_parts(op.n, op.len, &|part| {
        for i in part {
            let at = i / op.repeat * op.from_stride + op.from_offset;
            // SAFETY: pieces are no longer than their stride, so they do not overlap.
            let to = unsafe { to.part(i * op.to_stride + op.to_offset, op.len) };
            to.copy_from_slice(&from[at..at + op.len]);
        }
    });
}

/// `out[i] = table[tokens[i]]`, widened exactly.
pub(crate) fn embed(cpu: &Cpu, table: &PackedLinear, tokens: &[u32], out: &mut [f32]) {
    let width = table.n_in;
    let out = SharedMut::new(out);
    // Taking a row out of packed tiles is some ten times the work of a copy.
    cpu.for_parts(tokens.len(), 10 * width, &|part| {
        for i in part {
            // SAFETY: rows of the output do not overlap.
            let out = unsafe { out.part(i * width, width) };
            table.unpack_row(tokens[i] as usize, out);
        }
    });
}
