//! Attention: decode of four sequences in the middle of a context, and a prompt from its begin.

use kernels::cuda::{
    self, Attention, AttentionRows, DevicePtr, KvScales, KvStorage, Scoring, SequenceRows,
};

use crate::{Counted, noise};

const N_HEADS: usize = 8;
const N_KV_HEADS: usize = 2;
const BLOCK_SIZE: usize = 16;

struct Placed {
    sequences: Vec<SequenceRows>,
    q: DevicePtr,
    cache: DevicePtr,
    scales: DevicePtr,
    sequences_at: DevicePtr,
    tables: DevicePtr,
    out: DevicePtr,
}

/// So many sequences of rows from `start`, over blocks of any order.
fn place(on: &mut Counted, n: usize, start: usize, n_rows: usize, head_dim: usize) -> Placed {
    let gpu = &mut on.gpu;
    let n_blocks = (start + n_rows).div_ceil(BLOCK_SIZE);
    let sequences: Vec<SequenceRows> = (0..n)
        .map(|i| SequenceRows {
            first_row: (i * n_rows) as u32,
            n_rows: n_rows as u32,
            start: start as u32,
            table: (i * n_blocks) as i32,
        })
        .collect();
    let fields: Vec<u8> = sequences
        .iter()
        .flat_map(|s| s.fields().padded(4))
        .collect();
    let tables: Vec<u32> = (0..(n * n_blocks) as u32).rev().collect();
    let n_slots = tables.len() * N_KV_HEADS * BLOCK_SIZE;
    Placed {
        sequences,
        q: gpu.upload(&noise(n * n_rows * N_HEADS * head_dim)),
        cache: gpu.upload(&vec![0_u8; n_slots * head_dim * 4]),
        scales: gpu.upload(&vec![0_f32; n_slots]),
        sequences_at: gpu.upload(&fields),
        tables: gpu.upload(&tables),
        out: gpu.alloc(n * n_rows * N_HEADS * head_dim * 4),
    }
}

fn scoring() -> Scoring {
    Scoring {
        scale: 0.1,
        ..Scoring::default()
    }
}

pub(crate) fn count(on: &mut Counted) {
    if on.capability == (8, 0) {
        for head_dim in [64, 80, 96, 128, 256] {
            tensor(
                on,
                head_dim,
                4,
                699,
                1,
                "4 rows at 700 positions, 8 heads over 2",
            );
            tensor(on, head_dim, 1, 0, 96, "a prompt of 96, 8 heads over 2");
        }
    }
    for storage in [
        KvStorage::F32,
        KvStorage::Bf16,
        KvStorage::Int8,
        KvStorage::Fp8,
    ] {
        by_rows(
            on,
            storage,
            192,
            "2 rows at 300 positions, 8 heads of 192 over 2",
        );
        if storage.has_scales() {
            for head_dim in [64, 128, 256] {
                by_rows(
                    on,
                    storage,
                    head_dim,
                    "2 rows at 300 positions, 8 heads over 2",
                );
            }
        }
    }
}

fn tensor(on: &mut Counted, head_dim: usize, n: usize, start: usize, n_rows: usize, shape: &str) {
    let at = place(on, n, start, n_rows, head_dim);
    let plan = cuda::plan(&at.sequences, N_HEADS / N_KV_HEADS, None);
    let items = plan.item_bytes();
    let combines = plan.combine_bytes();
    let n_parts = plan.n_parts * N_KV_HEADS;
    let op = Attention {
        q: at.q,
        keys: at.cache,
        values: at.cache,
        sequences: at.sequences_at,
        tables: at.tables,
        items: on.gpu.upload(&items),
        out: at.out,
        part_max: on.gpu.alloc(n_parts * 4),
        part_sum: on.gpu.alloc(n_parts * 4),
        part_out: on.gpu.alloc(n_parts * head_dim * 4),
        n_heads: N_HEADS,
        n_kv_heads: N_KV_HEADS,
        head_dim,
        block_size: BLOCK_SIZE,
        scoring: scoring(),
    };
    on.count(shape, &cuda::paged_attention(&op, plan.items.len()));
    if head_dim == 128 && n_parts > 0 {
        let combines = on.gpu.upload(&combines);
        let shape = format!("{shape} of 128");
        on.count(&shape, &cuda::combine(&op, combines, plan.combines.len()));
    }
}

fn by_rows(on: &mut Counted, storage: KvStorage, head_dim: usize, shape: &str) {
    let at = place(on, 2, 299, 1, head_dim);
    let op = AttentionRows {
        q: at.q,
        keys: at.cache,
        values: at.cache,
        scales: KvScales {
            keys: at.scales,
            values: at.scales,
        },
        storage,
        sequences: at.sequences_at,
        sequence_of: on.gpu.upload(&[0_u32, 1]),
        tables: at.tables,
        out: at.out,
        n_heads: N_HEADS,
        n_kv_heads: N_KV_HEADS,
        head_dim,
        block_size: BLOCK_SIZE,
        scoring: scoring(),
    };
    on.count(shape, &cuda::row_attention(&op, 2));
}
