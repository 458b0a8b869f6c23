//! Keys and values of some positions out of their blocks, widened to f32 or made pairs of bf16 once
//! for all pairs (row, query head) that see them. Types, scales and the size of blocks end here.

use super::Attention;
use super::room::Room;
use super::step::{FIRST, is_paired, n_steps};
use crate::cpu::simd::{LANES, Simd};
use crate::kv::{KvElement, KvLayer, head_offset, scale_offset};

/// Positions of a tile.
pub(super) const TILE: usize = 64;

/// Where positions of a tile lie in one block.
pub(super) struct Piece {
    block: usize,
    /// First position within the block.
    pub(super) offset: usize,
    /// First position within the tile.
    pub(super) at: usize,
    pub(super) n: usize,
}

/// Keys of positions `first..end`, at most [`TILE`], of a sequence; `first` is a multiple of that.
/// Rows `[steps of head_dim][TILE]`; what is beyond `end` is undefined.
#[inline(always)]
pub(super) fn keys<'r, S: Simd, E: KvElement>(
    room: &'r mut Room,
    s: S,
    of: &Attention<'_>,
    kv: &KvLayer<'_, E>,
    first: usize,
    end: usize,
) -> &'r [[f32; TILE]] {
    let (block_size, head_dim) = (of.shape.block_size, of.shape.head_dim);
    let rows = room.of(n_steps::<S, E>(head_dim) * TILE);
    let rows = rows.as_chunks_mut::<TILE>().0;
    for piece in pieces(of, first, end) {
        let at = head_offset(of.shape, piece.block, of.kv_head);
        let keys = &kv.keys[at..][..block_size * head_dim];
        let at = scale_offset(of.shape, piece.block, of.kv_head) + piece.offset;
        for done in (0..piece.n).step_by(LANES) {
            let n = LANES.min(piece.n - done);
            let scales = match E::MAX {
                Some(_) => s.load_part(&kv.key_scales[at + done..][..n]),
                None => s.zero(),
            };
            let columns = Columns {
                keys,
                block_size,
                from: piece.offset + done,
                n,
                scales,
            };
            if n == LANES {
                columns.put::<S, true>(s, rows, piece.at + done);
            } else {
                columns.put::<S, false>(s, rows, piece.at + done);
            }
        }
    }
    rows
}

/// Keys of up to sixteen positions of a block, `n` of them, `from` on.
struct Columns<'a, E, F> {
    keys: &'a [E],
    block_size: usize,
    from: usize,
    n: usize,
    scales: F,
}

impl<E: KvElement, F: Copy> Columns<'_, E, F> {
    /// Widened, or two dimensions in pairs, to the columns of a tile from `at` on. `WHOLE` promises
    /// that there are sixteen.
    #[inline(always)]
    fn put<S: Simd<F = F>, const WHOLE: bool>(&self, s: S, rows: &mut [[f32; TILE]], at: usize) {
        if !is_paired::<S, E>() {
            let columns = self.keys.chunks_exact(self.block_size);
            for (row, keys) in rows.iter_mut().zip(columns) {
                let mut k = self.load::<S, WHOLE>(s, keys);
                if E::MAX.is_some() {
                    k = s.mul(k, self.scales);
                }
                s.store_part(k, &mut row[at..][..if WHOLE { LANES } else { self.n }]);
            }
            return;
        }
        let columns = self.keys.chunks_exact(2 * self.block_size);
        let last = columns.remainder();
        for (row, keys) in rows.iter_mut().zip(columns) {
            let (first, second) = keys.split_at(self.block_size);
            let first = self.load::<S, WHOLE>(s, first);
            let pair = s.pair(first, self.load::<S, WHOLE>(s, second));
            let row = &mut row[at..][..if WHOLE { LANES } else { self.n }];
            s.store_part(s.reinterpret(pair), row);
        }
        if let (false, Some(row)) = (last.is_empty(), rows.last_mut()) {
            // The last of an odd number has nothing beside it.
            let k = self.load::<S, false>(s, last);
            let pair = s.reinterpret(s.pair(k, s.zero()));
            s.store_part(pair, &mut row[at..][..self.n]);
        }
    }

    /// Those of one dimension.
    #[inline(always)]
    fn load<S: Simd<F = F>, const WHOLE: bool>(&self, s: S, keys: &[E]) -> F {
        let keys = &keys[self.from..][..if WHOLE { LANES } else { self.n }];
        load_part(s, keys)
    }
}

