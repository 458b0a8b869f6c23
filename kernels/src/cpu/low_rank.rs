//! Low-rank parts of adapters: `y += B (s (A x))` for groups of rows.
//!
//! A chunk is some rows of one group: a thread takes `A x` of its rows, which fits its cache,
//! and adds `B` times it to all outputs. So an op is one parallel region, and rows that share an
//! adapter share its reading. Every value of `A x` sums sixteen lanes over the input in order and
//! then the lanes; every output adds ranks in order, one part after the other: a row's bits
//! depend on nothing but its own shapes.
//!
//! Few rows share an adapter, so matrices come from memory once in a step and are read like a
//! stream: what is next is asked for while what is here is computed with.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

mod dense;
mod packed;

use std::sync::PoisonError;

use self::dense::{Bf16, Dense, F16};
pub(crate) use self::packed::PackedLowRank;
use self::packed::{BLOCK, PackedTarget};
use super::Cpu;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd, prefetch};
use crate::{LinearCall, LinearDelta, RowGroups, WeightType};

/// See [`crate::Device::add_deltas`]; shapes are checked there.
pub(crate) fn add_deltas(
    cpu: &Cpu,
    x: &[f32],
    groups: &RowGroups,
    deltas: &[Option<&LinearDelta>],
    calls: &mut [LinearCall<'_>],
) {
    /// Rows that read matrices once together; more would not fit the cache with what they read.
    const MOST_ROWS: usize = 32;
    let n_in = calls[0].weight.n_in();
    let used = |group: usize| deltas[group].map_or(0, |_| groups.rows(group).len());
    let n_rows: usize = (0..deltas.len()).map(used).sum();
    let part = n_rows
        .div_ceil(2 * cpu.pool.n_threads())
        .clamp(1, MOST_ROWS);
    let n_chunks: usize = (0..deltas.len())
        .map(|group| used(group).div_ceil(part))
        .sum();
    let outs: Vec<Out<'_>> = calls
        .iter_mut()
        .map(|call| Out {
            n_out: call.weight.n_out(),
            values: SharedMut::new(call.out.as_mut_slice()),
        })
        .collect();
    cpu.pool.run(n_chunks, &|mut chunk, thread| {
        for (group, delta) in deltas.iter().enumerate() {
            let Some(delta) = delta else { continue };
            let mut chunks = groups.rows(group).chunks(part);
            if chunk >= chunks.len() {
                chunk -= chunks.len();
                continue;
            }
            let rows = chunks.nth(chunk).unwrap_or_default();
            let mut scratch = cpu.low_rank_scratch[thread]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let n_inner: usize = delta.parts.iter().map(|(part, _)| part.rank()).sum();
            if scratch.len() < rows.len() * n_inner {
                scratch.resize(rows.len() * n_inner, 0.0);
            }
            return cpu.isa.run(Chunk {
                x,
                n_in,
                rows,
                delta,
                inner: &mut scratch[..rows.len() * n_inner],
                outs: &outs,
            });
        }
    });
}

/// The output of one layer.
struct Out<'a> {
    n_out: usize,
    values: SharedMut<'a, f32>,
}

/// Some rows of one group.
struct Chunk<'a> {
    x: &'a [f32],
    n_in: usize,
    rows: &'a [u32],
    delta: &'a LinearDelta,
    /// `[n_rows, rank]` for each part, one after the other.
    inner: &'a mut [f32],
    outs: &'a [Out<'a>],
}

impl Kernel for Chunk<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut first = 0;
        for (part, weight) in &self.delta.parts {
            let part = part.packed();
            match part.ty {
                WeightType::F32 => self.shrink::<S, f32>(s, part, *weight, first),
                WeightType::F16 => self.shrink::<S, F16>(s, part, *weight, first),
                _ => self.shrink::<S, Bf16>(s, part, *weight, first),
            }
            first += self.rows.len() * part.scales.len();
        }
        for output in 0..self.outs.len() {
            let n = self.rows.len();
            let mut row = 0;
            while row < n {
                row += match n - row {
                    4.. if !S::PLAIN => self.expand::<S, 4>(s, output, row),
                    2.. if !S::PLAIN => self.expand::<S, 2>(s, output, row),
                    _ => self.expand::<S, 1>(s, output, row),
                };
            }
        }
    }
}

