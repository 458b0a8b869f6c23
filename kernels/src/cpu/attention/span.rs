//! Attention of some pairs (row, query head) over one span of the context.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::marker::PhantomData;
use std::ops::Range;

use super::SPAN;
use super::merge::{split, width};
use super::room::Room;
use super::single::{ScoreSingle, WeighSingle};
use super::step::{is_paired, n_steps, step};
use super::tile::{self, TILE};
use super::weigh::Weigh;
use crate::AttentionRow;
use crate::cpu::elementwise::softcap;
use crate::cpu::math::{exp, exp_bf16};
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::kv::{KvElement, KvLayer, KvShape};

/// One kv head for rows `first..end` of a sequence. Pair `i` is row `first + i / group` and query
/// head `kv_head * group + i % group`.
pub(super) struct Attention<'a> {
    pub(super) q: &'a [f32],
    pub(super) shape: KvShape,
    pub(super) sequence: AttentionRow<'a>,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) kv_head: usize,
    pub(super) n_heads: usize,
    /// Query heads of a kv head.
    pub(super) group: usize,
    pub(super) scale: f32,
    pub(super) window: usize,
    pub(super) softcap: Option<f32>,
    pub(super) slopes: Option<&'a [f32]>,
}

/// Pairs whose largest scores are found before the first of them is exponentiated: work enough to
/// hide how long each takes.
const SOFTMAX_PAIRS: usize = 8;

/// Calls `$self.$method::<S, E, P>(first pair, ...)` for all pairs, as many at a time as registers
/// hold sums of.
macro_rules! for_pairs {
    ($self:ident.$method:ident::<$s:ty, $e:ty>($($arg:expr),*)) => {
        let n_pairs = $self.n_pairs();
        let mut pair = 0;
        while pair < n_pairs {
            pair += match n_pairs - pair {
                8.. if <$s>::WIDE => $self.$method::<$s, $e, 8>(pair, $($arg),*),
                6.. if !<$s>::WIDE && !<$s>::PLAIN => $self.$method::<$s, $e, 6>(pair, $($arg),*),
                4.. => $self.$method::<$s, $e, 4>(pair, $($arg),*),
                3 if !<$s>::PLAIN => $self.$method::<$s, $e, 3>(pair, $($arg),*),
                2 if !<$s>::PLAIN => $self.$method::<$s, $e, 2>(pair, $($arg),*),
                _ => $self.$method::<$s, $e, 1>(pair, $($arg),*),
            };
        }
    };
}

