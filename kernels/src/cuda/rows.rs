//! Launches of ops on rows and values. Shapes are those of the methods of [`crate::Device`].

use super::launch::{DevicePtr, Fields, Launch, Params};
use super::{format_code, int};
use crate::{Activation, NormKind, WeightType};

/// Where tokens are that may not have been to the host.
#[derive(Clone, Copy, Debug)]
pub struct TokensAt {
    pub given: DevicePtr,
    /// For each token the number of the answer that it is, or less than zero: it is given. Null:
    /// all are given.
    pub drawn: DevicePtr,
    /// Answers of the step before; see [`super::sample_rows`].
    pub answers: DevicePtr,
}

impl TokensAt {
    pub fn given(given: DevicePtr) -> Self {
        Self {
            given,
            drawn: DevicePtr::NULL,
            answers: DevicePtr::NULL,
        }
    }
}

/// `out[i] = table[tokens[i]]`; a table of any format, packed by [`super::pack`].
pub fn embed(
    ty: WeightType,
    table: DevicePtr,
    scales: DevicePtr,
    n_in: usize,
    tokens: TokensAt,
    n_tokens: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new()
        .int(format_code(ty))
        .ptr(table)
        .ptr(scales)
        .int(int(n_in))
        .ptr(tokens.given)
        .ptr(tokens.drawn)
        .ptr(tokens.answers)
        .ptr(out);
    Launch::new("embed", "embed", params).over_rows(n_tokens, n_in)
}

/// A norm of rows of `width` values.
#[derive(Clone, Copy, Debug)]
pub struct NormRows {
    pub kind: NormKind,
    pub x: DevicePtr,
    /// Not null: `residual += scale * x` comes first, and the sum is normed.
    pub residual: DevicePtr,
    pub scale: f32,
    pub weight: DevicePtr,
    /// May be null.
    pub bias: DevicePtr,
    pub eps: f32,
    pub width: usize,
    /// May be `x`.
    pub out: DevicePtr,
}

pub fn norm_rows(op: &NormRows, n_rows: usize) -> Launch {
    let params = Params::new()
        .ptr(op.x)
        .ptr(op.residual)
        .float(op.scale)
        .ptr(op.weight)
        .ptr(op.bias)
        .float(op.eps)
        .int(i32::from(op.kind == NormKind::Layer))
        .int(int(op.width))
        .ptr(op.out);
    Launch::new("norm_rows", "norm_rows", params)
        .threads(256)
        .grid([n_rows, 1, 1])
}

/// `out = activation(gate) * up`; with a null `up`, `out = activation(gate)`.
pub fn activate(
    activation: Activation,
    gate: DevicePtr,
    up: DevicePtr,
    n: usize,
    out: DevicePtr,
) -> Launch {
    let (code, alpha, limit) = match activation {
        Activation::Silu => (0, 0.0, 0.0),
        Activation::Gelu => (1, 0.0, 0.0),
        Activation::GeluTanh => (2, 0.0, 0.0),
        Activation::QuickGelu => (3, 0.0, 0.0),
        Activation::Relu => (4, 0.0, 0.0),
        Activation::ClampedSwish { alpha, limit } => (5, alpha, limit),
    };
    let params = Params::new()
        .int(code)
        .float(alpha)
        .float(limit)
        .ptr(gate)
        .ptr(up)
        .size(n)
        .ptr(out);
    Launch::new("activate", "activate", params).over_values(n)
}

pub fn fill(x: DevicePtr, value: f32, n: usize) -> Launch {
    let params = Params::new().ptr(x).float(value).size(n);
    Launch::new("elementwise", "fill", params).over_values(n)
}

/// `out += scale * x`.
pub fn add_scaled(out: DevicePtr, x: DevicePtr, scale: f32, n: usize) -> Launch {
    let params = Params::new().ptr(out).ptr(x).float(scale).size(n);
    Launch::new("elementwise", "add_scaled", params).over_values(n)
}

/// `x = scale * x`, or `cap * tanh(scale * x / cap)`.
pub fn scale_softcap(x: DevicePtr, scale: f32, cap: Option<f32>, n: usize) -> Launch {
    let cap = cap.unwrap_or(0.0);
    let params = Params::new().ptr(x).float(scale).float(cap).size(n);
    Launch::new("elementwise", "scale_softcap", params).over_values(n)
}

