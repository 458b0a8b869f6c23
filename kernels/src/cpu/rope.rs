//! Rotary embedding of queries and keys, and writing keys and values to the cache.

use super::Cpu;
use super::shared::SharedMut;
use crate::kv::{E4m3, KvElement, KvShape, KvType, head_offset, scale_offset};
use crate::{RopeAngles, RopeStyle, RopeWriteKv};

/// See [`crate::Device::rope_write_kv`]; shapes are checked there.
pub(crate) fn rope_write_kv(cpu: &Cpu, op: RopeWriteKv<'_>) {
    if op.layer == 0 {
        op.kv.will_write(op.slots);
    }
    match op.kv.ty() {
        KvType::Bf16 => typed::<u16>(cpu, op),
        KvType::F32 => typed::<f32>(cpu, op),
        KvType::Int8 => typed::<u8>(cpu, op),
        KvType::Fp8 => typed::<E4m3>(cpu, op),
    }
}

fn typed<E: KvElement>(cpu: &Cpu, op: RopeWriteKv<'_>) {
    let shape = op.kv.shape();
    let n_rows = op.slots.len();
    let (n_heads, n_kv_heads) = (op.n_heads, shape.n_kv_heads);
    let head_dim = shape.head_dim;
    let kv = op.kv.layer_mut::<E>(op.layer);
    let (keys, values) = (SharedMut::new(kv.keys), SharedMut::new(kv.values));
    let key_scales = SharedMut::new(kv.key_scales);
    let value_scales = SharedMut::new(kv.value_scales);
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
                let v = &v[at..at + head_dim];
                let (key_factor, key_scale) = E::scales(&rotated);
                let (value_factor, value_scale) = E::scales(v);
                place.write_key(shape, &rotated, key_factor, keys);
                place.write_value(shape, v, value_factor, values);
                if E::MAX.is_some() {
                    // SAFETY: a scale for each slot and head, of which this thread has the head.
                    let scale = unsafe { key_scales.part(place.scale, 1) };
                    scale[0] = key_scale;
                    // SAFETY: as above.
                    let scale = unsafe { value_scales.part(place.scale, 1) };
                    scale[0] = value_scale;
                }
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
    /// Its scale.
    scale: usize,
}

impl Place {
    fn new(shape: KvShape, slot: u32, head: usize) -> Self {
        let slot = slot as usize;
        let (block, offset) = (slot / shape.block_size, slot % shape.block_size);
        Self {
            first: head_offset(shape, block, head),
            len: shape.block_size * shape.head_dim,
            offset,
            scale: scale_offset(shape, block, head) + offset,
        }
    }

    /// Keys go down a column: see [`crate::KvCache`].
    fn write_key<E: KvElement>(&self, shape: KvShape, k: &[f32], factor: f32, keys: &mut [E]) {
        for (d, &k) in k.iter().enumerate() {
            keys[d * shape.block_size + self.offset] = scaled(k, factor);
        }
    }

    /// Values go along a row.
    fn write_value<E: KvElement>(&self, shape: KvShape, v: &[f32], factor: f32, values: &mut [E]) {
        let values = &mut values[self.offset * shape.head_dim..][..shape.head_dim];
        for (value, &v) in values.iter_mut().zip(v) {
            *value = scaled(v, factor);
        }
    }
}

#[inline(always)]
fn scaled<E: KvElement>(x: f32, factor: f32) -> E {
    E::from_f32(if E::MAX.is_some() { x * factor } else { x })
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
