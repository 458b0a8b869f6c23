//! Norms of rows: alone, in place, or after adding to the residual stream.

use super::Cpu;
use super::elementwise::AddScaled;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::{Norm, NormKind};

/// See [`crate::Device::norm_into`].
pub(crate) fn norm(cpu: &Cpu, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
    let width = norm.weight.len();
    let out = SharedMut::new(out);
    cpu.for_parts(x.len() / width, width, &|part| {
        let (first, n) = (part.start * width, part.len() * width);
        // SAFETY: rows of the output do not overlap.
        let out = unsafe { out.part(first, n) };
        out.copy_from_slice(&x[first..first + n]);
        cpu.isa.run(NormRows::new(norm, out));
    });
}

/// See [`crate::Device::norm_in_place`].
pub(crate) fn norm_in_place(cpu: &Cpu, x: &mut [f32], norm: Norm<'_>) {
    let width = norm.weight.len();
    let n_rows = x.len() / width;
    let x = SharedMut::new(x);
    cpu.for_parts(n_rows, width, &|part| {
        // SAFETY: rows do not overlap.
        let x = unsafe { x.part(part.start * width, part.len() * width) };
        cpu.isa.run(NormRows::new(norm, x));
    });
}

/// See [`crate::Device::add_norm_into`].
pub(crate) fn add_norm(
    cpu: &Cpu,
    residual: &mut [f32],
    x: &[f32],
    scale: f32,
    norm: Norm<'_>,
    out: &mut [f32],
) {
    let width = norm.weight.len();
    let n_rows = x.len() / width;
    let (residual, out) = (SharedMut::new(residual), SharedMut::new(out));
    cpu.for_parts(n_rows, width, &|part| {
        let (first, n) = (part.start * width, part.len() * width);
        // SAFETY: rows of the residual do not overlap.
        let residual = unsafe { residual.part(first, n) };
        cpu.isa.run(AddScaled {
            x: &x[first..first + n],
            scale,
            out: residual,
        });
        // SAFETY: rows of the output do not overlap.
        let out = unsafe { out.part(first, n) };
        out.copy_from_slice(residual);
        cpu.isa.run(NormRows::new(norm, out));
    });
}

/// Rows to be normed where they are.
struct NormRows<'a> {
    kind: NormKind,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    rows: &'a mut [f32],
}

impl<'a> NormRows<'a> {
    fn new(norm: Norm<'a>, rows: &'a mut [f32]) -> Self {
        Self {
            kind: norm.kind,
            weight: norm.weight.as_slice(),
            bias: norm.bias.map(crate::Buffer::as_slice),
            eps: norm.eps,
            rows,
        }
    }
}

impl Kernel for NormRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for row in self.rows.chunks_exact_mut(width) {
            if self.kind == NormKind::Layer {
                let mean = s.splat(-(sum::<S, false>(s, row) / width as f32));
                for x in row.chunks_mut(LANES) {
                    s.store_part(s.add(s.load_part(x), mean), x);
                }
            }
            let mean = sum::<S, true>(s, row) / width as f32;
            let factor = s.splat(1.0 / (mean + self.eps).sqrt());
            for (x, weight) in row.chunks_mut(LANES).zip(self.weight.chunks(LANES)) {
                let normed = s.mul(s.load_part(x), factor);
                s.store_part(s.mul(normed, s.load_part(weight)), x);
            }
            if let Some(bias) = self.bias {
                for (x, bias) in row.chunks_mut(LANES).zip(bias.chunks(LANES)) {
                    s.store_part(s.add(s.load_part(x), s.load_part(bias)), x);
                }
            }
        }
    }
}

/// The sum of the values or of their squares: four vectors of partial sums, in an order that
/// only the length decides.
#[inline(always)]
fn sum<S: Simd, const SQUARES: bool>(s: S, x: &[f32]) -> f32 {
    let add = |sum, x| s.fma(x, if SQUARES { x } else { s.splat(1.0) }, sum);
    let mut sums = [s.zero(); 4];
    let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
    for four in fours {
        let (vectors, _) = four.as_chunks::<LANES>();
        for i in 0..4 {
            sums[i] = add(sums[i], s.load(&vectors[i]));
        }
    }
    for (i, x) in rest.chunks(LANES).enumerate() {
        sums[i] = add(sums[i], s.load_part(x));
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
