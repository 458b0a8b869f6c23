//! The rates of products of tiles, see [`crate::cpu::peak`].

use std::hint::black_box;

use super::tiles::{ROW_BYTES, ROWS, Shape, Tiles, Unit};
use super::{Amx, Engine};
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::memory::Line;

const ROUNDS: usize = 1024;
/// Products that are made at once: two by two tiles.
const PRODUCTS: usize = 4;
/// Inputs of a product of bytes. One of bf16 has half as many.
const INPUTS: usize = 64;

/// Products and sums of [`Dots::run`] of bytes, and of bf16 if they are half as many.
pub(in crate::cpu) const INT8_OPS: usize = 2 * ROUNDS * PRODUCTS * ROWS * LANES * INPUTS;

impl Amx {
    /// Multiplies as fast as tiles can, bytes or pairs of bf16.
    pub(in crate::cpu) fn dots(&self, of_pairs: bool) {
        match self.engine {
            Engine::Hardware(unit) => unit.run(Dots { unit, of_pairs }),
            #[cfg(test)]
            Engine::Model(_) => unreachable!("what is measured is hardware"),
        }
    }
}

struct Dots<U> {
    unit: U,
    of_pairs: bool,
}

impl<U: Unit> Kernel for Dots<U> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let ones = [Line([1.0; LANES]); ROWS];
        let mut tiles = self.unit.configure([Shape::new(ROWS, ROW_BYTES); 8]);
        tiles.load::<4>(&ones, ROW_BYTES);
        tiles.load::<5>(&ones, ROW_BYTES);
        tiles.load::<6>(&ones, ROW_BYTES);
        tiles.load::<7>(&ones, ROW_BYTES);
        for _ in 0..ROUNDS {
            if self.of_pairs {
                tiles.dot_pairs::<0, 4, 6>();
                tiles.dot_pairs::<1, 4, 7>();
                tiles.dot_pairs::<2, 5, 6>();
                tiles.dot_pairs::<3, 5, 7>();
            } else {
                tiles.dot_bytes::<0, 4, 6>();
                tiles.dot_bytes::<1, 4, 7>();
                tiles.dot_bytes::<2, 5, 6>();
                tiles.dot_bytes::<3, 5, 7>();
            }
        }
        let mut sums = ones;
        tiles.store::<0>(&mut sums, ROW_BYTES);
        black_box(&sums);
    }
}