/// Limits values to `-limit..=limit`.
pub fn clamp(x: DevicePtr, limit: f32, n: usize) -> Launch {
    let params = Params::new().ptr(x).float(limit).size(n);
    Launch::new("elementwise", "clamp", params).over_values(n)
}

/// `out[i] = x[rows[i]]`.
pub fn gather_rows(
    x: DevicePtr,
    width: usize,
    rows: DevicePtr,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new().ptr(x).int(int(width)).ptr(rows).ptr(out);
    Launch::new("rows", "gather_rows", params).over_rows(n_rows, width)
}

/// `out[rows[i]] = x[i]`; no row occurs twice.
pub fn scatter_rows(
    x: DevicePtr,
    width: usize,
    rows: DevicePtr,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new().ptr(x).int(int(width)).ptr(rows).ptr(out);
    Launch::new("rows", "scatter_rows", params).over_rows(n_rows, width)
}

/// `x = x * scale + shift` in the rows that are listed, each step rounded; `scale` and `shift` may
/// be null.
pub fn adjust_rows(
    x: DevicePtr,
    width: usize,
    (rows, n_rows): (DevicePtr, usize),
    scale: DevicePtr,
    shift: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(x)
        .int(int(width))
        .ptr(rows)
        .ptr(scale)
        .ptr(shift);
    Launch::new("rows", "adjust_rows", params).over_rows(n_rows, width)
}

/// `out[rows[i]] += weights[i] * x[i]`; no row occurs twice.
pub fn scatter_add_rows(
    x: DevicePtr,
    width: usize,
    rows: DevicePtr,
    weights: DevicePtr,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(x)
        .int(int(width))
        .ptr(rows)
        .ptr(weights)
        .ptr(out);
    Launch::new("rows", "scatter_add_rows", params).over_rows(n_rows, width)
}

/// `out[row] += sigmoid(gate[row]) * x[row]`.
pub fn add_gated_rows(
    x: DevicePtr,
    gate: DevicePtr,
    width: usize,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new().ptr(x).ptr(gate).int(int(width)).ptr(out);
    Launch::new("rows", "add_gated_rows", params).over_rows(n_rows, width)
}

/// One side of a [`strided_copy`]: values between pieces, and where in a piece it begins.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    pub at: DevicePtr,
    pub stride: usize,
    pub offset: usize,
}

/// Piece `i / repeat` of `from` to piece `i` of `to`, `n` pieces of `len` values.
pub fn strided_copy(from: Copied, repeat: usize, to: Copied, n: usize, len: usize) -> Launch {
    let params = Params::new()
        .ptr(from.at)
        .size(from.stride)
        .size(from.offset)
        .int(int(repeat))
        .ptr(to.at)
        .size(to.stride)
        .size(to.offset)
        .int(int(len));
    Launch::new("rows", "strided_copy", params).over_rows(n, len)
}

/// Copies blocks of a cache in each of its layers. `pairs`: `[n_pairs][2]` block numbers, from
/// and to. `block_bytes` of one layer, a multiple of 16.
pub fn copy_blocks(
    cache: DevicePtr,
    n_layers: usize,
    layer_bytes: usize,
    block_bytes: usize,
    pairs: DevicePtr,
    n_pairs: usize,
) -> Launch {
    assert!(
        block_bytes.is_multiple_of(16) && layer_bytes.is_multiple_of(16),
        "blocks are copied in words of 16 bytes"
    );
    let params = Params::new()
        .ptr(cache)
        .size(layer_bytes / 16)
        .int(int(block_bytes / 16))
        .ptr(pairs);
    Launch::new("copy_blocks", "copy_blocks", params)
        .threads(256)
        .grid([n_pairs, n_layers, 1])
}

/// A struct of 4-byte fields, for [`Params::value4`].
pub(super) fn ints(values: &[usize]) -> Fields {
    let add = |fields: Fields, &value: &usize| fields.int(int(value));
    values.iter().fold(Fields::new(), add)
}
