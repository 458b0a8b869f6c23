//! A span of a single row, as in decode steps: each key and value is met by the few query heads of
//! its kv head and never again, so it goes from the cache to registers without a tile between, and
//! what comes next is asked for early. The same operations in the same order as over tiles.

use std::ops::Range;

use super::SPAN;
use super::merge::width;
use super::span::Attention;
use super::step::{FIRST, SECOND, is_paired, n_steps, step, step_half};
use super::tile::{Piece, pieces};
use crate::cpu::simd::{Kernel, LANES, Simd, prefetch};
use crate::kv::{KvElement, KvLayer, head_offset, scale_offset};

/// Vectors of positions, or of dimensions, whose sums registers hold for up to four pairs.
const WIDE_STEP: usize = 4;
/// Positions that values are asked for ahead of their use.
const AHEAD: usize = 64;

/// Calls `$self.$method::<S, E, P>(...)` with pairs rounded up to `P`.
macro_rules! for_pairs {
    ($self:ident.$method:ident($($arg:expr),*)) => {
        match $self.n_pairs() {
            1 => $self.$method::<_, _, 1>($($arg),*),
            2 => $self.$method::<_, _, 2>($($arg),*),
            3 | 4 => $self.$method::<_, _, 4>($($arg),*),
            _ => $self.$method::<_, _, 8>($($arg),*),
        }
    };
}

impl Attention<'_> {
    /// Whether this file does it: one row, pairs that registers hold, whole vectors.
    #[inline(always)]
    pub(super) fn is_single<S: Simd>(&self) -> bool {
        let most_pairs = if S::WIDE { 8 } else { 4 };
        let shape = self.shape;
        !S::PLAIN
            && self.end - self.first == 1
            && self.n_pairs() <= most_pairs
            && shape.block_size.is_multiple_of(LANES)
            && shape.head_dim.is_multiple_of(LANES)
    }

    /// Pairs with those that fill up the registers.
    #[inline(always)]
    pub(super) fn n_padded_pairs(&self) -> usize {
        self.n_pairs().next_power_of_two()
    }

    /// Queries, `[steps of head_dim][P]`; those of no pair are zero. Their scores are not kept, and
    /// what their weights (those of an earlier span) make of values is thrown away.
    #[inline(always)]
    pub(super) fn pack_single<S: Simd, E: KvElement>(&self, s: S, packed: &mut [f32]) {
        packed.fill(0.0);
        for pair in 0..self.n_pairs() {
            self.pack_query::<S, E>(s, pair, self.n_padded_pairs(), &mut packed[pair..]);
        }
    }
}

/// Scores of the positions of `seen`, which lie in one span; those beside them in their vectors
/// are undefined.
pub(super) struct ScoreSingle<'a, E> {
    pub(super) of: &'a Attention<'a>,
    pub(super) kv: &'a KvLayer<'a, E>,
    pub(super) seen: &'a Range<usize>,
    pub(super) q: &'a [f32],
    pub(super) scores: &'a mut [[f32; SPAN]],
}

impl<E: KvElement> Kernel for ScoreSingle<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let of = self.of;
        for_pairs!(of.score_keys(self.kv, s, self.seen, self.q, self.scores));
    }
}

/// Adds up the values of `seen`, weighed, in `out`.
pub(super) struct WeighSingle<'a, E> {
    pub(super) of: &'a Attention<'a>,
    pub(super) kv: &'a KvLayer<'a, E>,
    pub(super) seen: &'a Range<usize>,
    pub(super) weights: &'a [[f32; SPAN]],
    pub(super) out: &'a mut [f32],
}

impl<E: KvElement> Kernel for WeighSingle<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let of = self.of;
        for_pairs!(of.weigh_values(self.kv, s, self.seen, self.weights, self.out));
    }
}

