//! bf16 weights times rows of bf16.
//!
//! An output is one element of `C` to which steps of 32 inputs are added in order, and then its
//! bias, whatever the number of rows and the tiles that it shares the machine with.
//!
//! In memory the first of a pair comes after the second, in weights as in activations. The
//! instruction adds up the first of all pairs and the second of all pairs each for itself and
//! then one sum to the other, which gives the same bits in either order.

use std::ops::Range;

use super::Chunk;
use super::activations::{STEP, rows_per_block};
use super::streams::Streams;
use super::tiles::{ROW_BYTES, ROWS, Shape, Shapes, Tiles, Unit};
use crate::cpu::simd::{Kernel, LANES, Simd, prefetch};
use crate::format::layout::LINE;
use crate::memory::Line;

/// Steps of a part of a sum where many rows pass by wide weights: with [`NEAR_ROWS`] rows they are
/// half of a second level of 2 MB.
const PART_STEPS: usize = 64;
/// Rows that stay near while columns pass by.
const NEAR_ROWS: usize = 256;
/// Bytes between what is computed with and what is asked for, in each stream of a few rows.
const DISTANCE: usize = 2048;

pub(super) struct Pairs<'a, U> {
    pub(super) chunk: Chunk<'a>,
    pub(super) unit: U,
}

impl<U: Unit> Kernel for Pairs<'_, U> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tiles = self.unit.configure(shapes(self.chunk.n_rows));
        // At least so many times there is room to ask for a share of what comes after.
        let n_calls = self.chunk.n_rows.div_ceil(2 * ROWS) * self.chunk.columns.len() / 4;
        self.chunk.next.n_at_once = self.chunk.next.n_lines.div_ceil(n_calls.max(1));
        let mut walk = Walk {
            chunk: self.chunk,
            tiles,
        };
        if walk.chunk.n_rows <= ROWS {
            walk.few_rows(s);
        } else {
            walk.many_rows(s);
        }
    }
}

/// Tiles 0 to 3 are sums (16 columns of four bytes), 4 and 5 rows, the others columns.
fn shapes(n_rows: usize) -> Shapes {
    let rows = Shape::new(rows_per_block(n_rows), ROW_BYTES);
    let columns = Shape::new(ROWS, ROW_BYTES);
    [rows, rows, rows, rows, rows, columns, columns, columns]
}

/// A tile of columns: its lines, from the first input on.
type Columns<'a> = &'a [[u8; LINE]];

/// A block of rows and a tile of columns.
type Place = (usize, usize);

struct Walk<'a, T> {
    chunk: Chunk<'a>,
    tiles: T,
}

impl<'a, T: Tiles> Walk<'a, T> {
    /// One block of rows. Weights are read once, so they come as four streams of memory that each
    /// go on from tile to tile: the quarters of the chunk.
    #[inline(always)]
    fn few_rows<S: Simd>(&mut self, s: S) {
        let Range { start, end } = self.chunk.columns;
        let quarter = (end - start) / 4;
        for i in start..start + quarter {
            self.row_of_tiles::<S, 4>(s, [0, 1, 2, 3].map(|q| i + q * quarter));
        }
        let left = start + 4 * quarter;
        match end - left {
            3 => self.row_of_tiles::<S, 3>(s, [left, left + 1, left + 2]),
            2 => self.row_of_tiles::<S, 2>(s, [left, left + 1]),
            1 => self.row_of_tiles::<S, 1>(s, [left]),
            _ => {}
        }
    }

    /// `N` tiles of outputs of the only block of rows.
    #[inline(always)]
    fn row_of_tiles<S: Simd, const N: usize>(&mut self, s: S, columns: [usize; N]) {
        let n_rows = self.chunk.n_rows;
        let rows = self.chunk.activations.steps_of(0, n_rows);
        let weights = columns.map(|tile| self.columns(tile));
        let places = std::array::from_fn(|i| columns.get(i).map(|&tile| (0, tile)));
        self.chunk.next.bring();
        self.begin(s, places, true);
        for (step, rows) in rows.chunks_exact(rows_per_block(n_rows)).enumerate() {
            self.tiles.load::<4>(rows, ROW_BYTES);
            self.column::<0, 5>(weights[0], step);
            if N > 1 {
                self.column::<1, 6>(weights[1], step);
            }
            if N > 2 {
                self.column::<2, 7>(weights[2], step);
            }
            if N > 3 {
                self.column::<3, 5>(weights[3], step);
            }
        }
        self.end(s, places, true);
    }

