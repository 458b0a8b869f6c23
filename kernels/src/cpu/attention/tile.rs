//! Keys and values of some positions out of their blocks, widened to f32 once for all pairs that
//! see them. Types, scales and the size of blocks end here.

use super::Attention;
use crate::cpu::simd::{LANES, Simd};
use crate::kv::{E4m3, KvCache, KvElement, KvLayer, KvType, head_offset, scale_offset};

/// Positions of a tile: two vectors of scores.
pub(super) const TILE: usize = 32;

/// Widened keys `[head_dim][TILE]`, or values `[TILE][head_dim]`, rows padded to whole vectors.
#[derive(Debug, Default)]
pub(super) struct Tile(Vec<f32>);

/// Keys and values of a layer as they are stored.
#[derive(Debug)]
pub(super) enum Stored<'a> {
    Bf16(KvLayer<'a, u16>),
    F32(KvLayer<'a, f32>),
    Int8(KvLayer<'a, u8>),
    Fp8(KvLayer<'a, E4m3>),
}

impl<'a> Stored<'a> {
    pub(super) fn new(kv: &'a KvCache, layer: usize) -> Self {
        match kv.ty() {
            KvType::Bf16 => Self::Bf16(kv.layer(layer)),
            KvType::F32 => Self::F32(kv.layer(layer)),
            KvType::Int8 => Self::Int8(kv.layer(layer)),
            KvType::Fp8 => Self::Fp8(kv.layer(layer)),
        }
    }
}

/// Where positions of a tile lie in one block.
pub(super) struct Piece {
    block: usize,
    /// First position within the block.
    pub(super) offset: usize,
    /// First position within the tile.
    pub(super) at: usize,
    pub(super) n: usize,
}

impl Tile {
    /// Keys of positions `first..end`, at most [`TILE`], of a sequence; `first` is a multiple of
    /// that. What is beyond `end` is undefined.
    #[inline(always)]
    pub(super) fn keys<S: Simd>(
        &mut self,
        s: S,
        of: &Attention<'_>,
        first: usize,
        end: usize,
    ) -> &[[f32; TILE]] {
        match of.kv {
            Stored::Bf16(kv) => self.keys_of(s, of, kv, first, end),
            Stored::F32(kv) => self.keys_of(s, of, kv, first, end),
            Stored::Int8(kv) => self.keys_of(s, of, kv, first, end),
            Stored::Fp8(kv) => self.keys_of(s, of, kv, first, end),
        }
    }

    #[inline(always)]
    fn keys_of<S: Simd, E: KvElement>(
        &mut self,
        s: S,
        of: &Attention<'_>,
        kv: &KvLayer<'_, E>,
        first: usize,
        end: usize,
    ) -> &[[f32; TILE]] {
        let (block_size, head_dim) = (of.shape.block_size, of.shape.head_dim);
        self.0.resize(self.0.len().max(head_dim * TILE), 0.0);
        let rows = &mut self.0[..head_dim * TILE].as_chunks_mut::<TILE>().0[..head_dim];
        for piece in pieces(of, first, end) {
            let at = head_offset(of.shape, piece.block, of.kv_head);
            let keys = &kv.keys[at..][..block_size * head_dim];
            let at = scale_offset(of.shape, piece.block, of.kv_head) + piece.offset;
            let mut done = 0;
            while done < piece.n {
                let n = LANES.min(piece.n - done);
                let scales = match E::MAX {
                    Some(_) => s.load_part(&kv.key_scales[at + done..][..n]),
                    None => s.zero(),
                };
                let columns = keys
                    .chunks_exact(block_size)
                    .map(|row| &row[piece.offset + done..]);
                for (row, keys) in rows.iter_mut().zip(columns) {
                    let mut k = load_part::<S, E>(s, &keys[..n]);
                    if E::MAX.is_some() {
                        k = s.mul(k, scales);
                    }
                    s.store_part(k, &mut row[piece.at + done..][..n]);
                }
                done += n;
            }
        }
        rows
    }

    /// Values of the same positions; rows of `head_dim`, padded with zeros to whole vectors.
    #[inline(always)]
    pub(super) fn values<S: Simd>(
        &mut self,
        s: S,
        of: &Attention<'_>,
        first: usize,
        end: usize,
    ) -> &[[f32; LANES]] {
        match of.kv {
            Stored::Bf16(kv) => self.values_of(s, of, kv, first, end),
            Stored::F32(kv) => self.values_of(s, of, kv, first, end),
            Stored::Int8(kv) => self.values_of(s, of, kv, first, end),
            Stored::Fp8(kv) => self.values_of(s, of, kv, first, end),
        }
    }

    #[inline(always)]
    fn values_of<S: Simd, E: KvElement>(
        &mut self,
        s: S,
        of: &Attention<'_>,
        kv: &KvLayer<'_, E>,
        first: usize,
        end: usize,
    ) -> &[[f32; LANES]] {
        let head_dim = of.shape.head_dim;
        let width = head_dim.next_multiple_of(LANES);
        self.0.resize(self.0.len().max(width * TILE), 0.0);
        let rows = &mut self.0[..width * TILE];
        for piece in pieces(of, first, end) {
            let at = head_offset(of.shape, piece.block, of.kv_head);
            let values = &kv.values[at + piece.offset * head_dim..][..piece.n * head_dim];
            let at = scale_offset(of.shape, piece.block, of.kv_head) + piece.offset;
            let rows = rows[piece.at * width..].chunks_exact_mut(width);
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
        rows.as_chunks().0
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