impl Attention<'_> {
    #[inline(always)]
    pub(super) fn n_pairs(&self) -> usize {
        (self.end - self.first) * self.group
    }

    /// Where the query and the output of a pair begin, and its query head.
    #[inline(always)]
    pub(super) fn place(&self, pair: usize) -> (usize, usize) {
        let row = self.sequence.first_row + self.first + pair / self.group;
        let head = self.kv_head * self.group + pair % self.group;
        ((row * self.n_heads + head) * self.shape.head_dim, head)
    }

    /// The positions of `within` that a pair sees.
    #[inline(always)]
    fn seen(&self, pair: usize, within: &Range<usize>) -> Range<usize> {
        let end = self.sequence.start + self.first + pair / self.group + 1;
        let start = end
            .saturating_sub(self.window)
            .clamp(within.start, within.end);
        start..end.clamp(start, within.end)
    }

    /// Makes room for scores, and copies queries so that those of pairs that go together are beside
    /// each other: `[steps of head_dim][P]` for each such block of pairs, of which a single row has
    /// one.
    #[inline(always)]
    pub(super) fn prepare<'r, S: Simd, E: KvElement>(
        &self,
        s: S,
        packed: &'r mut Room,
        scores: &'r mut Room,
    ) -> (&'r [f32], &'r mut [[f32; SPAN]]) {
        let n_pairs = if self.is_single::<S>() {
            self.n_padded_pairs()
        } else {
            self.n_pairs()
        };
        let packed = packed.of(n_pairs * n_steps::<S, E>(self.shape.head_dim));
        if self.is_single::<S>() {
            self.pack_single::<S, E>(s, packed);
        } else {
            for_pairs!(self.pack_block::<S, E>(s, packed));
        }
        (packed, scores.of(n_pairs * SPAN).as_chunks_mut().0)
    }

    #[inline(always)]
    fn pack_block<S: Simd, E: KvElement, const P: usize>(
        &self,
        first: usize,
        s: S,
        packed: &mut [f32],
    ) -> usize {
        let packed = &mut packed[first * n_steps::<S, E>(self.shape.head_dim)..];
        for p in 0..P {
            self.pack_query::<S, E>(s, first + p, P, &mut packed[p..]);
        }
        P
    }

    /// What keys are multiplied by for one pair, step by step, to every `stride`-th place.
    #[inline(always)]
    pub(super) fn pack_query<S: Simd, E: KvElement>(
        &self,
        s: S,
        pair: usize,
        stride: usize,
        packed: &mut [f32],
    ) {
        let q = &self.q[self.place(pair).0..][..self.shape.head_dim];
        let mut packed = packed.iter_mut().step_by(stride);
        for q in q.chunks(LANES) {
            let mut steps = [0.0; LANES];
            if is_paired::<S, E>() {
                let rounded = s.round_bf16(s.load_part(q));
                s.store_pairs(rounded, steps.first_chunk_mut().expect("half of them"));
            } else if E::BF16 {
                s.store(s.reinterpret(s.round_bf16(s.load_part(q))), &mut steps);
            } else {
                steps[..q.len()].copy_from_slice(q);
            }
            let n = n_steps::<S, E>(q.len());
            for (&step, packed) in steps[..n].iter().zip(&mut packed) {
                *packed = step;
            }
        }
    }

    /// What the span gives for each pair, to `out`: see [`super::merge`].
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "scratch is borrowed in parts")]
    pub(super) fn span<S: Simd, E: KvElement>(
        &self,
        s: S,
        kv: &KvLayer<'_, E>,
        span: usize,
        q: &[f32],
        scores: &mut [[f32; SPAN]],
        room: &mut Room,
        out: &mut [f32],
    ) {
        let n_pairs = self.n_pairs();
        let span = span * SPAN..(span + 1) * SPAN;
        // The constant is said here too: what it rules out is not even compiled.
        if !S::PLAIN && self.is_single::<S>() {
            let seen = &self.seen(0, &span);
            s.apart(ScoreSingle {
                of: self,
                kv,
                seen,
                q,
                scores,
            });
            s.apart(Weights::<E::Like>::new(self, &span, scores, out));
            s.apart(WeighSingle {
                of: self,
                kv,
                seen,
                weights: scores,
                out,
            });
            return;
        }
        let first = self.seen(0, &span).start / TILE * TILE;
        let end = self.seen(n_pairs - 1, &span).end;
        for start in (first..end).step_by(TILE) {
            let keys = tile::keys(room, s, self, kv, start, end.min(start + TILE));
            s.apart(ScoreTile::<E::Like> {
                of: self,
                start,
                q,
                keys,
                scores,
                like: PhantomData,
            });
        }
        s.apart(Weights::<E::Like>::new(self, &span, scores, out));
        for start in (first..end).step_by(TILE) {
            let values = tile::values(room, s, self, kv, start, end.min(start + TILE));
            s.apart(WeighTile::<E::Like> {
                of: self,
                start,
                values,
                weights: scores,
                out,
                like: PhantomData,
            });
        }
    }
}

/// Scores of all pairs for the tile that begins at `start`.
struct ScoreTile<'a, E> {
    of: &'a Attention<'a>,
    start: usize,
    q: &'a [f32],
    keys: &'a [[f32; TILE]],
    scores: &'a mut [[f32; SPAN]],
    like: PhantomData<E>,
}

