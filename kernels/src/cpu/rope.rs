//! Rotary embedding of queries and keys, and writing keys and values to the cache.

use super::Cpu;
use super::shared::SharedMut;
use crate::kv::{KvElement, KvShape, KvType, head_offset};
use crate::{RopeAngles, RopeStyle, RopeWriteKv};

/// See [`crate::Device::rope_write_kv`]; shapes are checked there.
pub(crate) fn rope_write_kv(cpu: &Cpu, op: RopeWriteKv<'_>) {
    match op.kv.ty() {
        KvType::Bf16 => typed::<u16>(cpu, op),
        KvType::F32 => typed::<f32>(cpu, op),
    }
}

fn typed<E: KvElement>(cpu: &Cpu, op: RopeWriteKv<'_>) {
    let shape = op.kv.shape();
    let n_rows = op.slots.len();
    let (n_heads, n_kv_heads) = (op.n_heads, shape.n_kv_heads);
    let head_dim = shape.head_dim;
    let (keys, values) = op.kv.layer_mut::<E>(op.layer);
    let (keys, values) = (SharedMut::new(keys), SharedMut::new(values));
    let q = SharedMut::new(op.q.as_mut_slice());
    let (k, v) = (op.k.as_slice(), op.v.as_slice());
    // Parts are heads, not rows: even if two rows had the same slot, one thread writes it.
    cpu.for_parts(n_heads + n_kv_heads, n_rows * head_dim, &|heads| {
        let mut rotated = vec![0.0; head_dim];
        for head in heads {
            for row in 0..n_rows {
                if head < n_heads {
                    // SAFETY: heads of rows do not overlap.
                    let q = unsafe { q.part((row * n_heads + head) * head_dim, head_dim) };
                    rotate(op.angles, row, q);
                    continue;
                }
                let head = head - n_heads;
                let at = (row * n_kv_heads + head) * head_dim;
                rotated.copy_from_slice(&k[at..at + head_dim]);
                rotate(op.angles, row, &mut rotated);
                let place = Place::new(shape, op.slots[row], head);
                // SAFETY: the head's part of a block is written by this thread alone.
                let keys = unsafe { keys.part(place.first, place.len) };
                // SAFETY: as above.
                let values = unsafe { values.part(place.first, place.len) };
                place.write(shape, &rotated, keys, &v[at..at + head_dim], values);
            }
        }
    });
}

/// Where a head of a slot lies.
struct Place {
    /// First element of its block and head.
    first: usize,
    len: usize,
    /// Position within the block.
    offset: usize,
}

impl Place {
    fn new(shape: KvShape, slot: u32, head: usize) -> Self {
        let slot = slot as usize;
        Self {
            first: head_offset(shape, slot / shape.block_size, head),
            len: shape.block_size * shape.head_dim,
            offset: slot % shape.block_size,
        }
    }

    /// Keys go down a column, values along a row: see [`crate::KvCache`].
    fn write<E: KvElement>(
        &self,
        shape: KvShape,
        k: &[f32],
        keys: &mut [E],
        v: &[f32],
        values: &mut [E],
    ) {
        for (d, &k) in k.iter().enumerate() {
            keys[d * shape.block_size + self.offset] = E::from_f32(k);
        }
        let values = &mut values[self.offset * shape.head_dim..][..shape.head_dim];
        for (value, &v) in values.iter_mut().zip(v) {
            *value = E::from_f32(v);
        }
    }
}

/// Rotates the leading values of one head of one row.
fn rotate(angles: RopeAngles<'_>, row: usize, x: &mut [f32]) {
    let half = angles.rotary_dim / 2;
    let cos = &angles.cos[row * half..][..half];
    let sin = &angles.sin[row * half..][..half];
    let x = &mut x[..2 * half];
    match angles.style {
        RopeStyle::Half => {
            let (a, b) = x.split_at_mut(half);
            for i in 0..half {
                (a[i], b[i]) = turn(a[i], b[i], cos[i], sin[i]);
            }
        }
        RopeStyle::Interleaved => {
            for (i, pair) in x.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                (pair[0], pair[1]) = turn(pair[0], pair[1], cos[i], sin[i]);
            }
        }
    }
}

#[inline(always)]
fn turn(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}