    /// A step of the rows in tile 4 times one of a stream of columns, which comes to tile `B`.
    #[inline(always)]
    fn column<const C: usize, const B: usize>(&mut self, columns: Columns<'_>, step: usize) {
        ask_ahead(columns, step);
        self.load::<B>(columns, step);
        self.tiles.dot_pairs::<C, 4, B>();
    }

    /// Blocks of two by two tiles: two operands each for four products. As many rows at a time as
    /// stay near, for these a part of the inputs, for that all columns.
    #[inline(always)]
    fn many_rows<S: Simd>(&mut self, s: S) {
        let n_blocks = self.chunk.n_rows.div_ceil(ROWS);
        for first in (0..n_blocks).step_by(NEAR_ROWS / ROWS) {
            let blocks = first..n_blocks.min(first + NEAR_ROWS / ROWS);
            let mut part = 0..self.n_steps().min(PART_STEPS);
            loop {
                self.columns_of_part(s, blocks.clone(), part.clone());
                if part.end == self.n_steps() {
                    break;
                }
                part = self.part_after(part);
            }
        }
    }

    /// All columns of some blocks of rows, brought forward by some steps.
    #[inline(always)]
    fn columns_of_part<S: Simd>(&mut self, s: S, blocks: Range<usize>, part: Range<usize>) {
        let end = self.chunk.columns.end;
        for tile in self.chunk.columns.clone().step_by(2) {
            let n_calls = blocks.len().div_ceil(2) * part.len();
            let mut streams = Streams::new(self.after(tile, part.clone()), n_calls);
            for block in blocks.clone().step_by(2) {
                let place = (block, tile);
                let part = part.clone();
                match (blocks.end - block, end - tile) {
                    (1, 1) => self.square::<S, 1, 1>(s, place, part, &mut streams),
                    (1, _) => self.square::<S, 1, 2>(s, place, part, &mut streams),
                    (_, 1) => self.square::<S, 2, 1>(s, place, part, &mut streams),
                    _ => self.square::<S, 2, 2>(s, place, part, &mut streams),
                }
            }
        }
    }

    /// `R` blocks of rows by `N` tiles of columns, brought forward by some steps.
    #[inline(always)]
    fn square<S: Simd, const R: usize, const N: usize>(
        &mut self,
        s: S,
        (block, tile): Place,
        part: Range<usize>,
        streams: &mut Streams<'_>,
    ) {
        let place = |r, n| (r < R && n < N).then_some((block + r, tile + n));
        let places = [place(0, 0), place(0, 1), place(1, 0), place(1, 1)];
        let (is_first, is_last) = (part.start == 0, part.end == self.n_steps());
        let chunk = &self.chunk;
        let rows = [0, R - 1].map(|r| chunk.activations.steps_of(block + r, chunk.n_rows));
        let columns = [0, N - 1].map(|n| self.columns(tile + n));
        self.chunk.next.bring();
        self.begin(s, places, is_first);
        for step in part {
            self.tiles
                .load::<4>(&rows[0][step * ROWS..][..ROWS], ROW_BYTES);
            self.load::<6>(columns[0], step);
            self.tiles.dot_pairs::<0, 4, 6>();
            if N > 1 {
                self.load::<7>(columns[1], step);
                self.tiles.dot_pairs::<1, 4, 7>();
            }
            if R > 1 {
                self.tiles
                    .load::<5>(&rows[1][step * ROWS..][..ROWS], ROW_BYTES);
                self.tiles.dot_pairs::<2, 5, 6>();
            }
            if R > 1 && N > 1 {
                self.tiles.dot_pairs::<3, 5, 7>();
            }
            streams.bring();
        }
        self.end(s, places, is_last);
    }

    /// Sums of `places`: zeros, or what is there of the steps before.
    #[inline(always)]
    fn begin<S: Simd>(&mut self, s: S, places: [Option<Place>; 4], is_first: bool) {
        let before = places.map(|place| place.filter(|_| !is_first));
        self.take::<S, 0>(s, before[0]);
        self.take::<S, 1>(s, before[1]);
        self.take::<S, 2>(s, before[2]);
        self.take::<S, 3>(s, before[3]);
    }

