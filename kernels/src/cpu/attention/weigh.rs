//! Values of a tile, weighed, for several pairs (row, query head).

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::ops::Range;

use super::SPAN;
use super::step::{FIRST, SECOND, is_paired, step, step_half};
use crate::cpu::simd::{LANES, Simd};
use crate::kv::KvElement;

/// Values of a tile to be weighed for some pairs.
pub(super) struct Weigh<'a> {
    /// `[steps of TILE][width / LANES - 1]` vectors.
    pub(super) values: &'a [[f32; LANES]],
    pub(super) weights: &'a [[f32; SPAN]],
    /// Where the tile begins in the span.
    pub(super) at: usize,
    pub(super) out: &'a mut [f32],
    pub(super) width: usize,
}

impl Weigh<'_> {
    /// Positions of the tile that one pair alone sees.
    #[inline(always)]
    pub(super) fn own<S: Simd, E: KvElement>(
        &mut self,
        s: S,
        pair: usize,
        mut positions: Range<usize>,
    ) {
        if positions.is_empty() {
            return;
        }
        let mut one = Weigh {
            weights: &self.weights[pair..],
            out: &mut self.out[pair * self.width..],
            ..*self
        };
        if is_paired::<S, E>() && positions.start % 2 == 1 {
            one.half::<S, SECOND>(s, positions.start);
            positions.start += 1;
        }
        let n_vectors = one.width / LANES - 1;
        let mut d = 0;
        while d < n_vectors {
            d += match n_vectors - d {
                4.. => one.vectors::<S, E, 1, 4>(s, &positions, d),
                _ => one.vectors::<S, E, 1, 1>(s, &positions, d),
            };
        }
        if is_paired::<S, E>() && positions.end % 2 == 1 && !positions.is_empty() {
            one.half::<S, FIRST>(s, positions.end - 1);
        }
    }

    /// One position of the tile whose neighbour is not seen.
    #[inline(always)]
    fn half<S: Simd, const HALF: u32>(&mut self, s: S, position: usize) {
        let n_vectors = self.width / LANES - 1;
        let values = &self.values[position / 2 * n_vectors..][..n_vectors];
        let weight = self.weights[0][(self.at + position) / 2];
        for (values, out) in values.iter().zip(self.out.as_chunks_mut().0) {
            let sum = step_half::<S, HALF>(s, s.load(out), s.load(values), weight);
            s.store(sum, out);
        }
    }

    /// Positions of the tile that the first `P` pairs see.
    #[inline(always)]
    pub(super) fn all<S: Simd, E: KvElement, const P: usize>(
        &mut self,
        s: S,
        positions: Range<usize>,
    ) {
        let n_vectors = self.width / LANES - 1;
        let mut d = 0;
        while d < n_vectors {
            d += match n_vectors - d {
                4.. if S::WIDE && P <= 4 => self.vectors::<S, E, P, 4>(s, &positions, d),
                2.. if S::WIDE || P <= 2 => self.vectors::<S, E, P, 2>(s, &positions, d),
                _ => self.vectors::<S, E, P, 1>(s, &positions, d),
            };
        }
    }

    /// `C` vectors of dimensions from the `d`-th on, in the order of positions; gives `C`. Where
    /// positions are paired, those without their neighbour are left out.
    #[inline(always)]
    fn vectors<S: Simd, E: KvElement, const P: usize, const C: usize>(
        &mut self,
        s: S,
        positions: &Range<usize>,
        d: usize,
    ) -> usize {
        let n_vectors = self.width / LANES - 1;
        let weights: &[[f32; SPAN]; P] = self.weights.first_chunk().expect("of every pair");
        let (first, n, at) = if is_paired::<S, E>() {
            (positions.start / 2, positions.len() / 2, self.at / 2)
        } else {
            (positions.start, positions.len(), self.at)
        };
        let mut of = [[].as_slice(); P];
        for p in 0..P {
            of[p] = &weights[p][at + first..][..n];
        }
        let values = &self.values[first * n_vectors..][..n * n_vectors];
        let rows = values.chunks_exact(n_vectors).map(|row| &row[d..d + C]);
        let mut sums = [[s.zero(); C]; P];
        for p in 0..P {
            let out = self.out[p * self.width..][..self.width].as_chunks().0;
            let out: &[_; C] = out[d..].first_chunk().expect("a row is longer");
            for c in 0..C {
                sums[p][c] = s.load(&out[c]);
            }
        }
        for (i, row) in rows.enumerate().take(n) {
            let mut vectors = [s.zero(); C];
            for c in 0..C {
                vectors[c] = s.load(&row[c]);
            }
            for p in 0..P {
                for c in 0..C {
                    sums[p][c] = step::<S, E>(s, sums[p][c], vectors[c], of[p][i]);
                }
            }
        }
        for p in 0..P {
            let out = self.out[p * self.width..][..self.width].as_chunks_mut().0;
            let out: &mut [_; C] = out[d..].first_chunk_mut().expect("a row is longer");
            for c in 0..C {
                s.store(sums[p][c], &mut out[c]);
            }
        }
        C
    }
}
