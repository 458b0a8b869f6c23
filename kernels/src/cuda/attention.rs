//! Launches of rotation, the paged cache and attention.

use super::launch::{DevicePtr, Fields, Launch, Params};
use super::rows::ints;
use super::{KvStorage, int, uint};
use crate::RopeStyle;

/// Packed rows (query rows times the heads that share a kv head) of one block of threads.
const TILE: usize = 64;
/// Positions of a split.
const SPLIT: usize = 512;

/// Of one layer: `[n_blocks][n_kv_heads][block_size]` f32 each; null for a storage type without.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvScales {
    pub keys: DevicePtr,
    pub values: DevicePtr,
}

/// Rotation and writing to the cache; angles and slots lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    pub q: DevicePtr,
    pub k: DevicePtr,
    pub v: DevicePtr,
    pub cos: DevicePtr,
    pub sin: DevicePtr,
    pub slots: DevicePtr,
    /// Of one layer: `[n_blocks][n_kv_heads][block_size][head_dim]` each.
    pub keys: DevicePtr,
    pub values: DevicePtr,
    pub scales: KvScales,
    pub storage: KvStorage,
    pub style: RopeStyle,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub rotary_dim: usize,
    pub block_size: usize,
}

/// # Panics
/// For heads of more than 1024 values.
pub fn rope_write_kv(op: &Rope, n_rows: usize) -> Launch {
    assert!(op.head_dim <= 1024, "a thread a value of a head");
    let interleaved = usize::from(op.style == RopeStyle::Interleaved);
    let shape = [
        op.n_heads,
        op.n_kv_heads,
        op.head_dim,
        op.rotary_dim,
        interleaved,
        op.block_size,
    ];
    let caches = Fields::new()
        .ptr(op.keys)
        .ptr(op.values)
        .ptr(op.scales.keys)
        .ptr(op.scales.values);
    let params = Params::new()
        .ptr(op.q)
        .ptr(op.k)
        .ptr(op.v)
        .ptr(op.cos)
        .ptr(op.sin)
        .ptr(op.slots)
        .value(&caches)
        .value4(&ints(&shape));
    let kernel = match op.storage {
        KvStorage::F32 => "rope_write_kv_f32",
        KvStorage::Bf16 => "rope_write_kv_bf16",
        KvStorage::Int8 => "rope_write_kv_int8",
        KvStorage::Fp8 => "rope_write_kv_fp8",
    };
    Launch::new("rope_write_kv", kernel, params)
        .threads(uint(op.head_dim.next_multiple_of(32)))
        .grid([n_rows, op.n_heads + op.n_kv_heads, 1])
}

/// Query rows of one sequence, as [`crate::AttentionRow`]. The block of position `p` is entry
/// `table + p / block_size` of the tables of all sequences; `table` may be negative, since blocks
/// that no row sees are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    pub first_row: u32,
    pub n_rows: u32,
    pub start: u32,
    pub table: i32,
}

/// How queries weigh positions; pointers may be null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scoring {
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
    pub alibi_slopes: DevicePtr,
    pub sinks: DevicePtr,
}

impl Scoring {
    fn fields(&self) -> Fields {
        Fields::new()
            .float(self.scale)
            .float(self.softcap.unwrap_or(0.0))
            // A window beyond every position is none.
            .int(self.window.map_or(0, |n| i32::try_from(n).unwrap_or(0)))
            .ptr(self.alibi_slopes)
            .ptr(self.sinks)
    }
}

impl SequenceRows {
    /// As it lies on the device.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .uint(self.first_row)
            .uint(self.n_rows)
            .uint(self.start)
            .int(self.table)
    }
}

/// What one block of threads computes, times the kv heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionItem {
    pub sequence: u32,
    pub first_packed: u32,
    pub first_split: u32,
    pub end_split: u32,
    /// -1: the result; else a part of it.
    pub first_part: i32,
}

impl AttentionItem {
    /// As it lies on the device.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .uint(self.sequence)
            .uint(self.first_packed)
            .uint(self.first_split)
            .uint(self.end_split)
            .int(self.first_part)
    }
}