impl Chunk<'_> {
    /// `s (A x)` of all rows of one part, into `inner` from `first` on.
    #[inline(always)]
    fn shrink<S: Simd, D: Dense>(&mut self, s: S, part: &PackedLowRank, weight: f32, first: usize) {
        let mut row = 0;
        while row < self.rows.len() {
            row += match self.rows.len() - row {
                4.. if S::WIDE => self.shrink_rows::<S, D, 4>(s, part, weight, (first, row)),
                2.. if !S::PLAIN => self.shrink_rows::<S, D, 2>(s, part, weight, (first, row)),
                _ => self.shrink_rows::<S, D, 1>(s, part, weight, (first, row)),
            };
        }
    }

    /// Of `R` rows; gives `R`.
    #[inline(always)]
    fn shrink_rows<S: Simd, D: Dense, const R: usize>(
        &mut self,
        s: S,
        part: &PackedLowRank,
        weight: f32,
        (first, row): (usize, usize),
    ) -> usize {
        let (a, n_in, rank) = (part.a::<D>(), self.n_in, part.scales.len());
        let inner = &mut self.inner[first + row * rank..][..R * rank];
        let mut x: [&[f32]; R] = [&[]; R];
        for r in 0..R {
            x[r] = &self.x[self.rows[row + r] as usize * n_in..][..n_in];
        }
        let mut k = 0;
        while k + 4 <= rank {
            let dots = dots::<S, D, R, 4>(s, x, &a[k * n_in..]);
            put(inner, (k, rank, &part.scales[k..], weight), dots);
            k += 4;
        }
        while k < rank {
            let dots = dots::<S, D, R, 1>(s, x, &a[k * n_in..]);
            put(inner, (k, rank, &part.scales[k..], weight), dots);
            k += 1;
        }
        R
    }

    /// All columns of `R` rows of one output; gives `R`.
    #[inline(always)]
    fn expand<S: Simd, const R: usize>(&self, s: S, output: usize, first: usize) -> usize {
        let n_out = self.outs[output].n_out;
        let mut column = 0;
        while S::WIDE && n_out - column >= BLOCK {
            self.columns::<S, R, 4>(s, output, first, column);
            column += BLOCK;
        }
        while n_out - column >= LANES {
            self.columns::<S, R, 1>(s, output, first, column);
            column += LANES;
        }
        if column < n_out {
            self.last_columns::<S, R>(s, output, first, column);
        }
        R
    }

    /// `T` vectors of columns of `R` rows of one output.
    #[inline(always)]
    fn columns<S: Simd, const R: usize, const T: usize>(
        &self,
        s: S,
        output: usize,
        first: usize,
        column: usize,
    ) {
        let out = &self.outs[output];
        let mut y = [[s.zero(); T]; R];
        for r in 0..R {
            let row = self.rows[first + r] as usize;
            // SAFETY: a row is in one group, in one chunk of it, and is borrowed only here.
            let own = unsafe { out.values.part(row * out.n_out + column, T * LANES) };
            let own = &own.as_chunks().0[..T];
            for t in 0..T {
                y[r][t] = s.load(&own[t]);
            }
        }
        self.scale_and_shift(s, output, (column, T * LANES), &mut y);
        self.add_parts(s, (output, first, column), &mut y);
        for r in 0..R {
            let row = self.rows[first + r] as usize;
            // SAFETY: as above; the first borrow has ended.
            let own = unsafe { out.values.part(row * out.n_out + column, T * LANES) };
            let own = &mut own.as_chunks_mut().0[..T];
            for t in 0..T {
                s.store(y[r][t], &mut own[t]);
            }
        }
    }

    /// Columns that are not a whole vector.
    #[inline(always)]
    fn last_columns<S: Simd, const R: usize>(
        &self,
        s: S,
        output: usize,
        first: usize,
        column: usize,
    ) {
        let out = &self.outs[output];
        let n = out.n_out - column;
        let mut y = [[s.zero(); 1]; R];
        for r in 0..R {
            let row = self.rows[first + r] as usize;
            // SAFETY: as in `columns`.
            y[r] = [s.load_part(unsafe { out.values.part(row * out.n_out + column, n) })];
        }
        self.scale_and_shift(s, output, (column, n), &mut y);
        self.add_parts(s, (output, first, column), &mut y);
        for r in 0..R {
            let row = self.rows[first + r] as usize;
            // SAFETY: as in `columns`.
            s.store_part(y[r][0], unsafe {
                out.values.part(row * out.n_out + column, n)
            });
        }
    }

    /// What comes before parts, for `n` columns.
    #[inline(always)]
    fn scale_and_shift<S: Simd, const R: usize, const T: usize>(
        &self,
        s: S,
        output: usize,
        (column, n): (usize, usize),
        y: &mut [[S::F; T]; R],
    ) {
        for delta in self.delta.outputs.iter().filter(|d| d.output == output) {
            for t in 0..T {
                let piece = column + t * LANES..column + n.min(t * LANES + LANES);
                if let Some(scale) = &delta.scale {
                    let scale = s.load_part(&scale.as_slice()[piece.clone()]);
                    for r in 0..R {
                        y[r][t] = s.mul(y[r][t], scale);
                    }
                }
                if let Some(shift) = &delta.shift {
                    let shift = s.load_part(&shift.as_slice()[piece]);
                    for r in 0..R {
                        y[r][t] = s.add(y[r][t], shift);
                    }
                }
            }
        }
    }

    /// What all parts add to `T` vectors of columns of `R` rows.
    #[inline(always)]
    fn add_parts<S: Simd, const R: usize, const T: usize>(
        &self,
        s: S,
        (output, first, column): (usize, usize, usize),
        y: &mut [[S::F; T]; R],
    ) {
        let mut inner = 0;
        for (part, _) in &self.delta.parts {
            let part = part.packed();
            let rank = part.scales.len();
            for target in part.targets.iter().filter(|t| t.output == output) {
                let at = inner + first * rank + target.first_rank;
                let mut h: [&[f32]; R] = [&[]; R];
                for r in 0..R {
                    h[r] = &self.inner[at + r * rank..][..target.rank];
                }
                match part.ty {
                    WeightType::F32 => add::<S, f32, R, T>(s, part, target, h, column, y),
                    WeightType::F16 => add::<S, F16, R, T>(s, part, target, h, column, y),
                    _ => add::<S, Bf16, R, T>(s, part, target, h, column, y),
                }
            }
            inner += self.rows.len() * rank;
        }
    }
}

