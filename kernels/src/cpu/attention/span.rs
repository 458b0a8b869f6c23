//! Attention of some pairs (row, query head) over one span of the context.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::ops::Range;

use super::SPAN;
use super::merge::{split, width};
use super::tile::{Stored, TILE, Tile};
use crate::AttentionRow;
use crate::cpu::elementwise::softcap;
use crate::cpu::math::exp;
use crate::cpu::simd::{LANES, Simd};
use crate::kv::KvShape;

/// One kv head for rows `first..end` of a sequence. Pair `i` is row `first + i / group` and query
/// head `kv_head * group + i % group`.
pub(super) struct Attention<'a> {
    pub(super) q: &'a [f32],
    pub(super) kv: &'a Stored<'a>,
    pub(super) shape: KvShape,
    pub(super) sequence: AttentionRow<'a>,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) kv_head: usize,
    pub(super) n_heads: usize,
    pub(super) scale: f32,
    pub(super) window: usize,
    pub(super) softcap: Option<f32>,
    pub(super) slopes: Option<&'a [f32]>,
}

/// Calls `$self.$method::<S, P>(first pair, ...)` for all pairs, as many at a time as registers
/// hold sums of.
macro_rules! for_pairs {
    ($self:ident.$method:ident::<$s:ty>($($arg:expr),*)) => {
        let n_pairs = $self.n_pairs();
        let mut pair = 0;
        while pair < n_pairs {
            pair += match n_pairs - pair {
                8.. if <$s>::WIDE => $self.$method::<$s, 8>(pair, $($arg),*),
                4.. => $self.$method::<$s, 4>(pair, $($arg),*),
                3 => $self.$method::<$s, 3>(pair, $($arg),*),
                2 => $self.$method::<$s, 2>(pair, $($arg),*),
                _ => $self.$method::<$s, 1>(pair, $($arg),*),
            };
        }
    };
}

