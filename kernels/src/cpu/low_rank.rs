//! Low-rank parts of adapters: `y += B (s (A x))` for groups of rows.
//!
//! A chunk is some rows of one group: a thread takes `A x` of its rows, which fits its cache,
//! and adds `B` times it to all outputs. So an op is one parallel region, and rows that share an
//! adapter share its reading. Every value of `A x` sums sixteen lanes over the input in order and
//! then the lanes; every output adds ranks in order, one part after the other: a row's bits
//! depend on nothing but its own shapes.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::sync::PoisonError;

use super::Cpu;
use super::shared::SharedMut;
use super::simd::{Kernel, LANES, Simd};
use crate::memory::{OutOfMemory, Pages, Plain};
use crate::{LinearCall, LinearDelta, LowRankSource, RowGroups, WeightType};

/// See [`crate::LowRank`].
#[derive(Debug)]
pub(crate) struct PackedLowRank {
    ty: WeightType,
    pub(crate) n_in: usize,
    /// `[rank, n_in]`.
    a: Pages,
    /// `[rank, n_out]` of each target, one after the other.
    b: Pages,
    pub(crate) scales: Vec<f32>,
    pub(crate) targets: Vec<PackedTarget>,
}

#[derive(Debug)]
pub(crate) struct PackedTarget {
    pub(crate) output: usize,
    pub(crate) n_out: usize,
    first_rank: usize,
    rank: usize,
    /// Where its values begin in `b`.
    first: usize,
    column_scale: Option<Vec<f32>>,
}

impl PackedLowRank {
    /// Packs a source whose sizes have been checked.
    pub(crate) fn pack(source: &LowRankSource<'_>) -> Result<Self, OutOfMemory> {
        let width = source.ty.block_bytes();
        let mut a = Pages::zeroed(source.a.len())?;
        a.as_mut_slice::<u8>().copy_from_slice(&source.a);
        let mut b = Pages::zeroed(source.targets.iter().map(|target| target.b.len()).sum())?;
        let bytes = b.as_mut_slice::<u8>();
        let mut first = 0;
        let mut targets = Vec::with_capacity(source.targets.len());
        for target in &source.targets {
            let (n_out, rank) = (target.n_out, target.rank);
            for (i, value) in target.b.chunks_exact(width).enumerate() {
                let (column, k) = (i / rank, i % rank);
                bytes[(first + k * n_out + column) * width..][..width].copy_from_slice(value);
            }
            targets.push(PackedTarget {
                output: target.output,
                n_out,
                first_rank: target.first_rank,
                rank,
                first,
                column_scale: target.column_scale.clone(),
            });
            first += n_out * rank;
        }
        Ok(Self {
            ty: source.ty,
            n_in: source.n_in,
            a,
            b,
            scales: source.scales.clone(),
            targets,
        })
    }

    pub(crate) fn n_bytes(&self) -> usize {
        let scales: usize = self
            .targets
            .iter()
            .map(|target| {
                target
                    .column_scale
                    .as_ref()
                    .map_or(0, |scale| 4 * scale.len())
            })
            .sum();
        self.a.n_bytes() + self.b.n_bytes() + 4 * self.scales.len() + scales
    }
}

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
            for first in (0..n / 4 * 4).step_by(4) {
                self.expand::<S, 4>(s, output, first);
            }
            for row in n / 4 * 4..n {
                self.expand::<S, 1>(s, output, row);
            }
        }
    }
}