/// Parts to be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combine {
    pub sequence: u32,
    pub first_packed: u32,
    pub n_packed: u32,
    pub first_part: u32,
    pub n_parts: u32,
}

impl Combine {
    /// As it lies on the device.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .uint(self.sequence)
            .uint(self.first_packed)
            .uint(self.n_packed)
            .uint(self.first_part)
            .uint(self.n_parts)
    }
}

/// The work of one step.
#[derive(Clone, Debug, Default)]
pub struct AttentionPlan {
    pub items: Vec<AttentionItem>,
    pub combines: Vec<Combine>,
    /// Rows of parts, times the kv heads.
    pub n_parts: usize,
}

impl AttentionPlan {
    /// `items` as kernels read them.
    pub fn item_bytes(&self) -> Vec<u8> {
        let fields = self.items.iter().map(AttentionItem::fields);
        fields.flat_map(|fields| fields.padded(4)).collect()
    }

    /// `combines` as kernels read them.
    pub fn combine_bytes(&self) -> Vec<u8> {
        let fields = self.combines.iter().map(Combine::fields);
        fields.flat_map(|fields| fields.padded(4)).collect()
    }
}

/// Cuts rows into blocks of 64 packed rows, and short ones with long contexts into splits as
/// well; what a row gives does not depend on how.
pub fn plan(sequences: &[SequenceRows], group: usize, window: Option<usize>) -> AttentionPlan {
    let mut plan = AttentionPlan::default();
    for (sequence, rows) in sequences.iter().enumerate() {
        let n_packed = rows.n_rows as usize * group;
        let window = window.unwrap_or(usize::MAX);
        for first in (0..n_packed).step_by(TILE) {
            let n = TILE.min(n_packed - first);
            let position = |packed: usize| rows.start as usize + packed / group;
            let lowest = (position(first) + 1).saturating_sub(window) / SPLIT;
            let end = position(first + n - 1) / SPLIT + 1;
            // Long prompts fill the device without splitting.
            let spread = n_packed <= TILE && end - lowest > 1;
            let step = if spread { 1 } else { end - lowest };
            if spread {
                plan.combines.push(Combine {
                    sequence: uint(sequence),
                    first_packed: uint(first),
                    n_packed: uint(n),
                    first_part: uint(plan.n_parts),
                    n_parts: uint(end - lowest),
                });
            }
            for split in (lowest..end).step_by(step) {
                let part = spread.then(|| int(plan.n_parts));
                plan.n_parts += if spread { n } else { 0 };
                plan.items.push(AttentionItem {
                    sequence: uint(sequence),
                    first_packed: uint(first),
                    first_split: uint(split),
                    end_split: uint(split + step),
                    first_part: part.unwrap_or(-1),
                });
            }
        }
    }
    plan
}

/// Attention on tensor cores over a bf16 cache.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub q: DevicePtr,
    pub keys: DevicePtr,
    pub values: DevicePtr,
    /// [`SequenceRows`], 16 bytes each.
    pub sequences: DevicePtr,
    pub tables: DevicePtr,
    /// [`AttentionItem`]s, 20 bytes each.
    pub items: DevicePtr,
    pub out: DevicePtr,
    /// `[n_parts][n_kv_heads]` f32.
    pub part_max: DevicePtr,
    pub part_sum: DevicePtr,
    /// `[n_parts][n_kv_heads][head_dim]` f32.
    pub part_out: DevicePtr,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub scoring: Scoring,
}

/// Whether [`paged_attention`] has a kernel for heads of so many values.
pub fn has_head_dim(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 80 | 96 | 128 | 256)
}

/// # Panics
/// For head dimensions that are not [there](has_head_dim).
pub fn paged_attention(op: &Attention, n_items: usize) -> Launch {
    let (kernel, positions) = match op.head_dim {
        64 => ("attention_64", 64),
        80 => ("attention_80", 64),
        96 => ("attention_96", 64),
        128 => ("attention_128", 64),
        256 => ("attention_256", 32),
        _ => panic!("no tensor-core attention for heads of {}", op.head_dim),
    };
    // Keys, values, queries of wide heads, and where positions lie.
    let n_queries = if op.head_dim > 128 { 64 } else { 1 };
    let rows = 2 * positions + n_queries;
    let shared = rows * (op.head_dim + 8) * 2 + 2 * positions * 8;
    Launch::new("attention", kernel, Params::new().value(&op.fields()))
        .grid([n_items, op.n_kv_heads, 1])
        .shared(shared)
}