/// `y += column_scale * (B h)` for `T` vectors of columns of `R` rows.
#[inline(always)]
fn add<S: Simd, D: Dense, const R: usize, const T: usize>(
    s: S,
    part: &PackedLowRank,
    target: &PackedTarget,
    h: [&[f32]; R],
    column: usize,
    y: &mut [[S::F; T]; R],
) {
    let mut sums = match target.column_scale {
        None => *y,
        Some(_) => [[s.zero(); T]; R],
    };
    let (b, n_columns) = part.block::<D>(target, column / BLOCK * BLOCK);
    let from = column % BLOCK;
    for (k, b) in b.chunks_exact(n_columns).enumerate() {
        let b = &b[from..];
        ahead(b);
        match b.as_chunks().0.first_chunk::<T>() {
            Some(b) => {
                for t in 0..T {
                    let b = D::load(s, &b[t]);
                    for r in 0..R {
                        sums[r][t] = s.fma(s.splat(h[r][k]), b, sums[r][t]);
                    }
                }
            }
            None => {
                let b = D::load_part(s, b);
                for r in 0..R {
                    sums[r][0] = s.fma(s.splat(h[r][k]), b, sums[r][0]);
                }
            }
        }
    }
    match &target.column_scale {
        None => *y = sums,
        Some(scale) => {
            let scale = &scale[column..];
            for t in 0..T {
                let n = scale.len().min(t * LANES + LANES);
                let scale = s.load_part(&scale[t * LANES..n]);
                for r in 0..R {
                    y[r][t] = s.fma(sums[r][t], scale, y[r][t]);
                }
            }
        }
    }
}

/// Dot products of `R` rows with `K` rows of `A`.
#[inline(always)]
fn dots<S: Simd, D: Dense, const R: usize, const K: usize>(
    s: S,
    x: [&[f32]; R],
    a: &[D],
) -> [[f32; K]; R] {
    let n_in = x[0].len();
    let n = n_in / LANES;
    let mut x_chunks: [&[[f32; LANES]]; R] = [&[]; R];
    for r in 0..R {
        x_chunks[r] = &x[r].as_chunks().0[..n];
    }
    let mut a_chunks: [&[[D; LANES]]; K] = [&[]; K];
    for k in 0..K {
        a_chunks[k] = &a[k * n_in..].as_chunks().0[..n];
    }
    let mut sums = [[s.zero(); K]; R];
    for i in 0..n {
        for k in 0..K {
            ahead(&a_chunks[k][i]);
            let a = D::load(s, &a_chunks[k][i]);
            for r in 0..R {
                sums[r][k] = s.fma(a, s.load(&x_chunks[r][i]), sums[r][k]);
            }
        }
    }
    if n * LANES < n_in {
        for k in 0..K {
            let a = D::load_part(s, &a[k * n_in..][n * LANES..n_in]);
            for r in 0..R {
                sums[r][k] = s.fma(a, s.load_part(&x[r][n * LANES..n_in]), sums[r][k]);
            }
        }
    }
    let mut dots = [[0.0; K]; R];
    for r in 0..R {
        for k in 0..K {
            dots[r][k] = s.sum(sums[r][k]);
        }
    }
    dots
}

/// Asks for what will be needed a while after `values`, which lie in a stream.
#[inline(always)]
fn ahead<D>(values: &[D]) {
    /// About as many bytes as one thread computes with in the time that memory takes to answer.
    const DISTANCE: usize = 4096;
    prefetch(values.as_ptr().cast::<u8>().wrapping_add(DISTANCE));
}

/// Writes dot products, each times its scale, from `at` on, rows `rank` apart.
#[inline(always)]
fn put<const R: usize, const K: usize>(
    inner: &mut [f32],
    (at, rank, scales, weight): (usize, usize, &[f32], f32),
    dots: [[f32; K]; R],
) {
    for r in 0..R {
        for k in 0..K {
            inner[at + r * rank + k] = dots[r][k] * (scales[k] * weight);
        }
    }
}
