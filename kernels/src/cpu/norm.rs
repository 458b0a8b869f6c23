//! RMSNorm, alone or after adding to the residual stream.

use super::Cpu;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};

/// See [`crate::Device::rms_norm_into`].
pub(crate) fn rms_norm(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    let out = SharedMut::new(out);
    cpu.for_parts(x.len() / width, width, &|part| {
        cpu.isa.run(RmsNorm {
            x: &x[part.start * width..part.end * width],
            weight,
            eps,
            // SAFETY: rows of the output do not overlap.
            out: unsafe { out.part(part.start * width, part.len() * width) },
        });
    });
}

/// See [`crate::Device::add_rms_norm_into`].
pub(crate) fn add_rms_norm(
    cpu: &Cpu,
    residual: &mut [f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    let n_rows = x.len() / width;
    let (residual, out) = (SharedMut::new(residual), SharedMut::new(out));
    cpu.for_parts(n_rows, width, &|part| {
        let (first, n) = (part.start * width, part.len() * width);
        // SAFETY: rows of the residual do not overlap.
        let residual = unsafe { residual.part(first, n) };
        cpu.isa.run(Add {
            x: &x[first..first + n],
            out: residual,
        });
        cpu.isa.run(RmsNorm {
            x: residual,
            weight,
            eps,
            // SAFETY: rows of the output do not overlap.
            out: unsafe { out.part(first, n) },
        });
    });
}

struct Add<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Add<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            s.store_part(s.add(s.load_part(out), s.load_part(x)), out);
        }
    }
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact(width);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(width)) {
            let mean = sum_of_squares(s, x) / width as f32;
            let factor = s.splat(1.0 / (mean + self.eps).sqrt());
            let inputs = x.chunks(LANES).zip(self.weight.chunks(LANES));
            for ((x, weight), out) in inputs.zip(out.chunks_mut(LANES)) {
                let x = s.mul(s.load_part(x), factor);
                s.store_part(s.mul(x, s.load_part(weight)), out);
            }
        }
    }
}

/// Four vectors of partial sums, in an order that only the length decides.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.zero(); 4];
    let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
    for four in fours {
        let (vectors, _) = four.as_chunks::<LANES>();
        for i in 0..4 {
            let x = s.load(&vectors[i]);
            sums[i] = s.fma(x, x, sums[i]);
        }
    }
    for (i, x) in rest.chunks(LANES).enumerate() {
        let x = s.load_part(x);
        sums[i] = s.fma(x, x, sums[i]);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