    #[inline(always)]
    fn take<S: Simd, const C: usize>(&mut self, s: S, place: Option<Place>) {
        let Some((block, tile)) = place else {
            return self.tiles.zero::<C>();
        };
        let mut sums = [Line([0.0; LANES]); ROWS];
        for (row, sums) in self.rows(block).zip(&mut sums) {
            s.store(s.load_part(self.chunk.out(row, tile)), &mut sums.0);
        }
        self.tiles.load::<C>(&sums, ROW_BYTES);
    }

    /// Sums to where they belong, with the bias if they are whole.
    #[inline(always)]
    fn end<S: Simd>(&self, s: S, places: [Option<Place>; 4], is_last: bool) {
        self.put::<S, 0>(s, places[0], is_last);
        self.put::<S, 1>(s, places[1], is_last);
        self.put::<S, 2>(s, places[2], is_last);
        self.put::<S, 3>(s, places[3], is_last);
    }

    #[inline(always)]
    fn put<S: Simd, const C: usize>(&self, s: S, place: Option<Place>, is_last: bool) {
        let Some((block, tile)) = place else {
            return;
        };
        let mut sums = [Line([0.0; LANES]); ROWS];
        self.tiles.store::<C>(&mut sums, ROW_BYTES);
        let bias = self.chunk.bias_of(tile).filter(|_| is_last);
        let bias = bias.map(|bias| s.load_part(bias));
        for (row, Line(sums)) in self.rows(block).zip(&sums) {
            let sums = s.load(sums);
            let sums = bias.map_or(sums, |bias| s.add(sums, bias));
            s.store_part(sums, self.chunk.out(row, tile));
        }
    }

    /// One step of a tile of columns; inputs that it lacks are zeros.
    #[inline(always)]
    fn load<const B: usize>(&mut self, columns: Columns<'_>, step: usize) {
        let lines = &columns[step * ROWS..];
        match lines.first_chunk::<ROWS>() {
            Some(lines) => self.tiles.load::<B>(lines, ROW_BYTES),
            None => self.tiles.load::<B>(&padded(lines), ROW_BYTES),
        }
    }

    #[inline(always)]
    fn columns(&self, tile: usize) -> Columns<'a> {
        let [columns] = self.chunk.weight.dense_tiles(tile);
        columns
    }

    /// Rows of a block.
    #[inline(always)]
    fn rows(&self, block: usize) -> Range<usize> {
        block * ROWS..self.chunk.n_rows.min(block * ROWS + ROWS)
    }

    #[inline(always)]
    fn n_steps(&self) -> usize {
        self.chunk.weight.n_in.div_ceil(STEP)
    }

    fn part_after(&self, part: Range<usize>) -> Range<usize> {
        part.end..self.n_steps().min(part.end + PART_STEPS)
    }

    /// The weights that follow two tiles of columns of a part, each tile in halves.
    fn after(&self, tile: usize, part: Range<usize>) -> [&'a [u8]; 8] {
        let Range { start, end } = self.chunk.columns;
        let (tile, part) = if tile + 2 < end {
            (tile + 2, part)
        } else {
            (start, self.part_after(part))
        };
        let mut pieces = [&[][..]; 8];
        for (tile, pieces) in (tile..end).zip(pieces.chunks_exact_mut(2).take(2)) {
            let columns = self.columns(tile);
            let at = |step: usize| columns.len().min(step * ROWS);
            let lines = &columns[at(part.start)..at(part.end)];
            let (first, second) = lines.split_at(lines.len() / 2);
            pieces.copy_from_slice(&[first.as_flattened(), second.as_flattened()]);
        }
        pieces
    }
}

/// A step of which some lines are missing.
#[cold]
fn padded(lines: &[[u8; LINE]]) -> [[u8; LINE]; ROWS] {
    let mut padded = [[0; LINE]; ROWS];
    padded[..lines.len()].copy_from_slice(lines);
    padded
}

/// Asks for what follows a step in its stream of memory, be that the next tile.
#[inline(always)]
fn ask_ahead(columns: Columns<'_>, step: usize) {
    let at = columns.as_ptr().wrapping_add(step * ROWS).cast::<u8>();
    for line in 0..ROWS {
        prefetch(at.wrapping_add(DISTANCE + line * LINE));
    }
}
