//! Ops that take rows or values one by one: gated activation, gathering, embedding.

use super::Cpu;
use super::math::exp;
use super::packed::PackedLinear;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};

/// `out = silu(gate) * up`; all of the same length.
pub(crate) fn silu_mul(cpu: &Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let len = out.len();
    let out = SharedMut::new(out);
    // An exponential and a division are worth several plain values. Parts are whole vectors, so
    // that every value takes the same path.
    cpu.for_parts(len.div_ceil(LANES), 4 * LANES, &|vectors| {
        let first = vectors.start * LANES;
        let n = (vectors.end * LANES).min(len) - first;
        cpu.isa.run(SiluMul {
            gate: &gate[first..first + n],
            up: &up[first..first + n],
            // SAFETY: parts do not overlap.
            out: unsafe { out.part(first, n) },
        });
    });
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.gate.chunks(LANES).zip(self.up.chunks(LANES));
        for ((gate, up), out) in inputs.zip(self.out.chunks_mut(LANES)) {
            let (gate, up) = (s.load_part(gate), s.load_part(up));
            let denominator = s.add(s.splat(1.0), exp(s, s.sub(s.zero(), gate)));
            s.store_part(s.mul(s.div(gate, denominator), up), out);
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