impl Attention<'_> {
    #[inline(always)]
    fn score_keys<S: Simd, E: KvElement, const P: usize>(
        &self,
        kv: &KvLayer<'_, E>,
        s: S,
        seen: &Range<usize>,
        q: &[f32],
        scores: &mut [[f32; SPAN]],
    ) {
        let q = &q.as_chunks::<P>().0[..n_steps::<S, E>(self.shape.head_dim)];
        let mut start = seen.start / LANES * LANES;
        while start < seen.end {
            let n_vectors = match (seen.end - start).div_ceil(LANES) {
                WIDE_STEP.. if S::WIDE && P <= 4 => {
                    self.score_vectors::<S, E, P, WIDE_STEP>(kv, s, start, q, scores)
                }
                2.. if S::WIDE || P <= 2 => {
                    self.score_vectors::<S, E, P, 2>(kv, s, start, q, scores)
                }
                _ => self.score_vectors::<S, E, P, 1>(kv, s, start, q, scores),
            };
            start += n_vectors * LANES;
        }
        // They arrive while scores become weights.
        for piece in pieces(self, seen.start, seen.end.min(seen.start + AHEAD)) {
            for values in self.values_of(kv, seen.start + piece.at).iter().step_by(2) {
                prefetch(values.as_ptr().cast());
            }
        }
    }

    /// `C` vectors of positions from `start` on; gives `C`.
    #[inline(always)]
    fn score_vectors<S: Simd, E: KvElement, const P: usize, const C: usize>(
        &self,
        kv: &KvLayer<'_, E>,
        s: S,
        start: usize,
        q: &[[f32; P]],
        scores: &mut [[f32; SPAN]],
    ) -> usize {
        let (mut keys, mut next) = ([[].as_slice(); C], [[].as_slice(); C]);
        let mut scales = [s.zero(); C];
        for c in 0..C {
            let position = start + c * LANES;
            keys[c] = self.keys_at(kv, position);
            next[c] = self.keys_at(kv, position + C * LANES);
            if E::MAX.is_some() {
                let block = scale_offset(self.shape, self.block_of(position), self.kv_head);
                let at = block + position % self.shape.block_size;
                scales[c] = s.load_part(&kv.key_scales[at..][..LANES]);
            }
        }
        let stride = self.shape.block_size / LANES;
        let mut sums = [[s.zero(); C]; P];
        for (i, q) in q.iter().enumerate() {
            let mut vectors = [s.zero(); C];
            for c in 0..C {
                if is_paired::<S, E>() {
                    let (first, second) =
                        (&keys[c][2 * i * stride], &keys[c][(2 * i + 1) * stride]);
                    let pair = s.pair(E::load(s, first), E::load(s, second));
                    vectors[c] = s.reinterpret(pair);
                    // Two dimensions of a block of sixteen are a line.
                    prefetch(next[c][2 * i * stride].as_ptr().cast());
                    continue;
                }
                vectors[c] = E::load(s, &keys[c][i * stride]);
                if E::MAX.is_some() {
                    vectors[c] = s.mul(vectors[c], scales[c]);
                }
                if c % 2 == i % 2 {
                    prefetch(next[c][i * stride].as_ptr().cast());
                }
            }
            for p in 0..P {
                for c in 0..C {
                    sums[p][c] = step::<S, E>(s, sums[p][c], vectors[c], q[p]);
                }
            }
        }
        self.keep_scores(s, 0, start, sums, scores);
        C
    }

    #[inline(always)]
    fn weigh_values<S: Simd, E: KvElement, const P: usize>(
        &self,
        kv: &KvLayer<'_, E>,
        s: S,
        seen: &Range<usize>,
        weights: &[[f32; SPAN]],
        out: &mut [f32],
    ) {
        let n_vectors = self.shape.head_dim / LANES;
        let mut d = 0;
        while d < n_vectors {
            d += match n_vectors - d {
                WIDE_STEP.. if S::WIDE && P <= 4 => {
                    self.weigh_vectors::<S, E, P, WIDE_STEP>(kv, s, seen, weights, d, out)
                }
                2.. if S::WIDE || P <= 2 => {
                    self.weigh_vectors::<S, E, P, 2>(kv, s, seen, weights, d, out)
                }
                _ => self.weigh_vectors::<S, E, P, 1>(kv, s, seen, weights, d, out),
            };
        }
    }

    /// `C` vectors of dimensions from the `d`-th on, in the order of positions; gives `C`.
    #[inline(always)]
    fn weigh_vectors<S: Simd, E: KvElement, const P: usize, const C: usize>(
        &self,
        kv: &KvLayer<'_, E>,
        s: S,
        seen: &Range<usize>,
        weights: &[[f32; SPAN]],
        d: usize,
        out: &mut [f32],
    ) -> usize {
        let weights: &[[f32; SPAN]; P] = weights.first_chunk().expect("of every pair");
        let n_vectors = self.shape.head_dim / LANES;
        let mut sums = [[s.zero(); C]; P];
        for piece in pieces(self, seen.start, seen.end) {
            let first = seen.start + piece.at;
            let later = first + AHEAD.next_multiple_of(self.shape.block_size);
            let (rows, ahead) = (self.values_of(kv, first), self.values_of(kv, later));
            if is_paired::<S, E>() {
                let mut of = [[].as_slice(); P];
                for p in 0..P {
                    of[p] = &weights[p][first % SPAN / 2..];
                }
                let rows = Rows {
                    rows,
                    ahead,
                    n_vectors,
                    d,
                };
                rows.weigh(s, &piece, of, &mut sums);
                continue;
            }
            let scales = self.scales_of(kv, first);
            for i in 0..piece.n {
                let at = (piece.offset + i) * n_vectors + d;
                for c in (0..C).step_by(2) {
                    prefetch(ahead[at + c].as_ptr().cast());
                }
                let mut vectors = [s.zero(); C];
                for c in 0..C {
                    vectors[c] = E::load(s, &rows[at + c]);
                    if E::MAX.is_some() {
                        vectors[c] = s.mul(vectors[c], s.splat(scales[piece.offset + i]));
                    }
                }
                for p in 0..P {
                    for c in 0..C {
                        let weight = weights[p][first % SPAN + i];
                        sums[p][c] = step::<S, E>(s, sums[p][c], vectors[c], weight);
                    }
                }
            }
        }
        let width = width(self.shape.head_dim);
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(width)) {
            let vectors = &mut out.as_chunks_mut::<LANES>().0[d..d + C];
            for (sum, out) in sums.iter().zip(vectors) {
                s.store(*sum, out);
            }
        }
        C
    }

    /// The block of a position, or the last one that the row sees: tables may be longer.
    #[inline(always)]
    fn block_of(&self, position: usize) -> usize {
        let position = position.min(self.sequence.start + self.first);
        let at = position / self.shape.block_size - self.sequence.first_block;
        self.sequence.blocks[at] as usize
    }

    /// Keys of sixteen positions: a vector for each dimension, each `block_size / 16` after the
    /// one before it.
    #[inline(always)]
    fn keys_at<'k, E: KvElement>(&self, kv: &KvLayer<'k, E>, position: usize) -> &'k [[E; LANES]] {
        let shape = self.shape;
        let at = head_offset(shape, self.block_of(position), self.kv_head);
        let keys = &kv.keys[at..][..shape.block_size * shape.head_dim];
        keys[position % shape.block_size..].as_chunks().0
    }

    /// Values of the block of a position, `[block_size][head_dim / 16]` vectors.
    #[inline(always)]
    fn values_of<'k, E: KvElement>(
        &self,
        kv: &KvLayer<'k, E>,
        position: usize,
    ) -> &'k [[E; LANES]] {
        let shape = self.shape;
        let at = head_offset(shape, self.block_of(position), self.kv_head);
        let values = &kv.values[at..][..shape.block_size * shape.head_dim];
        values.as_chunks().0
    }

    /// Scales of these values; empty where the type has none.
    #[inline(always)]
    fn scales_of<'k, E: KvElement>(&self, kv: &KvLayer<'k, E>, position: usize) -> &'k [f32] {
        match E::MAX {
            Some(_) => {
                let at = scale_offset(self.shape, self.block_of(position), self.kv_head);
                &kv.value_scales[at..][..self.shape.block_size]
            }
            None => &[],
        }
    }
}

