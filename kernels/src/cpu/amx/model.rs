//! Tiles in plain Rust, by the pseudocode of Intel's manual (volume 2, `TDPBSSD`, `TDPBF16PS`,
//! `TILELOADD`, `TILESTORED`).

use super::tiles::{N_TILES, ROW_BYTES, ROWS, Shapes, Tiles, Unit};
use crate::memory::Plain;

#[derive(Clone, Copy, Debug)]
pub(super) struct Model;

impl Unit for Model {
    type Tiles = ModelTiles;

    fn configure(self, shapes: Shapes) -> ModelTiles {
        ModelTiles {
            shapes,
            tiles: [[[0; ROW_BYTES]; ROWS]; N_TILES],
        }
    }
}

type Tile = [[u8; ROW_BYTES]; ROWS];

#[derive(Debug)]
pub(super) struct ModelTiles {
    shapes: Shapes,
    tiles: [Tile; N_TILES],
}

impl Tiles for ModelTiles {
    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0; ROW_BYTES]; ROWS];
    }

    fn load<const T: usize>(&mut self, from: &[impl Plain], stride: usize) {
        let shape = self.shapes[T];
        let bytes = bytes_of(from);
        assert!(shape.extent(stride) <= bytes.len());
        self.zero::<T>();
        let n = usize::from(shape.row_bytes);
        for row in 0..usize::from(shape.rows) {
            self.tiles[T][row][..n].copy_from_slice(&bytes[row * stride..][..n]);
        }
    }

    fn store<const T: usize>(&self, to: &mut [impl Plain], stride: usize) {
        let shape = self.shapes[T];
        let bytes = bytes_of_mut(to);
        assert!(shape.extent(stride) <= bytes.len());
        let n = usize::from(shape.row_bytes);
        for row in 0..usize::from(shape.rows) {
            bytes[row * stride..][..n].copy_from_slice(&self.tiles[T][row][..n]);
        }
    }

    fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.dot::<C, A, B>(|c, a, b| {
            let mut sum = i32::from_le_bytes(c);
            for (a, b) in a.as_flattened().iter().zip(b.as_flattened()) {
                sum += i32::from(a.cast_signed()) * i32::from(b.cast_signed());
            }
            sum.to_le_bytes()
        });
    }

    fn dot_pairs<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.dot::<C, A, B>(|c, a, b| {
            let mut sums = [0.0_f32; 2];
            for (&a, &b) in a.iter().zip(b) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = flushed(bf16_at(a, i).mul_add(bf16_at(b, i), *sum));
                }
            }
            let c = flushed(f32::from_le_bytes(c));
            flushed(c + flushed(sums[0] + sums[1])).to_le_bytes()
        });
    }
}

impl ModelTiles {
    /// Replaces each four bytes of `C` by what `f` makes of them, of a row of `A` and of a column
    /// of `B`.
    fn dot<const C: usize, const A: usize, const B: usize>(
        &mut self,
        f: impl Fn([u8; 4], &[[u8; 4]], &[[u8; 4]]) -> [u8; 4],
    ) {
        let [c, a, b] = [C, A, B].map(|tile| self.shapes[tile]);
        assert!(C != A && C != B && A != B, "three tiles");
        assert_eq!((c.rows, c.row_bytes), (a.rows, b.row_bytes), "shapes fit");
        assert_eq!(u16::from(b.rows) * 4, a.row_bytes, "shapes fit");
        let (left, right) = (self.tiles[A], self.tiles[B]);
        for (left, sums) in left.iter().zip(&mut self.tiles[C]) {
            for (i, sum) in sums.as_chunks_mut().0.iter_mut().enumerate() {
                let column = right.map(|row| row.as_chunks().0[i]);
                let n = usize::from(b.rows);
                *sum = f(*sum, &left.as_chunks().0[..n], &column[..n]);
            }
        }
    }
}

/// One of a pair of bf16.
fn bf16_at(pair: [u8; 4], i: usize) -> f32 {
    flushed(f32::from_le_bytes([0, 0, pair[2 * i], pair[2 * i + 1]]))
}

/// A subnormal number as a zero of its sign.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so all of these bytes are there.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
