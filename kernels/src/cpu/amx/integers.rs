//! Quantized weights times rows of int8.
//!
//! A group of 32 inputs is one product of tiles (two where its halves have scales of their own),
//! whose exact sums of sixteen rows by sixteen columns go to memory and from there through the same
//! f32 operations in the same order as in `quant::native_block`. These take longer than the
//! product, so that of the next group is begun before them.

#![expect(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of registers"
)]

use std::marker::PhantomData;
use std::ops::Range;

use super::Chunk;
use super::activations::GroupTile;
use super::panel::{self, CODES, COLUMNS, PART, Panel, lines_per_group};
use super::streams::Streams;
use super::tiles::{ROW_BYTES, ROWS, Shape, Shapes, Tiles, Unit};
use crate::cpu::quant::Format;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::format::layout::GROUP;
use crate::memory::Line;

pub(super) struct Integers<'a, Q, U> {
    chunk: Chunk<'a>,
    unit: U,
    panel: &'a mut Panel,
    format: PhantomData<Q>,
}

impl<'a, Q: Format, U: Unit> Integers<'a, Q, U> {
    pub(super) fn new(chunk: Chunk<'a>, unit: U, panel: &'a mut Panel) -> Self {
        Self {
            chunk,
            unit,
            panel,
            format: PhantomData,
        }
    }

    /// Products of a group.
    const HALVES: usize = Q::LAYOUT.n_halves();

    /// Tiles 0 to 3 are sums, 4 and 5 rows, the others columns.
    fn shapes() -> Shapes {
        let sums = Shape::new(ROWS, ROW_BYTES);
        let rows = Shape::new(ROWS, GROUP / Self::HALVES);
        let columns = Shape::new(CODES / Self::HALVES, ROW_BYTES);
        [sums, sums, sums, sums, rows, rows, columns, columns]
    }
}

impl<Q: Format, U: Unit> Kernel for Integers<'_, Q, U> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut products = Products {
            tiles: self.unit.configure(Self::shapes()),
            sums: &mut [[Line([0.0; LANES]); ROWS]; 4],
        };
        let Range { start, end } = self.chunk.columns;
        let n_groups = self.chunk.weight.n_in / GROUP;
        let n_parts = n_groups.div_ceil(PART).max(1);
        let n_calls = (end - start) * n_parts * self.chunk.n_rows.div_ceil(ROWS);
        self.chunk.next.n_at_once = self.chunk.next.n_lines.div_ceil(n_calls.max(1));
        for first in (start..end).step_by(COLUMNS) {
            for part in 0..n_parts {
                let columns = first..end.min(first + COLUMNS);
                let groups = part * PART..n_groups.min((part + 1) * PART);
                let weight = self.chunk.weight;
                (self.panel).unpack::<S, Q>(s, weight, columns.clone(), groups.clone());
                self.rows(s, columns, groups, &mut products);
            }
        }
    }
}

impl<Q: Format, U: Unit> Integers<'_, Q, U> {
    /// All rows, brought forward by what the panel holds, while what comes after it is asked for.
    #[inline(always)]
    fn rows<S: Simd>(
        &mut self,
        s: S,
        columns: Range<usize>,
        groups: Range<usize>,
        products: &mut Products<'_, U::Tiles>,
    ) {
        let weight = self.chunk.weight;
        let n_blocks = self.chunk.n_rows.div_ceil(ROWS);
        let (next_columns, next_groups) = self.after(columns.clone(), groups.clone());
        let n_calls = n_blocks * columns.len() * groups.len();
        let mut streams = panel::streams(Q::LAYOUT, weight, next_columns, next_groups, n_calls);
        for block in 0..n_blocks {
            let rows = &self.chunk.activations.groups_of(block)[groups.clone()];
            for (i, tile) in columns.clone().enumerate() {
                self.chunk.next.bring();
                let weights = self.panel.groups(Q::LAYOUT, i, groups.len());
                let sums = self.take(s, block, tile, groups.start == 0);
                let sums = products.block::<S, Q>(s, rows, weights, sums, &mut streams);
                self.put(s, block, tile, sums, groups.end == weight.n_in / GROUP);
            }
        }
    }

    /// The columns and groups that follow.
    fn after(&self, columns: Range<usize>, groups: Range<usize>) -> (Range<usize>, Range<usize>) {
        let n_groups = self.chunk.weight.n_in / GROUP;
        if groups.end < n_groups {
            return (columns, groups.end..n_groups.min(groups.end + PART));
        }
        let end = self.chunk.columns.end;
        (
            columns.end..end.min(columns.end + COLUMNS),
            0..n_groups.min(PART),
        )
    }

    /// What is there of the groups before.
    #[inline(always)]
    fn take<S: Simd>(&self, s: S, block: usize, tile: usize, is_first: bool) -> [S::F; ROWS] {
        let mut sums = [s.zero(); ROWS];
        if !is_first {
            for r in 0..ROWS.min(self.chunk.n_rows - block * ROWS) {
                sums[r] = s.load_part(self.chunk.out(block * ROWS + r, tile));
            }
        }
        sums
    }

    /// Sums to where they belong, with the bias if they are whole.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, block: usize, tile: usize, sums: [S::F; ROWS], is_last: bool) {
        let bias = self.chunk.bias_of(tile).filter(|_| is_last);
        let bias = bias.map(|bias| s.load_part(bias));
        for r in 0..ROWS.min(self.chunk.n_rows - block * ROWS) {
            let sums = bias.map_or(sums[r], |bias| s.add(sums[r], bias));
            s.store_part(sums, self.chunk.out(block * ROWS + r, tile));
        }
    }
}

