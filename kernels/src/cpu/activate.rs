//! Activation functions, alone or as the gate of another value.

use super::Cpu;
use super::elementwise::for_values;
use super::math::{normal_cdf, sigmoid};
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::Activation;

/// About how many plain values an exponential and a division are worth.
const COST: usize = 4;

/// See [`crate::Device::gate_into`].
pub(crate) fn gate(cpu: &Cpu, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let len = out.len();
    let out = SharedMut::new(out);
    for_values(cpu, len, COST, &|first, n| {
        cpu.isa.run(Gate {
            activation,
            gate: &gate[first..first + n],
            up: &up[first..first + n],
            // SAFETY: parts do not overlap.
            out: unsafe { out.part(first, n) },
        });
    });
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.gate.chunks(LANES).zip(self.up.chunks(LANES));
        for ((gate, up), out) in inputs.zip(self.out.chunks_mut(LANES)) {
            let (gate, up) = (s.load_part(gate), s.load_part(up));
            let y = match self.activation {
                Activation::ClampedSwish { alpha, limit } => {
                    let gate = s.min(s.splat(limit), gate);
                    let up = s.max(s.splat(-limit), s.min(s.splat(limit), up));
                    let swish = s.mul(gate, sigmoid(s, s.mul(gate, s.splat(alpha))));
                    s.mul(s.add(up, s.splat(1.0)), swish)
                }
                plain => s.mul(activate_lanes(s, plain, gate), up),
            };
            s.store_part(y, out);
        }
    }
}

/// See [`crate::Device::activate`].
pub(crate) fn activate(cpu: &Cpu, activation: Activation, x: &mut [f32]) {
    let len = x.len();
    let x = SharedMut::new(x);
    for_values(cpu, len, COST, &|first, n| {
        // SAFETY: parts do not overlap.
        let x = unsafe { x.part(first, n) };
        cpu.isa.run(Activate { activation, x });
    });
}

struct Activate<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            s.store_part(activate_lanes(s, self.activation, s.load_part(x)), x);
        }
    }
}

#[inline(always)]
fn activate_lanes<S: Simd>(s: S, activation: Activation, x: S::F) -> S::F {
    match activation {
        // Divided, not multiplied by a reciprocal: one rounding less.
        Activation::Silu => s.div(
            x,
            s.add(s.splat(1.0), super::math::exp(s, s.sub(s.zero(), x))),
        ),
        Activation::Gelu => s.mul(x, normal_cdf(s, x)),
        // (1 + tanh u) / 2 is the logistic function of 2 u.
        Activation::GeluTanh => {
            let cubic = s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0));
            let u = s.mul(s.mul(x, s.splat(2.0 * 0.797_884_6)), cubic);
            s.mul(x, sigmoid(s, u))
        }
        Activation::QuickGelu => s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702)))),
        Activation::Relu => s.max(s.zero(), x),
        Activation::ClampedSwish { .. } => unreachable!("checked by the device"),
    }
}