impl<E: KvElement> Kernel for ScoreTile<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let of = self.of;
        for_pairs!(of.score_block::<S, E>(s, self.start, self.q, self.keys, self.scores));
    }
}

/// Adds the values of the tile that begins at `start`, weighed, to `out`, for all pairs.
struct WeighTile<'a, E> {
    of: &'a Attention<'a>,
    start: usize,
    values: &'a [[f32; LANES]],
    weights: &'a [[f32; SPAN]],
    out: &'a mut [f32],
    like: PhantomData<E>,
}

impl<E: KvElement> Kernel for WeighTile<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let of = self.of;
        for_pairs!(of.weigh_block::<S, E>(s, self.start, self.values, self.weights, self.out));
    }
}

/// Makes weights of the scores of a span, step by step where they are paired, and `out` what
/// weighs nothing yet.
struct Weights<'a, E> {
    of: &'a Attention<'a>,
    span: &'a Range<usize>,
    scores: &'a mut [[f32; SPAN]],
    out: &'a mut [f32],
    like: PhantomData<E>,
}

impl<'a, E> Weights<'a, E> {
    fn new(
        of: &'a Attention<'a>,
        span: &'a Range<usize>,
        scores: &'a mut [[f32; SPAN]],
        out: &'a mut [f32],
    ) -> Self {
        Self {
            of,
            span,
            scores,
            out,
            like: PhantomData,
        }
    }
}

impl<E: KvElement> Kernel for Weights<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            of,
            span,
            scores,
            out,
            ..
        } = self;
        let width = width(of.shape.head_dim);
        for (block, out) in out.chunks_mut(SOFTMAX_PAIRS * width).enumerate() {
            let first = block * SOFTMAX_PAIRS;
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let seen = of.seen(first + i, span);
                let seen = seen.start - span.start..seen.end - span.start;
                let (values, end) = split(out);
                values.fill(0.0);
                end[0] = largest(s, &scores[first + i][seen]);
            }
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let seen = of.seen(first + i, span);
                let seen = seen.start - span.start..seen.end - span.start;
                let (_, end) = split(out);
                let scores = &mut scores[first + i];
                end[1] = exponentials::<S, E>(s, end[0], &mut scores[seen.clone()]);
                if is_paired::<S, E>() {
                    pair_up(s, scores, &seen);
                }
            }
        }
    }
}

impl Attention<'_> {
    /// Scores of `P` pairs for a tile that begins at `start`. Those of positions that a pair does
    /// not see are computed and never read.
    #[inline(always)]
    fn score_block<S: Simd, E: KvElement, const P: usize>(
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
        let end = self.seen(first + P - 1, &tile).end;
        if is_after || end == tile.start {
            return P;
        }
        let q = &q[first * keys.len()..].as_chunks::<P>().0[..keys.len()];
        let scores = &mut scores[first..first + P];
        let n_vectors = (end - start).div_ceil(LANES);
        if S::WIDE {
            for c in (0..n_vectors).step_by(2) {
                let sums = products::<S, E, P, 2>(s, q, keys, c);
                self.keep_scores(s, first, start + c * LANES, sums, scores);
            }
        } else {
            for c in 0..n_vectors {
                let sums = products::<S, E, P, 1>(s, q, keys, c);
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
                    let last = self.sequence.start + self.first + (first + p) / self.group;
                    score = s.fma(distances(s, position, last), slope, score);
                }
                s.store(score, &mut vectors[position % SPAN / LANES]);
            }
        }
    }

    /// Adds the values of a tile that begins at `start`, weighed, to `out`.
    #[inline(always)]
    fn weigh_block<S: Simd, E: KvElement, const P: usize>(
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
        // The windows of later pairs begin and end later.
        let (of_first, of_last) = (self.seen(first, &tile), self.seen(first + P - 1, &tile));
        if of_first.end == tile.end && of_last.start == tile.start {
            weigh.all::<S, E, P>(s, 0..TILE);
            return P;
        }
        // In the order of positions: what some see and others no longer, what all see, what the
        // first do not see yet. Values that a pair does not see must not even meet a zero: they
        // may be no numbers.
        let mut seen = [const { 0..0 }; P];
        for p in 0..P {
            let of_pair = self.seen(first + p, &tile);
            seen[p] = of_pair.start - start..of_pair.end - start;
        }
        let mut common = seen[P - 1].start..seen[0].end;
        if is_paired::<S, E>() {
            common = common.start.next_multiple_of(2)..common.end / 2 * 2;
        }
        if common.is_empty() {
            for p in 0..P {
                weigh.own::<S, E>(s, p, seen[p].clone());
            }
            return P;
        }
        for p in 0..P {
            weigh.own::<S, E>(s, p, seen[p].start..common.start);
        }
        weigh.all::<S, E, P>(s, common.clone());
        for p in 0..P {
            weigh.own::<S, E>(s, p, common.end..seen[p].end);
        }
        P
    }
}

