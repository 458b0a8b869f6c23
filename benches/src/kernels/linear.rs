//! Linear layers of every format.

use std::borrow::Cow;
use std::time::Duration;

use ::kernels::{Buffer, Device, Linear, LinearCall, Numerics, WeightSource, WeightType};
use anyhow::Result;

use super::{Cell, Work, fastest};
use crate::traffic::Rng;

/// Inputs and outputs of a layer: those of a model of about a billion weights.
const N_IN: usize = 2048;
const N_OUT: usize = 4096;
/// Bytes of weights that calls go around in.
const COLD: usize = 160 << 20;

pub(super) fn measure(
    device: &Device,
    ty: WeightType,
    rows: &[usize],
    time: Duration,
    cells: &mut Vec<Cell>,
) -> Result<()> {
    let mut rng = Rng(1);
    let values: Vec<f32> = (0..N_IN * N_OUT).map(|_| value(&mut rng) * 0.05).collect();
    let mut bytes = vec![0; values.len() / ty.block_elements() * ty.block_bytes()];
    ::kernels::quantize(ty, &values, &mut bytes);
    drop(values);
    let n_layers = COLD.div_ceil(bytes.len());
    let source = WeightSource {
        ty,
        n_out: N_OUT,
        n_in: N_IN,
        bytes: Cow::Borrowed(&bytes),
    };
    let layers: Vec<Linear> = (0..n_layers)
        .map(|_| Linear::pack(device, &source, Numerics::Native))
        .collect::<Result<_, _>>()?;
    for &n_rows in rows {
        let x: Vec<f32> = (0..n_rows * N_IN).map(|_| value(&mut rng)).collect();
        let x = Buffer::from_slice(device, &x);
        let mut out = Buffer::zeros(device, n_rows * N_OUT);
        let seconds = fastest(time, |i| {
            device.linear_into(
                &x,
                n_rows,
                &mut [LinearCall {
                    weight: &layers[i % layers.len()],
                    bias: None,
                    out: &mut out,
                }],
            );
        });
        let ops = (2 * n_rows * N_IN * N_OUT) as f64;
        let is_int8 = ty.is_quantized();
        let is_bf16 = ty == WeightType::BF16;
        cells.push(Cell {
            kernel: format!("linear {ty:?}"),
            n_rows,
            seconds,
            work: Work {
                bytes: layers[0].n_bytes() as f64,
                int8_ops: if is_int8 { ops } else { 0.0 },
                bf16_ops: if is_bf16 { ops } else { 0.0 },
                f32_ops: if is_int8 || is_bf16 { 0.0 } else { ops },
            },
        });
    }
    Ok(())
}

/// From -1 to 1.
pub(super) fn value(rng: &mut Rng) -> f32 {
    (rng.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
}
