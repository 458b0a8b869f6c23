//! Rows of activations as tiles: each is one run of memory, whatever the length of a row. (Rows a
//! power of two apart would all want the same few lines of the first level.)

use super::tiles::ROWS;
use crate::cpu::Cpu;
use crate::cpu::activations::{self, ActGroup};
use crate::cpu::shared::SharedMut;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::format::layout::GROUP;
use crate::memory::Line;

/// Inputs of a row of bf16 in a tile: sixteen pairs.
pub(super) const STEP: usize = 32;
/// Lines and groups that are worth a chunk of their own: some microseconds.
const CHUNK: usize = 96;

/// A group of 32 inputs of sixteen rows, as the int8 that [`activations`] makes of them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct GroupTile {
    pub(super) quads: [[i32; GROUP / 4]; ROWS],
    pub(super) scales: [f32; ROWS],
    /// Sums of the codes times the scale: of the first half, of the second, of both.
    pub(super) scaled_sums: [[f32; ROWS]; 3],
}

/// Rows of activations, of as many kinds as a call needs. The memory is kept.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `[n_rows / 16][n_in / 32]`.
    groups: Vec<GroupTile>,
    groups_per_row: usize,
    /// `[n_rows / n][n_steps][n]` lines of [`STEP`] inputs, `n` the rows of a block.
    lines: Vec<Line>,
    steps_per_row: usize,
}

impl Activations {
    /// Gathers rows that were quantized. Rows that the last block lacks are zeros.
    pub(crate) fn gather(&mut self, cpu: &Cpu, rows: &activations::Activations, n_rows: usize) {
        let n_groups = rows.row(0).len();
        self.groups_per_row = n_groups;
        let n_tiles = n_rows.div_ceil(ROWS) * n_groups;
        if self.groups.len() < n_tiles {
            self.groups.resize(n_tiles, GroupTile::default());
        }
        let tiles = SharedMut::new(&mut self.groups[..n_tiles]);
        const TILES: usize = CHUNK / ROWS;
        cpu.pool.run(n_tiles.div_ceil(TILES), &|chunk, _| {
            let first = chunk * TILES;
            // SAFETY: chunks do not overlap.
            let tiles = unsafe { tiles.part(first, TILES.min(n_tiles - first)) };
            for (i, tile) in (first..).zip(tiles) {
                let row = i / n_groups * ROWS;
                *tile = GroupTile::default();
                for (r, row) in (row..n_rows.min(row + ROWS)).enumerate() {
                    tile.set(r, &rows.row(row)[i % n_groups]);
                }
            }
        });
    }

    /// Rounds `n_rows` rows of `n_in` values to bf16. The last step of a row ends with zeros where
    /// it lacks inputs, and so does the last block where it lacks rows.
    pub(crate) fn round(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize) {
        let n_in = x.len() / n_rows.max(1);
        self.steps_per_row = n_in.div_ceil(STEP);
        let rows_per_block = rows_per_block(n_rows);
        let n_steps = n_rows.div_ceil(rows_per_block) * self.steps_per_row;
        let n_lines = n_steps * rows_per_block;
        if self.lines.len() < n_lines {
            self.lines.resize(n_lines, Line([0.0; LANES]));
        }
        let lines = SharedMut::new(&mut self.lines[..n_lines]);
        let steps_per_chunk = CHUNK.div_ceil(rows_per_block);
        cpu.pool
            .run(n_steps.div_ceil(steps_per_chunk), &|chunk, _| {
                let first = chunk * steps_per_chunk;
                let n = steps_per_chunk.min(n_steps - first);
                cpu.isa.run(Round {
                    x,
                    n_in,
                    rows_per_block,
                    first_step: first,
                    // SAFETY: chunks do not overlap.
                    lines: unsafe { lines.part(first * rows_per_block, n * rows_per_block) },
                });
            });
    }

    /// Groups of the block of rows that begins with row `16 * block`.
    #[inline(always)]
    pub(super) fn groups_of(&self, block: usize) -> &[GroupTile] {
        &self.groups[block * self.groups_per_row..][..self.groups_per_row]
    }

    /// Steps of a block of `n_rows` rows, `rows_per_block(n_rows)` lines each.
    #[inline(always)]
    pub(super) fn steps_of(&self, block: usize, n_rows: usize) -> &[Line] {
        let n_lines = self.steps_per_row * rows_per_block(n_rows);
        &self.lines[block * n_lines..][..n_lines]
    }
}

/// Rows of a block of bf16: no more than there are, since tiles of few rows are faster.
#[inline(always)]
pub(super) fn rows_per_block(n_rows: usize) -> usize {
    n_rows.clamp(1, ROWS)
}

impl GroupTile {
    fn set(&mut self, row: usize, group: &ActGroup) {
        self.quads[row] = group.quads;
        self.scales[row] = group.scale;
        for (sums, sum) in self.scaled_sums.iter_mut().zip(group.scaled_sums) {
            sums[row] = sum;
        }
    }
}

/// Some steps of some blocks of rows.
struct Round<'a> {
    x: &'a [f32],
    n_in: usize,
    rows_per_block: usize,
    /// Of all blocks, one after the other.
    first_step: usize,
    lines: &'a mut [Line],
}

impl Kernel for Round<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n_steps = self.n_in.div_ceil(STEP);
        let steps = self.lines.chunks_exact_mut(self.rows_per_block);
        for (step, lines) in (self.first_step..).zip(steps) {
            let (block, step) = (step / n_steps, step % n_steps);
            let inputs = step * STEP..self.n_in.min((step + 1) * STEP);
            let rows = self.x.chunks_exact(self.n_in);
            let mut rows = rows.skip(block * self.rows_per_block);
            for Line(line) in lines {
                let x = rows.next().map_or(&[][..], |row| &row[inputs.clone()]);
                let (first, second) = x.split_at(x.len().min(LANES));
                for (x, pairs) in [first, second].into_iter().zip(line.as_chunks_mut().0) {
                    s.store_pairs(s.round_bf16(s.load_part(x)), pairs);
                }
            }
        }
    }
}
