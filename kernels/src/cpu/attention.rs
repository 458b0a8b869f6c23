//! Causal attention of ragged rows over the paged cache.
//!
//! The work of a kv head for some rows of one sequence is one chunk; its cost follows the real
//! length of the context. Within a chunk, up to eight pairs (row, query head) go together, so
//! that each load of a key or value serves them all. Softmax has two passes: all scores of a
//! pair are kept, then exponentiated, then summed, then weigh the values in the order of
//! positions. What one pair computes depends on its own context alone, not on its company.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::sync::PoisonError;

use super::Cpu;
use super::math::exp;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::kv::{KvElement, KvShape, KvType, head_offset};
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
    }
}

fn typed<E: KvElement>(cpu: &Cpu, op: PagedAttention<'_>) {
    let shape = op.kv.shape();
    let (keys, values) = op.kv.layer::<E>(op.layer);
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
                keys,
                values,
                shape,
                part: parts[chunk / shape.n_kv_heads],
                kv_head: chunk % shape.n_kv_heads,
                n_heads: op.n_heads,
                scale: op.scale,
                scores: &mut scores,
                out: &out,
            });
        });
}

/// One kv head for some rows of one sequence.
struct Attention<'a, E> {
    q: &'a [f32],
    keys: &'a [E],
    values: &'a [E],
    shape: KvShape,
    part: Part<'a>,
    kv_head: usize,
    n_heads: usize,
    scale: f32,
    scores: &'a mut Vec<f32>,
    out: &'a SharedMut<'a, f32>,
}

/// `P` pairs (row, query head) that go together.
#[derive(Clone, Copy)]
struct Pairs<const P: usize> {
    /// Where the query and the output of each begin.
    at: [usize; P],
    /// Positions that each sees, in ascending order.
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
            n_positions: [0; P],
            stride: 0,
        };
        for p in 0..P {
            let row = self.part.first + (first + p) / group;
            let head = self.kv_head * group + (first + p) % group;
            pairs.at[p] = ((self.part.sequence.first_row + row) * self.n_heads + head) * head_dim;
            pairs.n_positions[p] = self.part.sequence.start + row + 1;
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
            let scores = &mut self.scores[p * pairs.stride..][..pairs.n_positions[p]];
            factors[p] = 1.0 / softmax(s, scores);
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
        for (i, &block) in self.part.sequence.blocks.iter().enumerate() {
            if i * block_size >= n_positions {
                break;
            }
            let at = head_offset(self.shape, block as usize, self.kv_head);
            let keys = &self.keys[at..][..block_size * head_dim];
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
                for p in 0..P {
                    let to = p * pairs.stride + i * block_size + offset;
                    s.store_part(s.mul(sums[p], scale), &mut self.scores[to..to + LANES]);
                }
                offset += LANES;
            }
        }
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
        // What all see, then for each what it alone sees of it.
        let common = pairs.n_positions[0];
        self.weigh_positions(s, scores, &mut sums, 0, common, d);
        for p in 0..P {
            let mut own = [sums[p]];
            self.weigh_positions(s, [scores[p]], &mut own, common, scores[p].len(), d);
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
            let block = self.part.sequence.blocks[position / block_size] as usize;
            let at = head_offset(self.shape, block, self.kv_head);
            let values = &self.values[at..][..block_size * head_dim];
            let end = to.min((position / block_size + 1) * block_size);
            while position < end {
                let row = &values[position % block_size * head_dim..][..head_dim];
                for c in 0..C {
                    let value = load_part::<S, E>(s, &row[d + c * LANES..]);
                    for p in 0..P {
                        sums[p][c] = s.fma(value, s.splat(scores[p][position]), sums[p][c]);
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

/// Turns scores into exponentials relative to their maximum; gives their sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32]) -> f32 {
    let (vectors, rest) = scores.as_chunks_mut::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for scores in vectors.iter() {
        max = s.max(max, s.load(scores));
    }
    let mut max = s.max_lane(max);
    for &mut score in rest.iter_mut() {
        max = if max > score { max } else { score };
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
    s.sum(sum)
}