/// Values of a block, `C` vectors of dimensions from the `d`-th of `n_vectors` on, and those of a
/// block that comes later.
struct Rows<'a, E> {
    rows: &'a [[E; LANES]],
    ahead: &'a [[E; LANES]],
    n_vectors: usize,
    d: usize,
}

impl<E: KvElement> Rows<'_, E> {
    /// Those of the positions `2 i` and `2 i + 1`.
    #[inline(always)]
    fn pair<S: Simd, const C: usize>(&self, s: S, i: usize) -> [S::F; C] {
        let at = 2 * i * self.n_vectors + self.d;
        let mut vectors = [s.zero(); C];
        for (c, vector) in vectors.iter_mut().enumerate() {
            let (first, second) = (at + c, at + self.n_vectors + c);
            let pair = s.pair(
                E::load(s, &self.rows[first]),
                E::load(s, &self.rows[second]),
            );
            *vector = s.reinterpret(pair);
            if c % 2 == 0 {
                prefetch(self.ahead[first].as_ptr().cast());
                prefetch(self.ahead[second].as_ptr().cast());
            }
        }
        vectors
    }

    /// Adds those of a piece to sums, two positions at a time. Weights begin with that of its
    /// first position.
    #[inline(always)]
    fn weigh<S: Simd, const P: usize, const C: usize>(
        &self,
        s: S,
        piece: &Piece,
        weights: [&[f32]; P],
        sums: &mut [[S::F; C]; P],
    ) {
        let (start, end) = (piece.offset, piece.offset + piece.n);
        let first = start / 2;
        if start % 2 == 1 {
            let vectors = self.pair::<S, C>(s, first);
            for p in 0..P {
                for c in 0..C {
                    sums[p][c] = step_half::<S, SECOND>(s, sums[p][c], vectors[c], weights[p][0]);
                }
            }
        }
        for i in start.div_ceil(2)..end / 2 {
            let vectors = self.pair::<S, C>(s, i);
            for p in 0..P {
                for c in 0..C {
                    sums[p][c] = step::<S, E>(s, sums[p][c], vectors[c], weights[p][i - first]);
                }
            }
        }
        if end % 2 == 1 {
            let vectors = self.pair::<S, C>(s, end / 2);
            for p in 0..P {
                let weight = weights[p][end / 2 - first];
                for c in 0..C {
                    sums[p][c] = step_half::<S, FIRST>(s, sums[p][c], vectors[c], weight);
                }
            }
        }
    }
}
