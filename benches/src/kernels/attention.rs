//! Attention over a long context: of many sequences with a row each, and of rows of one sequence.

use std::time::Duration;

use ::kernels::{
    AttentionRow, Buffer, Device, KvCache, KvShape, KvType, PagedAttention, RopeAngles, RopeStyle,
    RopeWriteKv,
};
use anyhow::Result;

use super::linear::value;
use super::{Cell, Work, fastest};
use crate::traffic::Rng;

const CONTEXT: usize = 2048;
const BLOCK_SIZE: usize = 16;
const N_BLOCKS: usize = CONTEXT / BLOCK_SIZE;

/// Query heads, kv heads, dimensions of a head.
const SHAPES: [(usize, usize, usize); 2] = [(9, 3, 64), (32, 8, 64)];

pub(super) fn measure(
    device: &Device,
    rows: &[usize],
    time: Duration,
    cells: &mut Vec<Cell>,
) -> Result<()> {
    for (n_heads, n_kv_heads, head_dim) in SHAPES {
        for decode in [true, false] {
            for &n_rows in rows {
                // More sequences than are ever decoded together.
                if decode && n_rows > 64 {
                    continue;
                }
                let shape = KvShape {
                    n_layers: 1,
                    n_blocks: N_BLOCKS * if decode { n_rows } else { 1 },
                    block_size: BLOCK_SIZE,
                    n_kv_heads,
                    head_dim,
                };
                let kv = filled(device, shape)?;
                let seconds = run(device, &kv, shape, n_heads, decode, n_rows, time);
                cells.push(cell(shape, n_heads, decode, n_rows, seconds));
            }
        }
    }
    Ok(())
}

/// A cache whose every slot was written: memory that never was is the same page of zeros
/// everywhere, and costs nothing to read.
fn filled(device: &Device, shape: KvShape) -> Result<KvCache> {
    let mut kv = KvCache::new(device, shape, KvType::Bf16)?;
    let mut rng = Rng(2);
    let len = shape.block_size * shape.n_kv_heads * shape.head_dim;
    let values: Vec<f32> = (0..len).map(|_| value(&mut rng)).collect();
    let values = Buffer::from_slice(device, &values);
    let mut q = Buffer::zeros(device, len);
    for block in 0..shape.n_blocks as u32 {
        let first = block * shape.block_size as u32;
        let slots: Vec<u32> = (first..first + shape.block_size as u32).collect();
        device.rope_write_kv(RopeWriteKv {
            q: &mut q,
            k: &values,
            v: &values,
            angles: RopeAngles {
                cos: &[],
                sin: &[],
                rotary_dim: 0,
                style: RopeStyle::Half,
            },
            kv: &mut kv,
            layer: 0,
            slots: &slots,
            n_heads: shape.n_kv_heads,
        });
    }
    Ok(kv)
}

/// Sequences of a row each, or the last rows of one sequence. Blocks lie as they come after a
/// while: anywhere.
fn run(
    device: &Device,
    kv: &KvCache,
    shape: KvShape,
    n_heads: usize,
    decode: bool,
    n_rows: usize,
    time: Duration,
) -> f64 {
    let mut rng = Rng(1);
    let len = n_rows * n_heads * shape.head_dim;
    let q: Vec<f32> = (0..len).map(|_| value(&mut rng)).collect();
    let q = Buffer::from_slice(device, &q);
    let mut out = Buffer::zeros(device, len);
    let mut blocks: Vec<u32> = (0..shape.n_blocks as u32).collect();
    for i in (1..blocks.len()).rev() {
        blocks.swap(i, (rng.next() % (i as u64 + 1)) as usize);
    }
    let sequences: Vec<AttentionRow<'_>> = if decode {
        blocks
            .chunks(N_BLOCKS)
            .enumerate()
            .map(|(first_row, blocks)| AttentionRow {
                first_row,
                n_rows: 1,
                start: CONTEXT - 1,
                first_block: 0,
                blocks,
            })
            .collect()
    } else {
        vec![AttentionRow {
            first_row: 0,
            n_rows,
            start: CONTEXT - n_rows,
            first_block: 0,
            blocks: &blocks,
        }]
    };
    fastest(time, |_| {
        device.paged_attention_into(PagedAttention {
            q: &q,
            kv,
            layer: 0,
            rows: &sequences,
            n_heads,
            scale: 0.125,
            window: None,
            softcap: None,
            alibi_slopes: None,
            sinks: None,
            out: &mut out,
        });
    })
}

fn cell(shape: KvShape, n_heads: usize, decode: bool, n_rows: usize, seconds: f64) -> Cell {
    let positions = if decode {
        n_rows * CONTEXT
    } else {
        n_rows * (CONTEXT - n_rows) + n_rows * (n_rows + 1) / 2
    };
    let bytes = shape.bytes_per_block(KvType::Bf16) * shape.n_blocks;
    let kind = if decode { "decode" } else { "prefill" };
    Cell {
        kernel: format!("{kind} {n_heads}/{} x {}", shape.n_kv_heads, shape.head_dim),
        n_rows,
        seconds,
        work: Work {
            bytes: bytes as f64,
            int8_ops: 0.0,
            bf16_ops: 0.0,
            f32_ops: (4 * positions * n_heads * shape.head_dim) as f64,
        },
    }
}