impl Attention<'_> {
    #[inline(always)]
    fn group(&self) -> usize {
        self.n_heads / self.shape.n_kv_heads
    }

    #[inline(always)]
    pub(super) fn n_pairs(&self) -> usize {
        (self.end - self.first) * self.group()
    }

    /// Where the query and the output of a pair begin, and its query head.
    #[inline(always)]
    pub(super) fn place(&self, pair: usize) -> (usize, usize) {
        let row = self.sequence.first_row + self.first + pair / self.group();
        let head = self.kv_head * self.group() + pair % self.group();
        ((row * self.n_heads + head) * self.shape.head_dim, head)
    }

    /// The positions of `within` that a pair sees.
    #[inline(always)]
    fn seen(&self, pair: usize, within: &Range<usize>) -> Range<usize> {
        let end = self.sequence.start + self.first + pair / self.group() + 1;
        let start = end
            .saturating_sub(self.window)
            .clamp(within.start, within.end);
        start..end.clamp(start, within.end)
    }

    /// Makes room for scores, and copies queries so that those of pairs that go together are beside
    /// each other: `[head_dim][P]` for each such block of pairs, of which a single row has one.
    #[inline(always)]
    pub(super) fn prepare<S: Simd>(&self, packed: &mut Vec<f32>, scores: &mut Vec<[f32; SPAN]>) {
        let n_pairs = if self.is_single::<S>() {
            self.n_padded_pairs()
        } else {
            self.n_pairs()
        };
        let len = n_pairs * self.shape.head_dim;
        if packed.len() < len {
            packed.resize(len, 0.0);
        }
        if scores.len() < n_pairs {
            scores.resize(n_pairs, [0.0; SPAN]);
        }
        if self.is_single::<S>() {
            self.pack_single(&mut packed[..len]);
            return;
        }
        for_pairs!(self.pack_block::<S>(packed));
    }

    #[inline(always)]
    fn pack_block<S: Simd, const P: usize>(&self, first: usize, packed: &mut [f32]) -> usize {
        let head_dim = self.shape.head_dim;
        let packed = packed[first * head_dim..].as_chunks_mut::<P>().0;
        for p in 0..P {
            let q = &self.q[self.place(first + p).0..][..head_dim];
            for (packed, &q) in packed.iter_mut().zip(q) {
                packed[p] = q;
            }
        }
        P
    }

    /// What the span gives for each pair, to `out`: see [`super::merge`].
    #[inline(always)]
    pub(super) fn span<S: Simd>(
        &self,
        s: S,
        span: usize,
        q: &[f32],
        scores: &mut [[f32; SPAN]],
        tile: &mut Tile,
        out: &mut [f32],
    ) {
        let n_pairs = self.n_pairs();
        let span = span * SPAN..(span + 1) * SPAN;
        if self.is_single::<S>() {
            let seen = self.seen(0, &span);
            self.score_single(s, &seen, q, scores);
            self.weights(s, &span, scores, out);
            self.weigh_single(s, &seen, scores, out);
            return;
        }
        let first = self.seen(0, &span).start / TILE * TILE;
        let end = self.seen(n_pairs - 1, &span).end;
        for start in (first..end).step_by(TILE) {
            let keys = tile.keys(s, self, start, end.min(start + TILE));
            for_pairs!(self.score_block::<S>(s, start, q, keys, scores));
        }
        self.weights(s, &span, scores, out);
        for start in (first..end).step_by(TILE) {
            let values = tile.values(s, self, start, end.min(start + TILE));
            for_pairs!(self.weigh_block::<S>(s, start, values, scores, out));
        }
    }

    /// Makes weights of the scores of a span, and `out` what weighs nothing yet.
    #[inline(always)]
    fn weights<S: Simd>(
        &self,
        s: S,
        span: &Range<usize>,
        scores: &mut [[f32; SPAN]],
        out: &mut [f32],
    ) {
        let width = width(self.shape.head_dim);
        for (pair, out) in out.chunks_exact_mut(width).enumerate() {
            let seen = self.seen(pair, span);
            let (values, end) = split(out);
            values.fill(0.0);
            let seen = seen.start - span.start..seen.end - span.start;
            (end[0], end[1]) = if seen.is_empty() {
                (f32::NEG_INFINITY, 0.0)
            } else {
                softmax(s, &mut scores[pair][seen])
            };
        }
    }

    /// Scores of `P` pairs for a tile that begins at `start`. Those of positions that a pair does
    /// not see are computed and never read.
    #[inline(always)]
    fn score_block<S: Simd, const P: usize>(
        &self,
        first: usize,
        s: S,
        start: usize,
        q: &[f32],
        keys: &[[f32; TILE]],
        scores: &mut [[f32; SPAN]],
    ) -> usize {
        let tile = start..start + TILE;
        // All windows begin after the tile, or all of them end before it.
        let is_after = self.seen(first, &tile).start == tile.end;
        if is_after || self.seen(first + P - 1, &tile).end == tile.start {
            return P;
        }
        let q = &q[first * self.shape.head_dim..].as_chunks::<P>().0[..keys.len()];
        let scores = &mut scores[first..first + P];
        if S::WIDE {
            let sums = products::<S, P, 2>(s, q, keys, 0);
            self.keep_scores(s, first, start, sums, scores);
        } else {
            for c in 0..TILE / LANES {
                let sums = products::<S, P, 1>(s, q, keys, c);
                self.keep_scores(s, first, start + c * LANES, sums, scores);
            }
        }
        P
    }

    /// Makes scores of products, positions from `start` on.
    #[inline(always)]
    pub(super) fn keep_scores<S: Simd, const P: usize, const C: usize>(
        &self,
        s: S,
        first: usize,
        start: usize,
        sums: [[S::F; C]; P],
        scores: &mut [[f32; SPAN]],
    ) {
        let scale = s.splat(self.scale);
        for p in 0..P.min(self.n_pairs() - first) {
            let vectors = scores[p].as_chunks_mut::<LANES>().0;
            for c in 0..C {
                let position = start + c * LANES;
                let mut score = softcap(s, s.mul(sums[p][c], scale), self.softcap);
                if let Some(slopes) = self.slopes {
                    let slope = s.splat(slopes[self.place(first + p).1]);
                    let last = self.sequence.start + self.first + (first + p) / self.group();
                    score = s.fma(distances(s, position, last), slope, score);
                }
                s.store(score, &mut vectors[position % SPAN / LANES]);
            }
        }
    }

    /// Adds the values of a tile that begins at `start`, weighed, to `out`.
    #[inline(always)]
    fn weigh_block<S: Simd, const P: usize>(
        &self,
        first: usize,
        s: S,
        start: usize,
        values: &[[f32; LANES]],
        weights: &[[f32; SPAN]],
        out: &mut [f32],
    ) -> usize {
        let tile = start..start + TILE;
        let mut weigh = Weigh {
            values,
            weights: &weights[first..],
            at: start % SPAN,
            out: &mut out[first * width(self.shape.head_dim)..],
            width: width(self.shape.head_dim),
        };
        // In the order of positions: what some see and others no longer, what all see, what the
        // first do not see yet. Values that a pair does not see must not even meet a zero: they
        // may be no numbers.
        let mut seen = [const { 0..0 }; P];
        for p in 0..P {
            let of_pair = self.seen(first + p, &tile);
            seen[p] = of_pair.start - start..of_pair.end - start;
        }
        let common = seen[P - 1].start..seen[0].end;
        if common.is_empty() {
            for p in 0..P {
                weigh.own(s, p, seen[p].clone());
            }
            return P;
        }
        for p in 0..P {
            weigh.own(s, p, seen[p].start..common.start);
        }
        weigh.all::<S, P>(s, common.clone());
        for p in 0..P {
            weigh.own(s, p, common.end..seen[p].end);
        }
        P
    }
}

