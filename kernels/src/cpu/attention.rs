//! Causal attention of ragged rows over the paged cache.
//!
//! The work of a kv head for some rows of one sequence is one chunk; its cost follows the real
//! length of the context. Within a chunk, up to eight pairs (row, query head) go together, so
//! that each load of a key or value serves them all. Softmax has two passes: all scores of a
//! pair are kept, then exponentiated, then summed, then weigh the values in the order of
//! positions. What one pair computes depends on its own context alone, not on its company.

use std::sync::PoisonError;

use super::Cpu;
use super::elementwise::softcap;
use super::math::exp;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::kv::{E4m3, KvElement, KvLayer, KvShape, KvType, head_offset, scale_offset};
use crate::{AttentionRow, PagedAttention};

/// Query rows of a chunk.
const CHUNK_ROWS: usize = 8;

/// Rows `first..end` of a sequence.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    sequence: AttentionRow<'a>,
    first: usize,
    end: usize,
}

/// See [`crate::Device::paged_attention_into`]; shapes are checked there.
pub(crate) fn paged_attention(cpu: &Cpu, op: PagedAttention<'_>) {
    match op.kv.ty() {
        KvType::Bf16 => typed::<u16>(cpu, op),
        KvType::F32 => typed::<f32>(cpu, op),
        KvType::Int8 => typed::<u8>(cpu, op),
        KvType::Fp8 => typed::<E4m3>(cpu, op),
    }
}

fn typed<E: KvElement>(cpu: &Cpu, op: PagedAttention<'_>) {
    let shape = op.kv.shape();
    let kv = op.kv.layer::<E>(op.layer);
    let parts: Vec<Part<'_>> = op
        .rows
        .iter()
        .flat_map(|&sequence| {
            (0..sequence.n_rows)
                .step_by(CHUNK_ROWS)
                .map(move |first| Part {
                    sequence,
                    first,
                    end: sequence.n_rows.min(first + CHUNK_ROWS),
                })
        })
        .collect();
    let out = SharedMut::new(op.out.as_mut_slice());
    cpu.pool
        .run(parts.len() * shape.n_kv_heads, &|chunk, thread| {
            let mut scores = cpu.scores[thread]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            cpu.isa.run(Attention {
                q: op.q.as_slice(),
                kv: &kv,
                shape,
                part: parts[chunk / shape.n_kv_heads],
                kv_head: chunk % shape.n_kv_heads,
                n_heads: op.n_heads,
                scale: op.scale,
                window: op.window.unwrap_or(usize::MAX),
                softcap: op.softcap,
                slopes: op.alibi_slopes.map(crate::Buffer::as_slice),
                sinks: op.sinks.map(crate::Buffer::as_slice),
                scores: &mut scores,
                out: &out,
            });
        });
}

/// One kv head for some rows of one sequence.
struct Attention<'a, E> {
    q: &'a [f32],
    kv: &'a KvLayer<'a, E>,
    shape: KvShape,
    part: Part<'a>,
    kv_head: usize,
    n_heads: usize,
    scale: f32,
    window: usize,
    softcap: Option<f32>,
    slopes: Option<&'a [f32]>,
    sinks: Option<&'a [f32]>,
    scores: &'a mut Vec<f32>,
    out: &'a SharedMut<'a, f32>,
}

/// `P` pairs (row, query head) that go together.
#[derive(Clone, Copy)]
struct Pairs<const P: usize> {
    /// Where the query and the output of each begin.
    at: [usize; P],
    /// Query head of each.
    head: [usize; P],
    /// Each sees positions `first..n_positions`; both ascend.
    first: [usize; P],
    n_positions: [usize; P],
    /// Scores that each has room for.
    stride: usize,
}

impl<E: KvElement> Kernel for Attention<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let group = self.n_heads / self.shape.n_kv_heads;
        let n_pairs = (self.part.end - self.part.first) * group;
        let mut pair = 0;
        while pair < n_pairs {
            pair += match n_pairs - pair {
                8.. if S::WIDE => self.pairs::<S, 8, 2>(s, pair),
                4.. if S::WIDE => self.pairs::<S, 4, 4>(s, pair),
                3 if S::WIDE => self.pairs::<S, 3, 4>(s, pair),
                2.. => self.pairs::<S, 2, 2>(s, pair),
                _ => self.pairs::<S, 1, 4>(s, pair),
            };
        }
    }
}