/// Puts parts together. `items`: [`Combine`]s, 20 bytes each.
pub fn combine(op: &Attention, items: DevicePtr, n_items: usize) -> Launch {
    let params = Params::new().value(&op.fields()).ptr(items);
    Launch::new("attention", "attention_combine", params).grid([n_items, op.n_kv_heads, 1])
}

impl Attention {
    fn fields(&self) -> Fields {
        Fields::new()
            .ptr(self.q)
            .ptr(self.keys)
            .ptr(self.values)
            .ptr(self.sequences)
            .ptr(self.tables)
            .ptr(self.items)
            .ptr(self.out)
            .ptr(self.part_max)
            .ptr(self.part_sum)
            .ptr(self.part_out)
            .int(int(self.n_heads))
            .int(int(self.n_kv_heads))
            .int(int(self.head_dim))
            .int(int(self.block_size))
            .fields(&self.scoring.fields())
    }
}

/// Attention of single rows in f32, over any cache and heads of up to 576 values.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRows {
    pub q: DevicePtr,
    pub keys: DevicePtr,
    pub values: DevicePtr,
    pub scales: KvScales,
    pub storage: KvStorage,
    pub sequences: DevicePtr,
    /// The sequence of each query row.
    pub sequence_of: DevicePtr,
    pub tables: DevicePtr,
    pub out: DevicePtr,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub scoring: Scoring,
}

/// Query heads of one block of the kernels that share what they read.
const HEADS: usize = 4;

/// The kernel that computes the query heads of a kv head together: caches of 8 bits, and heads
/// that lanes share evenly.
fn shared_heads(op: &AttentionRows) -> Option<&'static str> {
    Some(match (op.storage, op.head_dim) {
        (KvStorage::Int8, 64) => "attention_heads_int8_64",
        (KvStorage::Int8, 128) => "attention_heads_int8_128",
        (KvStorage::Int8, 256) => "attention_heads_int8_256",
        (KvStorage::Fp8, 64) => "attention_heads_fp8_64",
        (KvStorage::Fp8, 128) => "attention_heads_fp8_128",
        (KvStorage::Fp8, 256) => "attention_heads_fp8_256",
        _ => return None,
    })
}

/// # Panics
/// For heads of more than 576 values.
pub fn row_attention(op: &AttentionRows, n_rows: usize) -> Launch {
    assert!(op.head_dim <= 576, "a lane holds 18 values of a head");
    let fields = Fields::new()
        .ptr(op.q)
        .ptr(op.keys)
        .ptr(op.values)
        .ptr(op.sequences)
        .ptr(op.sequence_of)
        .ptr(op.tables)
        .ptr(op.out)
        .int(int(op.n_heads))
        .int(int(op.n_kv_heads))
        .int(int(op.head_dim))
        .int(int(op.block_size))
        .fields(&op.scoring.fields())
        .ptr(op.scales.keys)
        .ptr(op.scales.values);
    if let Some(kernel) = shared_heads(op) {
        let n_blocks = (op.n_heads / op.n_kv_heads).div_ceil(HEADS);
        return Launch::new("attention_heads", kernel, Params::new().value(&fields))
            .grid([n_rows, op.n_kv_heads * n_blocks, 1])
            .shared(4 * HEADS * (op.head_dim + 4) * 4);
    }
    let kernel = match op.storage {
        KvStorage::F32 => "attention_rows_f32",
        KvStorage::Bf16 => "attention_rows_bf16",
        KvStorage::Int8 => "attention_rows_int8",
        KvStorage::Fp8 => "attention_rows_fp8",
    };
    Launch::new("attention_rows", kernel, Params::new().value(&fields))
        .grid([n_rows, op.n_heads, 1])
        .shared(4 * (op.head_dim + 2) * 4)
}
