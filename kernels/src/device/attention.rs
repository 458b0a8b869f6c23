//! Rotation, the paged cache and attention.

use super::{Backend, Device, check};
use crate::cuda::{AttentionAt, DevicePtr, RopeAt, Scoring};
use crate::{Buffer, KvCache, PagedAttention, RopeWriteKv, cpu};

impl Device {
    /// Rotates queries in place, rotates keys, and writes keys and values to their slots.
    pub fn rope_write_kv(&self, op: RopeWriteKv<'_>) {
        let shape = op.kv.shape();
        let n_rows = op.slots.len();
        let half = op.angles.rotary_dim / 2;
        assert!(op.angles.rotary_dim.is_multiple_of(2), "pairs are rotated");
        assert!(
            2 * half <= shape.head_dim,
            "more is rotated than a head has"
        );
        assert!(op.angles.cos.len() >= n_rows * half, "too few cosines");
        assert!(op.angles.sin.len() >= n_rows * half, "too few sines");
        assert!(op.layer < shape.n_layers, "no such layer");
        let kv_len = n_rows * shape.n_kv_heads * shape.head_dim;
        check(op.q, n_rows * op.n_heads * shape.head_dim, "q");
        check(op.k, kv_len, "k");
        check(op.v, kv_len, "v");
        let n_slots = shape.n_blocks * shape.block_size;
        assert!(
            op.slots.iter().all(|&slot| (slot as usize) < n_slots),
            "a slot is not in the cache of {n_slots}"
        );
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::rope::rope_write_kv(cpu, op),
            Backend::Cuda(gpu) => {
                let at = RopeAt {
                    q: op.q.device_ptr(),
                    k: op.k.device_ptr(),
                    v: op.v.device_ptr(),
                    n_heads: op.n_heads,
                    layer: op.layer,
                };
                gpu.rope_write_kv(at, op.angles, op.slots, (op.kv.on_cuda(), shape));
            }
        }
    }

    /// Causal attention of ragged rows over the paged cache. Rows of `out` that are in no
    /// sequence stay as they are.
    pub fn paged_attention_into(&self, op: PagedAttention<'_>) {
        let shape = op.kv.shape();
        assert!(op.layer < shape.n_layers, "no such layer");
        assert!(
            op.n_heads.is_multiple_of(shape.n_kv_heads),
            "query heads share kv heads evenly"
        );
        assert!(op.window != Some(0), "a query sees itself");
        for per_head in [op.alibi_slopes, op.sinks].into_iter().flatten() {
            assert!(per_head.len() >= op.n_heads, "a value for each head");
        }
        let mut ends = 0;
        for rows in op.rows {
            // Ascending, so that no two sequences write one row.
            assert!(rows.first_row >= ends, "rows of sequences overlap");
            ends = rows.first_row + rows.n_rows;
            let n_blocks = (rows.start + rows.n_rows).div_ceil(shape.block_size);
            let n_gone = rows.first_block;
            let first_seen = (rows.start + 1).saturating_sub(op.window.unwrap_or(usize::MAX));
            assert!(
                n_gone * shape.block_size <= first_seen,
                "a block that is seen is gone"
            );
            let n_blocks = n_blocks - n_gone;
            assert!(rows.blocks.len() >= n_blocks, "a block table is too short");
            assert!(
                rows.blocks[..n_blocks]
                    .iter()
                    .all(|&block| (block as usize) < shape.n_blocks),
                "a block is not in the cache of {}",
                shape.n_blocks
            );
        }
        check(op.q, ends * op.n_heads * shape.head_dim, "q");
        check(op.out, ends * op.n_heads * shape.head_dim, "out");
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::attention::paged_attention(cpu, op),
            Backend::Cuda(gpu) => {
                let per_head =
                    |values: Option<&Buffer>| values.map_or(DevicePtr::NULL, Buffer::device_ptr);
                let at = AttentionAt {
                    q: op.q.device_ptr(),
                    out: op.out.device_ptr(),
                    n_heads: op.n_heads,
                    layer: op.layer,
                    scoring: Scoring {
                        scale: op.scale,
                        softcap: op.softcap,
                        window: op.window,
                        alibi_slopes: per_head(op.alibi_slopes),
                        sinks: per_head(op.sinks),
                    },
                };
                gpu.paged_attention(at, op.rows, (op.kv.on_cuda(), shape));
            }
        }
    }

    /// Zeroes a cache's memory (a new run of the engine).
    pub fn clear_kv(&self, kv: &mut KvCache) {
        match &*self.backend {
            Backend::Cpu(_) => kv.clear(),
            Backend::Cuda(gpu) => gpu.clear_kv(kv.on_cuda()),
        }
    }
}
