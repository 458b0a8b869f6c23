//! Rotation and attention on a GPU.

use super::gpu::Gpu;
use super::kv::CudaKv;
use super::scratch::Kind;
use super::step::Step;
use crate::cuda::{
    self, Attention, AttentionItem, AttentionRows, Combine, DevicePtr, KvStorage, Rope, Scoring,
    SequenceRows,
};
use crate::{AttentionRow, KvShape, RopeAngles};

/// Addresses of a [`crate::RopeWriteKv`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeAt {
    pub(crate) q: DevicePtr,
    pub(crate) k: DevicePtr,
    pub(crate) v: DevicePtr,
    pub(crate) n_heads: usize,
    pub(crate) layer: usize,
}

/// Addresses of a [`crate::PagedAttention`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionAt {
    pub(crate) q: DevicePtr,
    pub(crate) out: DevicePtr,
    pub(crate) n_heads: usize,
    pub(crate) layer: usize,
    pub(crate) scoring: Scoring,
}

/// What the device has to know of the rows, the same for all layers.
#[derive(Clone, Copy, Debug)]
struct RowsAt {
    sequences: DevicePtr,
    tables: DevicePtr,
}

impl Gpu {
    pub(crate) fn rope_write_kv(
        &self,
        at: RopeAt,
        angles: RopeAngles<'_>,
        slots: &[u32],
        (kv, shape): (&CudaKv, KvShape),
    ) {
        let (keys, values) = kv.layer(at.layer);
        let n_angles = slots.len() * angles.rotary_dim / 2;
        let mut step = self.step();
        let op = Rope {
            q: at.q,
            k: at.k,
            v: at.v,
            cos: step.put_f32(&angles.cos[..n_angles]),
            sin: step.put_f32(&angles.sin[..n_angles]),
            slots: step.put_u32(slots),
            keys,
            values,
            scales: kv.layer_scales(at.layer),
            storage: kv.storage,
            style: angles.style,
            n_heads: at.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            rotary_dim: angles.rotary_dim,
            block_size: shape.block_size,
        };
        step.push(cuda::rope_write_kv(&op, slots.len()));
    }

    pub(crate) fn paged_attention(
        &self,
        at: AttentionAt,
        rows: &[AttentionRow<'_>],
        (kv, shape): (&CudaKv, KvShape),
    ) {
        let mut step = self.step();
        let mut sequences = Vec::with_capacity(rows.len());
        let mut tables: Vec<u32> = Vec::new();
        for row in rows {
            let n_blocks = (row.start + row.n_rows).div_ceil(shape.block_size) - row.first_block;
            sequences.push(SequenceRows {
                first_row: cuda::uint(row.first_row),
                n_rows: cuda::uint(row.n_rows),
                start: cuda::uint(row.start),
                table: cuda::int(tables.len()) - cuda::int(row.first_block),
            });
            tables.extend(&row.blocks[..n_blocks]);
        }
        let fields = sequences.iter().flat_map(|row| row.fields().padded(4));
        let places = RowsAt {
            sequences: step.put(&fields.collect::<Vec<u8>>()),
            tables: step.put_u32(&tables),
        };
        if kv.storage == KvStorage::Bf16 && cuda::has_head_dim(shape.head_dim) {
            step.tensor_attention(at, &sequences, places, (kv, shape));
        } else {
            step.row_attention(at, &sequences, places, (kv, shape));
        }
    }
}

impl Step {
    fn row_attention(
        &mut self,
        at: AttentionAt,
        sequences: &[SequenceRows],
        places: RowsAt,
        (kv, shape): (&CudaKv, KvShape),
    ) {
        let (keys, values) = kv.layer(at.layer);
        let mut sequence_of = Vec::new();
        for (i, sequence) in sequences.iter().enumerate() {
            let first = sequence.first_row as usize;
            assert_eq!(first, sequence_of.len(), "sequences follow each other");
            sequence_of.resize(first + sequence.n_rows as usize, cuda::uint(i));
        }
        let op = AttentionRows {
            q: at.q,
            keys,
            values,
            scales: kv.layer_scales(at.layer),
            storage: kv.storage,
            sequences: places.sequences,
            sequence_of: self.put_u32(&sequence_of),
            tables: places.tables,
            out: at.out,
            n_heads: at.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            block_size: shape.block_size,
            scoring: at.scoring,
        };
        self.push(cuda::row_attention(&op, sequence_of.len()));
    }

    fn tensor_attention(
        &mut self,
        at: AttentionAt,
        sequences: &[SequenceRows],
        places: RowsAt,
        (kv, shape): (&CudaKv, KvShape),
    ) {
        let (keys, values) = kv.layer(at.layer);
        let mut plan = cuda::plan(sequences, at.n_heads / shape.n_kv_heads, at.scoring.window);
        // Filled up with items of nothing, so that steps of as many rows start the same launches.
        let n_items = plan.items.len().next_power_of_two();
        plan.items.resize(n_items, NO_ITEM);
        let n_combines = match plan.combines.len() {
            0 => 0,
            n => n.next_power_of_two(),
        };
        plan.combines.resize(n_combines, NO_COMBINE);
        let items = plan.item_bytes();
        let combines = plan.combine_bytes();
        let n = plan.n_parts * shape.n_kv_heads;
        let op = Attention {
            q: at.q,
            keys,
            values,
            sequences: places.sequences,
            tables: places.tables,
            items: self.put(&items),
            out: at.out,
            part_max: self.scratch(Kind::PartMax, 4 * n),
            part_sum: self.scratch(Kind::PartSum, 4 * n),
            part_out: self.scratch(Kind::PartOut, 4 * n * shape.head_dim),
            n_heads: at.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            block_size: shape.block_size,
            scoring: at.scoring,
        };
        self.push(cuda::paged_attention(&op, plan.items.len()));
        let combines = self.put(&combines);
        self.push(cuda::combine(&op, combines, plan.combines.len()));
    }
}

/// No splits: a block of threads that does nothing.
const NO_ITEM: AttentionItem = AttentionItem {
    sequence: 0,
    first_packed: 0,
    first_split: 0,
    end_split: 0,
    first_part: -1,
};

/// No rows.
const NO_COMBINE: Combine = Combine {
    sequence: 0,
    first_packed: 0,
    n_packed: 0,
    first_part: 0,
    n_parts: 0,
};