/// Tiles, and where their sums are put down.
struct Products<'a, T> {
    tiles: T,
    /// i32, those of the two halves of an even group, then of an odd one.
    sums: &'a mut [[Line; ROWS]; 4],
}

impl<T: Tiles> Products<'_, T> {
    /// `sums` plus what some groups give.
    #[inline(always)]
    fn block<S: Simd, Q: Format>(
        &mut self,
        s: S,
        rows: &[GroupTile],
        weights: &[Line],
        mut sums: [S::F; ROWS],
        streams: &mut Streams<'_>,
    ) -> [S::F; ROWS] {
        let weights = |g: usize| {
            let n = lines_per_group(Q::LAYOUT);
            &weights[g * n..][..n]
        };
        let n = rows.len();
        if n > 0 {
            self.even::<Q>(&rows[0], weights(0));
        }
        for g in (0..n).step_by(2) {
            if g + 1 < n {
                self.odd::<Q>(&rows[g + 1], weights(g + 1));
            }
            streams.bring();
            sums = scaled::<S, Q>(s, &self.sums[..2], &rows[g], weights(g), sums);
            if g + 1 == n {
                break;
            }
            if g + 2 < n {
                self.even::<Q>(&rows[g + 2], weights(g + 2));
            }
            streams.bring();
            sums = scaled::<S, Q>(s, &self.sums[2..], &rows[g + 1], weights(g + 1), sums);
        }
        sums
    }

    /// The products of a group.
    #[inline(always)]
    fn even<Q: Format>(&mut self, rows: &GroupTile, weights: &[Line]) {
        let (first, second) = halves::<Q>(rows, weights);
        self.dot::<0, 4, 6>(first);
        if Q::LAYOUT.n_halves() == 2 {
            self.dot::<1, 5, 7>(second);
            self.tiles.store::<1>(&mut self.sums[1], ROW_BYTES);
        }
        self.tiles.store::<0>(&mut self.sums[0], ROW_BYTES);
    }

    /// The same in other tiles.
    #[inline(always)]
    fn odd<Q: Format>(&mut self, rows: &GroupTile, weights: &[Line]) {
        let (first, second) = halves::<Q>(rows, weights);
        self.dot::<2, 5, 7>(first);
        if Q::LAYOUT.n_halves() == 2 {
            self.dot::<3, 4, 6>(second);
            self.tiles.store::<3>(&mut self.sums[3], ROW_BYTES);
        }
        self.tiles.store::<2>(&mut self.sums[2], ROW_BYTES);
    }

    /// One product, in tile `C`.
    #[inline(always)]
    fn dot<const C: usize, const A: usize, const B: usize>(&mut self, (rows, codes): Operands<'_>) {
        self.tiles.zero::<C>();
        self.tiles.load::<A>(rows, GROUP);
        self.tiles.load::<B>(codes, ROW_BYTES);
        self.tiles.dot_bytes::<C, A, B>();
    }
}

/// Rows from their first int8 on, and lines of codes.
type Operands<'a> = (&'a [i32], &'a [Line]);

/// The operands of both halves of a group; if it is one whole, those of the first are all of it.
#[inline(always)]
fn halves<'a, Q: Format>(rows: &'a GroupTile, weights: &'a [Line]) -> (Operands<'a>, Operands<'a>) {
    let (quads, codes) = (rows.quads.as_flattened(), &weights[..CODES]);
    let half = CODES / 2;
    ((quads, codes), (&quads[half..], &codes[half..]))
}

/// Adds the sums of a group, scaled, to those of the groups before.
#[inline(always)]
fn scaled<S: Simd, Q: Format>(
    s: S,
    sums: &[[Line; ROWS]],
    rows: &GroupTile,
    weights: &[Line],
    mut out: [S::F; ROWS],
) -> [S::F; ROWS] {
    let layout = Q::LAYOUT;
    let (n_halves, n) = (layout.n_halves(), 1 + usize::from(layout.has_min()));
    let line = |i: usize| s.load(&weights[CODES + i.min(n_halves * n - 1)].0);
    // Rows outside, so that what a row brings is in registers but once.
    let (scales, mins) = ([line(0), line(n)], [line(1), line(n + 1)]);
    for r in 0..ROWS {
        let act_scale = s.splat(rows.scales[r]);
        for half in 0..n_halves {
            let sum = s.to_f(s.bits(s.load(&sums[half][r].0)));
            out[r] = s.fma(sum, s.mul(scales[half], act_scale), out[r]);
            if layout.has_min() {
                let part = if n_halves == 1 { 2 } else { half };
                let sum = s.splat(rows.scaled_sums[part][r]);
                out[r] = s.fma(mins[half], sum, out[r]);
            }
        }
    }
    out
}