/// Values of the same positions; rows `[steps of TILE][head_dim]`, padded to whole vectors. What is
/// before the first position or after the last is undefined.
#[inline(always)]
pub(super) fn values<'r, S: Simd, E: KvElement>(
    room: &'r mut Room,
    s: S,
    of: &Attention<'_>,
    kv: &KvLayer<'_, E>,
    first: usize,
    end: usize,
) -> &'r [[f32; LANES]] {
    let head_dim = of.shape.head_dim;
    let width = head_dim.next_multiple_of(LANES);
    let tile = room.of(n_steps::<S, E>(TILE) * width);
    for piece in pieces(of, first, end) {
        let at = head_offset(of.shape, piece.block, of.kv_head);
        let values = &kv.values[at + piece.offset * head_dim..][..piece.n * head_dim];
        if is_paired::<S, E>() {
            pair_values(s, values, head_dim, piece.at, tile);
            continue;
        }
        let at = scale_offset(of.shape, piece.block, of.kv_head) + piece.offset;
        let rows = tile[piece.at * width..].chunks_exact_mut(width);
        for (i, (row, values)) in rows.zip(values.chunks_exact(head_dim)).enumerate() {
            let scale = match E::MAX {
                Some(_) => s.splat(kv.value_scales[at + i]),
                None => s.zero(),
            };
            for (row, values) in row.as_chunks_mut().0.iter_mut().zip(values.chunks(LANES)) {
                let mut v = load_part::<S, E>(s, values);
                if E::MAX.is_some() {
                    v = s.mul(v, scale);
                }
                s.store(v, row);
            }
        }
    }
    tile.as_chunks().0
}

/// Makes pairs of the values of positions that lie in one block, the first of them the `at`-th of
/// the tile.
#[inline(always)]
fn pair_values<S: Simd, E: KvElement>(
    s: S,
    mut values: &[E],
    head_dim: usize,
    at: usize,
    tile: &mut [f32],
) {
    let width = head_dim.next_multiple_of(LANES);
    let mut rows = tile[at / 2 * width..].chunks_exact_mut(width);
    if at % 2 == 1 {
        // The first half of this row comes from another block, if from any.
        let second;
        (second, values) = values.split_at(head_dim);
        let row = rows.next().unwrap_or_default().as_chunks_mut().0;
        for (row, second) in row.iter_mut().zip(second.chunks(LANES)) {
            let first = s.and(s.bits(s.load(row)), s.splat_i(FIRST.cast_signed()));
            let pair = s.pair(s.reinterpret(first), load_part::<S, E>(s, second));
            s.store(s.reinterpret(pair), row);
        }
    }
    let two = values.chunks_exact(2 * head_dim);
    let last = two.remainder();
    // In this order, or it takes a row for which there are no two.
    for (values, row) in two.zip(rows.by_ref()) {
        let row = row.as_chunks_mut().0;
        let (first, second) = values.split_at(head_dim);
        let (first, first_rest) = first.as_chunks();
        let (second, second_rest) = second.as_chunks();
        for (row, (first, second)) in row.iter_mut().zip(first.iter().zip(second)) {
            let pair = s.pair(E::load(s, first), E::load(s, second));
            s.store(s.reinterpret(pair), row);
        }
        if let (false, Some(row)) = (first_rest.is_empty(), row.last_mut()) {
            let second = load_part::<S, E>(s, second_rest);
            let pair = s.pair(load_part::<S, E>(s, first_rest), second);
            s.store(s.reinterpret(pair), row);
        }
    }
    if let (false, Some(row)) = (last.is_empty(), rows.next()) {
        for (row, first) in row.as_chunks_mut().0.iter_mut().zip(last.chunks(LANES)) {
            let pair = s.pair(load_part::<S, E>(s, first), s.zero());
            s.store(s.reinterpret(pair), row);
        }
    }
}

/// Positions `first..end` of a sequence, block by block.
#[inline(always)]
pub(super) fn pieces(of: &Attention<'_>, first: usize, end: usize) -> impl Iterator<Item = Piece> {
    let block_size = of.shape.block_size;
    let (blocks, n_gone) = (of.sequence.blocks, of.sequence.first_block);
    // What is before the first block of the table, no query sees.
    let mut position = first.max(n_gone * block_size);
    std::iter::from_fn(move || {
        (position < end).then(|| {
            let offset = position % block_size;
            let piece = Piece {
                block: blocks[position / block_size - n_gone] as usize,
                offset,
                at: position - first,
                n: (block_size - offset).min(end - position),
            };
            position += piece.n;
            piece
        })
    })
}

/// Up to sixteen values of the cache; the lanes after them are zero.
#[inline(always)]
fn load_part<S: Simd, E: KvElement>(s: S, x: &[E]) -> S::F {
    match x.first_chunk() {
        Some(x) => E::load(s, x),
        None => {
            let mut padded = [E::default(); LANES];
            padded[..x.len()].copy_from_slice(x);
            E::load(s, &padded)
        }
    }
}
