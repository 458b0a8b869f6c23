//! References of linear layers.

use crate::format::{self, Layout, centred};
use crate::{WeightSource, dequantize};

/// Values of a group of activations.
const GROUP: usize = 32;

/// `x W^T + bias` with the weights' exact values. `x`: `[n_rows, n_in]`.
pub fn linear(source: &WeightSource<'_>, x: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let mut weights = vec![0.0; source.n_out * source.n_in];
    dequantize(source.ty, &source.bytes, &mut weights);
    let mut out = Vec::new();
    for x in x.chunks_exact(source.n_in) {
        for (i, weights) in weights.chunks_exact(source.n_in).enumerate() {
            let products = x.iter().zip(weights);
            let sum: f64 = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            out.push(sum + bias.map_or(0.0, |bias| f64::from(bias[i])));
        }
    }
    out
}

/// `Numerics::Native` of a block format: the same int8 activations and integer sums, put
/// together in f64.
pub fn linear_native(source: &WeightSource<'_>, x: &[f32]) -> Vec<f64> {
    let ty = source.ty;
    let layout = Layout::of(ty);
    let row_bytes = source.n_in / ty.block_elements() * ty.block_bytes();
    let mut out = Vec::new();
    for x in x.chunks_exact(source.n_in) {
        let groups: Vec<(Vec<i32>, f32)> = x.chunks_exact(GROUP).map(quantize).collect();
        for row in source.bytes.chunks_exact(row_bytes) {
            let mut total = 0.0;
            let mut at = 0;
            for block in row.chunks_exact(ty.block_bytes()) {
                let block = format::split(ty, block);
                for i in 0..ty.block_elements() {
                    let (codes, act_scale) = &groups[at / GROUP];
                    let (scale, offset) = block.scale_and_offset(layout, i);
                    let weight = f64::from(scale) * f64::from(centred(layout, block.codes[i]))
                        + f64::from(offset);
                    total += weight * f64::from(codes[at % GROUP]) * f64::from(*act_scale);
                    at += 1;
                }
            }
            out.push(total);
        }
    }
    out
}

/// Codes of a group and their scale: nearest, ties to even.
fn quantize(x: &[f32]) -> (Vec<i32>, f32) {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let codes = x
        .iter()
        // Two f32 multiplied in f64 are exact, so this rounds once.
        .map(|&x| (f64::from(x) * f64::from(inverse)).round_ties_even() as i32)
        .collect();
    (codes, largest / 127.0)
}
