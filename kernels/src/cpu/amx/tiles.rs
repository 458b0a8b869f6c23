//! What AMX consists of, as far as linear layers need it.

use crate::memory::Plain;

/// Tiles that there are.
pub(super) const N_TILES: usize = 8;
/// The most rows that a tile has.
pub(super) const ROWS: usize = 16;
/// The most bytes that a row of a tile has.
pub(super) const ROW_BYTES: usize = 64;

/// What a tile takes of its 16 rows of 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: u8,
    /// A multiple of four.
    pub(super) row_bytes: u16,
}

impl Shape {
    pub(super) const fn new(rows: usize, row_bytes: usize) -> Self {
        assert!(rows <= ROWS && row_bytes <= ROW_BYTES && row_bytes.is_multiple_of(4));
        Self {
            rows: rows as u8,
            row_bytes: row_bytes as u16,
        }
    }

    /// Bytes from the first of the first row to the last of the last.
    #[inline(always)]
    pub(super) fn extent(self, stride: usize) -> usize {
        (usize::from(self.rows).max(1) - 1) * stride + usize::from(self.row_bytes)
    }
}

/// The shapes of all tiles.
pub(super) type Shapes = [Shape; N_TILES];

/// A value is the proof that the machine has tiles.
pub(super) trait Unit: Copy {
    type Tiles: Tiles;

    /// Tiles of these shapes, all zero, for the calling thread. There can be one set at a time.
    fn configure(self, shapes: Shapes) -> Self::Tiles;
}

/// Eight tiles with their instructions. Products name three different tiles whose shapes fit:
/// `C` has the rows of `A` and four bytes for each column, a row of `B` has four bytes for each
/// column and meets four bytes of each row of `A`.
pub(super) trait Tiles {
    /// `TILEZERO`.
    fn zero<const T: usize>(&mut self);

    /// `TILELOADD`: rows `stride` bytes apart.
    ///
    /// # Panics
    /// When they do not lie within `from`.
    fn load<const T: usize>(&mut self, from: &[impl Plain], stride: usize);

    /// `TILESTORED`: rows `stride` bytes apart.
    ///
    /// # Panics
    /// When they do not lie within `to`.
    fn store<const T: usize>(&self, to: &mut [impl Plain], stride: usize);

    /// `TDPBSSD`: to each i32 of `C` the products of the signed bytes of a row of `A` and a
    /// column of `B`.
    fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self);

    /// `TDPBF16PS`: to each f32 of `C` the products of a row of `A` and a column of `B`, which
    /// are pairs of bf16. Those of the first of all pairs are added up one after the other, each
    /// with one rounding, those of the second likewise; then the second sum to the first, and
    /// both to `C`. Subnormal numbers, in and out, count as zeros.
    fn dot_pairs<const C: usize, const A: usize, const B: usize>(&mut self);
}