impl Chunk<'_> {
    /// `s (A x)` of all rows of one part, into `inner` from `first` on.
    #[inline(always)]
    fn shrink<S: Simd, D: Dense>(&mut self, s: S, part: &PackedLowRank, weight: f32, first: usize) {
        let (a, n_in, rank) = (part.a.as_slice::<D>(), self.n_in, part.scales.len());
        let inner = &mut self.inner[first..][..self.rows.len() * rank];
        let (x, rows) = (self.x, self.rows);
        let row_of = |i: usize| &x[rows[i] as usize * n_in..][..n_in];
        let mut i = 0;
        while i < rows.len() {
            let mut k = 0;
            let n = match rows.len() - i {
                2.. => 2,
                _ => 1,
            };
            while k < rank {
                let of = |k: usize| &a[k * n_in..][..n_in];
                let left = rank - k;
                let at = (i * rank + k, rank, &part.scales[k..], weight);
                if n == 2 {
                    let rows = [row_of(i), row_of(i + 1)];
                    if left >= 4 {
                        let a = [of(k), of(k + 1), of(k + 2), of(k + 3)];
                        put(inner, at, dots::<S, D, 2, 4>(s, rows, a));
                        k += 4;
                    } else {
                        put(inner, at, dots::<S, D, 2, 1>(s, rows, [of(k)]));
                        k += 1;
                    }
                } else if left >= 4 {
                    let a = [of(k), of(k + 1), of(k + 2), of(k + 3)];
                    put(inner, at, dots::<S, D, 1, 4>(s, [row_of(i)], a));
                    k += 4;
                } else {
                    put(inner, at, dots::<S, D, 1, 1>(s, [row_of(i)], [of(k)]));
                    k += 1;
                }
            }
            i += n;
        }
    }

    /// All columns of `R` rows of one output.
    #[inline(always)]
    fn expand<S: Simd, const R: usize>(&self, s: S, output: usize, first: usize) {
        let n_out = self.outs[output].n_out;
        let mut column = 0;
        while column < n_out {
            if S::WIDE && n_out - column >= 4 * LANES {
                self.columns::<S, R, 4>(s, output, first, column);
                column += 4 * LANES;
            } else {
                self.columns::<S, R, 1>(s, output, first, column);
                column += LANES;
            }
        }
    }

    /// `T` vectors of columns of `R` rows of one output; the last may be a part of one.
    #[inline(always)]
    fn columns<S: Simd, const R: usize, const T: usize>(
        &self,
        s: S,
        output: usize,
        first: usize,
        column: usize,
    ) {
        let out = &self.outs[output];
        let n = (out.n_out - column).min(T * LANES);
        let piece = |t: usize| {
            let from = t * LANES;
            (column + from, (n - from).min(LANES))
        };
        let place = |r: usize, t: usize| {
            let (column, n) = piece(t);
            let row = self.rows[first + r] as usize;
            // SAFETY: a row is in one group, in one chunk of it, and is borrowed only here.
            unsafe { out.values.part(row * out.n_out + column, n) }
        };
        let mut y: [[S::F; T]; R] =
            std::array::from_fn(|r| std::array::from_fn(|t| s.load_part(place(r, t))));
        for delta in self.delta.outputs.iter().filter(|d| d.output == output) {
            for t in 0..T {
                let (column, n) = piece(t);
                let load = |values: &[f32]| s.load_part(&values[column..column + n]);
                let scale = delta.scale.as_ref().map(|scale| load(scale.as_slice()));
                let shift = delta.shift.as_ref().map(|shift| load(shift.as_slice()));
                for r in 0..R {
                    if let Some(scale) = scale {
                        y[r][t] = s.mul(y[r][t], scale);
                    }
                    if let Some(shift) = shift {
                        y[r][t] = s.add(y[r][t], shift);
                    }
                }
            }
        }
        let mut inner = 0;
        for (part, _) in &self.delta.parts {
            let part = part.packed();
            let rank = part.scales.len();
            for target in part.targets.iter().filter(|t| t.output == output) {
                let at = inner + first * rank + target.first_rank;
                let h: [&[f32]; R] =
                    std::array::from_fn(|r| &self.inner[at + r * rank..][..target.rank]);
                match part.ty {
                    WeightType::F32 => add::<S, f32, R, T>(s, part, target, h, column, &mut y),
                    WeightType::F16 => add::<S, F16, R, T>(s, part, target, h, column, &mut y),
                    _ => add::<S, Bf16, R, T>(s, part, target, h, column, &mut y),
                }
            }
            inner += self.rows.len() * rank;
        }
        for r in 0..R {
            for t in 0..T {
                s.store_part(y[r][t], place(r, t));
            }
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
    let n_out = target.n_out;
    let b = &part.b.as_slice::<D>()[target.first..][..target.rank * n_out];
    let mut sums = match target.column_scale {
        None => *y,
        Some(_) => [[s.zero(); T]; R],
    };
    let n = (n_out - column).min(T * LANES);
    for k in 0..target.rank {
        let b = &b[k * n_out + column..][..n];
        for t in 0..T {
            let from = t * LANES;
            let b = D::load_part(s, &b[from..(from + LANES).min(n)]);
            for r in 0..R {
                sums[r][t] = s.fma(s.splat(h[r][k]), b, sums[r][t]);
            }
        }
    }
    match &target.column_scale {
        None => *y = sums,
        Some(scale) => {
            for t in 0..T {
                let from = column + t * LANES;
                let scale = s.load_part(&scale[from..(from + LANES).min(n_out)]);
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
    a: [&[D]; K],
) -> [[f32; K]; R] {
    let n_in = x[0].len();
    let x: [&[f32]; R] = std::array::from_fn(|r| &x[r][..n_in]);
    let a: [&[D]; K] = std::array::from_fn(|k| &a[k][..n_in]);
    let mut sums = [[s.zero(); K]; R];
    let mut at = 0;
    while at < n_in {
        let end = (at + LANES).min(n_in);
        let x: [S::F; R] = std::array::from_fn(|r| s.load_part(&x[r][at..end]));
        for k in 0..K {
            let a = D::load_part(s, &a[k][at..end]);
            for r in 0..R {
                sums[r][k] = s.fma(a, x[r], sums[r][k]);
            }
        }
        at = end;
    }
    std::array::from_fn(|r| std::array::from_fn(|k| s.sum(sums[r][k])))
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

/// How values are stored.
trait Dense: Plain {
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F;

    /// Up to sixteen values; the lanes after them are zero.
    #[inline(always)]
    fn load_part<S: Simd>(s: S, values: &[Self]) -> S::F {
        match values.first_chunk() {
            Some(values) => Self::load(s, values),
            None => {
                let mut padded = [Self::ZERO; LANES];
                padded[..values.len()].copy_from_slice(values);
                Self::load(s, &padded)
            }
        }
    }

    const ZERO: Self;
}

impl Dense for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        s.load(values)
    }
}

/// The bits of an f16.
type F16 = u16;

impl Dense for F16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        s.load_f16(values)
    }
}

/// The bits of a bf16.
type Bf16 = [u16; 1];

impl Dense for Bf16 {
    const ZERO: Self = [0];

    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F {
        s.load_bf16(&values.map(|[value]| value))
    }
}