/// Products of queries with `C` vectors of keys from the `c`-th of the tile on, in the order of
/// dimensions.
#[inline(always)]
fn products<S: Simd, const P: usize, const C: usize>(
    s: S,
    q: &[[f32; P]],
    keys: &[[f32; TILE]],
    c: usize,
) -> [[S::F; C]; P] {
    let mut sums = [[s.zero(); C]; P];
    for (q, keys) in q.iter().zip(keys) {
        let mut vectors = [s.zero(); C];
        for i in 0..C {
            vectors[i] = s.load(&keys.as_chunks().0[c + i]);
        }
        for p in 0..P {
            let q = s.splat(q[p]);
            for i in 0..C {
                sums[p][i] = s.fma(vectors[i], q, sums[p][i]);
            }
        }
    }
    sums
}

/// Values of a tile to be weighed for some pairs.
struct Weigh<'a> {
    /// `[TILE][width / LANES - 1]` vectors.
    values: &'a [[f32; LANES]],
    weights: &'a [[f32; SPAN]],
    /// Where the tile begins in the span.
    at: usize,
    out: &'a mut [f32],
    width: usize,
}

impl Weigh<'_> {
    /// Positions of the tile that one pair alone sees.
    #[inline(always)]
    fn own<S: Simd>(&mut self, s: S, pair: usize, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let mut one = Weigh {
            weights: &self.weights[pair..],
            out: &mut self.out[pair * self.width..],
            ..*self
        };
        let n_vectors = one.width / LANES - 1;
        let mut d = 0;
        while d < n_vectors {
            d += match n_vectors - d {
                4.. => one.vectors::<S, 1, 4>(s, &positions, d),
                _ => one.vectors::<S, 1, 1>(s, &positions, d),
            };
        }
    }

    /// Positions of the tile that the first `P` pairs see.
    #[inline(always)]
    fn all<S: Simd, const P: usize>(&mut self, s: S, positions: Range<usize>) {
        let n_vectors = self.width / LANES - 1;
        let mut d = 0;
        while d < n_vectors {
            d += match n_vectors - d {
                4.. if S::WIDE && P <= 4 => self.vectors::<S, P, 4>(s, &positions, d),
                2.. if S::WIDE || P <= 2 => self.vectors::<S, P, 2>(s, &positions, d),
                _ => self.vectors::<S, P, 1>(s, &positions, d),
            };
        }
    }

    /// `C` vectors of dimensions from the `d`-th on, in the order of positions; gives `C`.
    #[inline(always)]
    fn vectors<S: Simd, const P: usize, const C: usize>(
        &mut self,
        s: S,
        positions: &Range<usize>,
        d: usize,
    ) -> usize {
        let n_vectors = self.width / LANES - 1;
        let weights: &[[f32; SPAN]; P] = self.weights.first_chunk().expect("of every pair");
        let mut of = [[].as_slice(); P];
        for p in 0..P {
            of[p] = &weights[p][self.at + positions.start..self.at + positions.end];
        }
        let values = &self.values[positions.start * n_vectors..positions.end * n_vectors];
        let rows = values.chunks_exact(n_vectors).map(|row| &row[d..d + C]);
        let mut sums = [[s.zero(); C]; P];
        for p in 0..P {
            for c in 0..C {
                let out = &self.out[p * self.width + (d + c) * LANES..];
                sums[p][c] = s.load(out.first_chunk().expect("a vector"));
            }
        }
        for (i, row) in rows.enumerate().take(of[0].len()) {
            let mut vectors = [s.zero(); C];
            for c in 0..C {
                vectors[c] = s.load(&row[c]);
            }
            for p in 0..P {
                let weight = s.splat(of[p][i]);
                for c in 0..C {
                    sums[p][c] = s.fma(vectors[c], weight, sums[p][c]);
                }
            }
        }
        for p in 0..P {
            for c in 0..C {
                let out = &mut self.out[p * self.width + (d + c) * LANES..];
                s.store(sums[p][c], out.first_chunk_mut().expect("a vector"));
            }
        }
        C
    }
}

/// How far positions from `position` on lie after the last that is seen: zero for it, negative
/// before it.
#[inline(always)]
fn distances<S: Simd>(s: S, position: usize, last: usize) -> S::F {
    let lanes: [f32; LANES] =
        std::array::from_fn(|lane| ((position + lane) as i32 - last as i32) as f32);
    s.load(&lanes)
}

/// Turns scores into exponentials relative to their maximum; gives it and their sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32]) -> (f32, f32) {
    let (vectors, rest) = scores.as_chunks_mut::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for scores in vectors.iter() {
        max = s.max(max, s.load(scores));
    }
    let mut max = s.max_lane(max);
    for &mut score in rest.iter_mut() {
        max = if max > score { max } else { score };
    }
    let lanes = s.splat(max);
    let mut sum = s.zero();
    for scores in vectors {
        let e = exp(s, s.sub(s.load(scores), lanes));
        s.store(e, scores);
        sum = s.add(sum, e);
    }
    if !rest.is_empty() {
        let e = exp(s, s.sub(s.load_part(rest), lanes));
        s.store_part(e, rest);
        // Read back, so that the lanes after the last position are zero.
        sum = s.add(sum, s.load_part(rest));
    }
    (max, s.sum(sum))
}