/// Products of queries with `C` vectors of keys from the `c`-th of the tile on, in the order of
/// dimensions.
#[inline(always)]
fn products<S: Simd, E: KvElement, const P: usize, const C: usize>(
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
            for i in 0..C {
                sums[p][i] = step::<S, E>(s, sums[p][i], vectors[i], q[p]);
            }
        }
    }
    sums
}

/// How far positions from `position` on lie after the last that is seen: zero for it, negative
/// before it.
#[inline(always)]
fn distances<S: Simd>(s: S, position: usize, last: usize) -> S::F {
    let lanes: [f32; LANES] =
        std::array::from_fn(|lane| ((position + lane) as i32 - last as i32) as f32);
    s.load(&lanes)
}

/// The largest of some scores; of none, negative infinity.
#[inline(always)]
fn largest<S: Simd>(s: S, scores: &[f32]) -> f32 {
    let (vectors, rest) = scores.as_chunks::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for scores in vectors {
        max = s.max(max, s.load(scores));
    }
    let mut max = s.max_lane(max);
    for &score in rest {
        max = if max > score { max } else { score };
    }
    max
}

/// Turns scores into exponentials relative to their maximum, which are rounded where values are
/// bf16; gives their sum.
#[inline(always)]
fn exponentials<S: Simd, E: KvElement>(s: S, max: f32, scores: &mut [f32]) -> f32 {
    let (vectors, rest) = scores.as_chunks_mut::<LANES>();
    let lanes = s.splat(max);
    let mut sum = s.zero();
    for scores in vectors {
        let e = weight::<S, E>(s, s.sub(s.load(scores), lanes));
        s.store(e, scores);
        sum = s.add(sum, e);
    }
    if !rest.is_empty() {
        let e = weight::<S, E>(s, s.sub(s.load_part(rest), lanes));
        s.store_part(e, rest);
        // Read back, so that the lanes after the last position are zero.
        sum = s.add(sum, s.load_part(rest));
    }
    s.sum(sum)
}

/// `e^x`, as values are weighed with it.
#[inline(always)]
fn weight<S: Simd, E: KvElement>(s: S, x: S::F) -> S::F {
    if E::BF16 { exp_bf16(s, x) } else { exp(s, x) }
}

/// Makes pairs of weights: that of the positions `2 i` and `2 i + 1` comes to place `i`. Half of the
/// first and of the last is undefined where `seen` cuts them.
#[inline(always)]
fn pair_up<S: Simd>(s: S, weights: &mut [f32; SPAN], seen: &Range<usize>) {
    if seen.start % 2 == 1 {
        // A score that became no weight has bits where the second of its pair goes.
        weights[seen.start - 1] = 0.0;
    }
    for i in seen.start / LANES..seen.end.div_ceil(LANES) {
        let vector = s.bits(s.load(&weights.as_chunks().0[i]));
        s.store_pairs(vector, &mut weights.as_chunks_mut().0[i]);
    }
}
