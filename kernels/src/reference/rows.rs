//! References of the ops on rows and values.

use crate::{Activation, NormKind, RopeAngles, RopeStyle};

/// Each row, less its mean if the kind says so, over the root of its mean square, times weights,
/// plus biases.
pub fn norm(kind: NormKind, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    let width = weight.len();
    for row in x.chunks_exact(width) {
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64,
        };
        let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        let root = (squares / width as f64 + f64::from(eps)).sqrt();
        for (i, (&x, &weight)) in row.iter().zip(weight).enumerate() {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
            out.push((f64::from(x) - mean) / root * f64::from(weight) + bias);
        }
    }
    out
}

/// An activation of one value; that of a gate is `gate(g, up)`.
pub fn activate(activation: Activation, x: f32) -> f64 {
    let x = f64::from(x);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x * 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            // (1 + tanh u) / 2, which would cancel.
            x * sigmoid(2.0 * u)
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ClampedSwish { .. } => panic!("a gate only"),
    }
}

/// `activation(gate) * up` of one pair.
pub fn gate(activation: Activation, gate: f32, up: f32) -> f64 {
    let Activation::ClampedSwish { alpha, limit } = activation else {
        return activate(activation, gate) * f64::from(up);
    };
    let (alpha, limit) = (f64::from(alpha), f64::from(limit));
    let gate = f64::from(gate).min(limit);
    let up = f64::from(up).clamp(-limit, limit);
    (up + 1.0) * gate / (1.0 + (-alpha * gate).exp())
}

/// One minus the error function: near zero by its Taylor series, elsewhere by the continued
/// fraction of Laplace.
fn erfc(x: f64) -> f64 {
    const ROOT_PI: f64 = 1.772_453_850_905_516;
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / ROOT_PI * sum;
    }
    let z = x.abs();
    let fraction = (1..200)
        .rev()
        .fold(z, |below, n| z + f64::from(n) / 2.0 / below);
    let tail = (-z * z).exp() / ROOT_PI / fraction;
    if x > 0.0 { tail } else { 2.0 - tail }
}

/// `x`: `[n_rows, n_heads, head_dim]`, the leading values of each head rotated by its row's
/// angles.
pub fn rope(x: &[f32], n_heads: usize, head_dim: usize, angles: RopeAngles<'_>) -> Vec<f64> {
    let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let half = angles.rotary_dim / 2;
    for (i, head) in out.chunks_exact_mut(head_dim).enumerate() {
        let row = i / n_heads;
        for j in 0..half {
            let (a, b) = match angles.style {
                RopeStyle::Half => (j, j + half),
                RopeStyle::Interleaved => (2 * j, 2 * j + 1),
            };
            let cos = f64::from(angles.cos[row * half + j]);
            let sin = f64::from(angles.sin[row * half + j]);
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
        }
    }
    out
}