impl<E: KvElement> Attention<'_, E> {
    /// Attention of `P` pairs, `C` vectors of output dimensions at a time; gives `P`.
    #[inline(always)]
    fn pairs<S: Simd, const P: usize, const C: usize>(&mut self, s: S, first: usize) -> usize {
        let head_dim = self.shape.head_dim;
        let group = self.n_heads / self.shape.n_kv_heads;
        let mut pairs = Pairs {
            at: [0; P],
            head: [0; P],
            first: [0; P],
            n_positions: [0; P],
            stride: 0,
        };
        for p in 0..P {
            let row = self.part.first + (first + p) / group;
            let head = self.kv_head * group + (first + p) % group;
            pairs.at[p] = ((self.part.sequence.first_row + row) * self.n_heads + head) * head_dim;
            pairs.head[p] = head;
            pairs.n_positions[p] = self.part.sequence.start + row + 1;
            pairs.first[p] = pairs.n_positions[p].saturating_sub(self.window);
        }
        let n_blocks = pairs.n_positions[P - 1].div_ceil(self.shape.block_size);
        // The last vector of scores may reach beyond the last block.
        pairs.stride = n_blocks * self.shape.block_size + LANES;
        if self.scores.len() < P * pairs.stride {
            self.scores.resize(P * pairs.stride, 0.0);
        }
        self.score(s, &pairs);
        let mut factors = [0.0; P];
        for p in 0..P {
            let seen = pairs.first[p]..pairs.n_positions[p];
            let scores = &mut self.scores[p * pairs.stride..][seen];
            let sink = self.sinks.map(|sinks| sinks[pairs.head[p]]);
            factors[p] = 1.0 / softmax(s, scores, sink);
        }
        let mut d = 0;
        while d < head_dim {
            if head_dim - d >= C * LANES {
                self.weigh::<S, P, C>(s, &pairs, factors, d);
                d += C * LANES;
            } else {
                self.weigh::<S, P, 1>(s, &pairs, factors, d);
                d += LANES;
            }
        }
        P
    }

    /// Scaled products of queries and keys. A lane is a position; scores of positions that a
    /// pair does not see are computed and never read.
    #[inline(always)]
    fn score<S: Simd, const P: usize>(&mut self, s: S, pairs: &Pairs<P>) {
        let KvShape {
            block_size,
            head_dim,
            ..
        } = self.shape;
        let n_positions = pairs.n_positions[P - 1];
        let q: [&[f32]; P] = std::array::from_fn(|p| &self.q[pairs.at[p]..][..head_dim]);
        let scale = s.splat(self.scale);
        let first_block = pairs.first[0] / block_size;
        let AttentionRow {
            blocks,
            first_block: n_gone,
            ..
        } = self.part.sequence;
        let blocks = (n_gone..).zip(blocks);
        for (i, &block) in blocks.skip(first_block - n_gone) {
            if i * block_size >= n_positions {
                break;
            }
            let at = head_offset(self.shape, block as usize, self.kv_head);
            let keys = &self.kv.keys[at..][..block_size * head_dim];
            let scales = scale_offset(self.shape, block as usize, self.kv_head);
            let n_here = block_size.min(n_positions - i * block_size);
            let mut offset = 0;
            while offset < n_here {
                let mut sums = [s.zero(); P];
                for d in 0..head_dim {
                    let row = &keys[d * block_size..][..block_size];
                    let k = load_part::<S, E>(s, &row[offset..]);
                    for p in 0..P {
                        sums[p] = s.fma(k, s.splat(q[p][d]), sums[p]);
                    }
                }
                if E::MAX.is_some() {
                    let scales = &self.kv.key_scales[scales..][..block_size];
                    let scales = load_part::<S, f32>(s, &scales[offset..]);
                    for sum in &mut sums {
                        *sum = s.mul(*sum, scales);
                    }
                }
                for p in 0..P {
                    let position = i * block_size + offset;
                    let mut score = softcap(s, s.mul(sums[p], scale), self.softcap);
                    if let Some(slopes) = self.slopes {
                        let slope = s.splat(slopes[pairs.head[p]]);
                        score = s.fma(
                            self.distances(s, position, pairs.n_positions[p]),
                            slope,
                            score,
                        );
                    }
                    let to = p * pairs.stride + position;
                    s.store_part(score, &mut self.scores[to..to + LANES]);
                }
                offset += LANES;
            }
        }
    }

    /// How far positions from `position` on lie after the last of `n_positions`: zero for it,
    /// negative before it.
    #[inline(always)]
    fn distances<S: Simd>(&self, s: S, position: usize, n_positions: usize) -> S::F {
        let last = n_positions as i32 - 1;
        let lanes: [f32; LANES] =
            std::array::from_fn(|lane| ((position + lane) as i32 - last) as f32);
        s.load(&lanes)
    }

    /// `C` vectors of the output from dimension `d` on: weighted values, times `factors`.
    #[inline(always)]
    fn weigh<S: Simd, const P: usize, const C: usize>(
        &self,
        s: S,
        pairs: &Pairs<P>,
        factors: [f32; P],
        d: usize,
    ) {
        let scores: [&[f32]; P] =
            std::array::from_fn(|p| &self.scores[p * pairs.stride..][..pairs.n_positions[p]]);
        let mut sums = [[s.zero(); C]; P];
        // In the order of positions: what some see and others no longer, what all see, what the
        // first do not see yet.
        let common_end = pairs.n_positions[0];
        let common = pairs.first[P - 1].min(common_end);
        for p in 0..P {
            let mut own = [sums[p]];
            self.weigh_positions(s, [scores[p]], &mut own, pairs.first[p], common, d);
            sums[p] = own[0];
        }
        self.weigh_positions(
            s,
            scores,
            &mut sums,
            common.max(pairs.first[P - 1]),
            common_end,
            d,
        );
        for p in 0..P {
            let mut own = [sums[p]];
            let from = common_end.max(pairs.first[p]);
            self.weigh_positions(s, [scores[p]], &mut own, from, scores[p].len(), d);
            sums[p] = own[0];
        }
        let width = (self.shape.head_dim - d).min(C * LANES);
        for p in 0..P {
            let factor = s.splat(factors[p]);
            // SAFETY: each (row, query head) belongs to one chunk and is borrowed only here.
            let out = unsafe { self.out.part(pairs.at[p] + d, width) };
            for (c, out) in out.chunks_mut(LANES).enumerate() {
                s.store_part(s.mul(sums[p][c], factor), out);
            }
        }
    }

    /// Adds `scores[p][position] * value` for positions `from..to`.
    #[inline(always)]
    fn weigh_positions<S: Simd, const P: usize, const C: usize>(
        &self,
        s: S,
        scores: [&[f32]; P],
        sums: &mut [[S::F; C]; P],
        from: usize,
        to: usize,
        d: usize,
    ) {
        let KvShape {
            block_size,
            head_dim,
            ..
        } = self.shape;
        let mut position = from;
        while position < to {
            let n_gone = self.part.sequence.first_block;
            let block = self.part.sequence.blocks[position / block_size - n_gone] as usize;
            let at = head_offset(self.shape, block, self.kv_head);
            let values = &self.kv.values[at..][..block_size * head_dim];
            let scales = scale_offset(self.shape, block, self.kv_head);
            let end = to.min((position / block_size + 1) * block_size);
            while position < end {
                let row = &values[position % block_size * head_dim..][..head_dim];
                let weights: [f32; P] = std::array::from_fn(|p| match E::MAX {
                    None => scores[p][position],
                    Some(_) => {
                        scores[p][position] * self.kv.value_scales[scales + position % block_size]
                    }
                });
                for c in 0..C {
                    let value = load_part::<S, E>(s, &row[d + c * LANES..]);
                    for p in 0..P {
                        sums[p][c] = s.fma(value, s.splat(weights[p]), sums[p][c]);
                    }
                }
                position += 1;
            }
        }
    }
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

/// Turns scores into exponentials relative to their maximum; gives their sum. A sink is one more
/// score, which takes its share of the sum and weighs nothing.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], sink: Option<f32>) -> f32 {
    let (vectors, rest) = scores.as_chunks_mut::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for scores in vectors.iter() {
        max = s.max(max, s.load(scores));
    }
    let mut max = s.max_lane(max);
    for &mut score in rest.iter_mut() {
        max = if max > score { max } else { score };
    }
    if let Some(sink) = sink {
        max = max.max(sink);
    }
    let max = s.splat(max);
    let mut sum = s.zero();
    for scores in vectors {
        let e = exp(s, s.sub(s.load(scores), max));
        s.store(e, scores);
        sum = s.add(sum, e);
    }
    if !rest.is_empty() {
        let e = exp(s, s.sub(s.load_part(rest), max));
        s.store_part(e, rest);
        // Read back, so that the lanes after the last position are zero.
        sum = s.add(sum, s.load_part(rest));
    }
    let sum = s.sum(sum);
    match sink {
        Some(sink) => sum + s.max_lane(exp(s, s.sub(s.splat(sink), max))),
        None => sum,
    }
}
