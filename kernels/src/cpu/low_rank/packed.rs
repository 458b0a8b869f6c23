//! Low-rank matrices in memory: those of one adapter are one stream, in the order in which a step
//! comes to them.

use std::ops::Range;
use std::sync::Arc;

use super::super::simd::LANES;
use super::dense::Dense;
use crate::memory::{OutOfMemory, Pages};
use crate::{LowRankSource, LowRankTarget, WeightType};

/// See [`crate::LowRank`].
#[derive(Debug)]
pub(crate) struct PackedLowRank {
    pub(super) ty: WeightType,
    pub(crate) n_in: usize,
    /// Shared by all that were packed together.
    pages: Arc<Pages>,
    /// Bytes of `A` in it.
    a: Range<usize>,
    /// Bytes of `B` in it.
    b: Range<usize>,
    pub(crate) scales: Vec<f32>,
    pub(crate) targets: Vec<PackedTarget>,
}

#[derive(Debug)]
pub(crate) struct PackedTarget {
    pub(crate) output: usize,
    pub(crate) n_out: usize,
    pub(super) first_rank: usize,
    pub(super) rank: usize,
    /// Where its values begin in `b`.
    first: usize,
    pub(super) column_scale: Option<Vec<f32>>,
}

impl PackedLowRank {
    /// Packs sources whose sizes have been checked.
    pub(crate) fn pack(sources: &[LowRankSource<'_>]) -> Result<Vec<Self>, OutOfMemory> {
        let a_bytes = |source: &LowRankSource<'_>| source.a.len().next_multiple_of(LINE);
        let b_bytes = |source: &LowRankSource<'_>| {
            let n: usize = source.targets.iter().map(|target| target.b.len()).sum();
            n.next_multiple_of(LINE)
        };
        let n_bytes = sources.iter().map(|s| a_bytes(s) + b_bytes(s)).sum();
        let mut pages = Pages::zeroed(n_bytes)?;
        let mut at = 0;
        let bytes = pages.as_mut_slice::<u8>();
        for source in sources {
            bytes[at..at + source.a.len()].copy_from_slice(&source.a);
            at += a_bytes(source);
            transpose(source, &mut bytes[at..at + b_bytes(source)]);
            at += b_bytes(source);
        }
        let pages = Arc::new(pages);
        let mut at = 0;
        let pack = |source: &LowRankSource<'_>| {
            let a = at..at + a_bytes(source);
            let b = a.end..a.end + b_bytes(source);
            at = b.end;
            Self {
                ty: source.ty,
                n_in: source.n_in,
                pages: pages.clone(),
                a,
                b,
                scales: source.scales.clone(),
                targets: targets(source),
            }
        };
        Ok(sources.iter().map(pack).collect())
    }

    /// All of its memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.pages.as_slice()[self.a.start..self.b.end]
    }

    /// `[rank, n_in]`, and perhaps a few zeros.
    #[inline(always)]
    pub(super) fn a<D: Dense>(&self) -> &[D] {
        let width = std::mem::size_of::<D>();
        &self.pages.as_slice::<D>()[self.a.start / width..self.a.end / width]
    }

    /// `B` of a target for the block of columns that begins at `column`: `[rank, n_columns]`, and
    /// `n_columns`.
    #[inline(always)]
    pub(super) fn block<D: Dense>(&self, target: &PackedTarget, column: usize) -> (&[D], usize) {
        let first = self.b.start / std::mem::size_of::<D>() + target.first + column * target.rank;
        let n_columns = BLOCK.min(target.n_out - column);
        let values = &self.pages.as_slice::<D>()[first..][..target.rank * n_columns];
        (values, n_columns)
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
        self.a.len() + self.b.len() + 4 * self.scales.len() + scales
    }
}

/// Columns of `B` that lie together: four vectors.
pub(super) const BLOCK: usize = 4 * LANES;

/// Bytes that matrices begin at multiples of.
const LINE: usize = 64;

/// The matrices `B` of all targets in blocks of columns, each by rank.
fn transpose(source: &LowRankSource<'_>, bytes: &mut [u8]) {
    let width = source.ty.block_bytes();
    let mut first = 0;
    for target in &source.targets {
        let (n_out, rank) = (target.n_out, target.rank);
        for (i, value) in target.b.chunks_exact(width).enumerate() {
            let (column, k) = (i / rank, i % rank);
            let block = column / BLOCK * BLOCK;
            let columns = BLOCK.min(n_out - block);
            let place = block * rank + k * columns + column % BLOCK;
            bytes[(first + place) * width..][..width].copy_from_slice(value);
        }
        first += n_out * rank;
    }
}

fn targets(source: &LowRankSource<'_>) -> Vec<PackedTarget> {
    let mut first = 0;
    let pack = |target: &LowRankTarget<'_>| {
        let packed = PackedTarget {
            output: target.output,
            n_out: target.n_out,
            first_rank: target.first_rank,
            rank: target.rank,
            first,
            column_scale: target.column_scale.clone(),
        };
        first += target.n_out * target.rank;
        packed
    };
    source.targets.iter().map(pack).collect()
}
