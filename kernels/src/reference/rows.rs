//! References of the ops on rows and values.

use crate::{RopeAngles, RopeStyle};

/// `x / sqrt(mean(x^2) + eps) * weight` of each row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let root = (squares / weight.len() as f64 + f64::from(eps)).sqrt();
        for (&x, &weight) in row.iter().zip(weight) {
            out.push(f64::from(x) / root * f64::from(weight));
        }
    }
    out
}

/// `silu(gate) * up`.
pub fn silu_mul(gate: &[f32], up: &[f32]) -> Vec<f64> {
    let pairs = gate.iter().zip(up);
    pairs
        .map(|(&gate, &up)| {
            let gate = f64::from(gate);
            gate / (1.0 + (-gate).exp()) * f64::from(up)
        })
        .collect()
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
