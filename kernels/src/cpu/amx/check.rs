//! Tiles of the machine against those of plain Rust. Products on which an answer hangs are tried
//! before they are used: a system that keeps tiles wrongly must cost speed, not answers.

use super::model::Model;
use super::tiles::{ROW_BYTES, ROWS, Shape, Tiles, Unit};

/// One product of each kind, of two units.
#[derive(Debug)]
pub(super) struct Products {
    found: [Tile; 3],
    expected: [Tile; 3],
}

type Tile = [u8; ROWS * ROW_BYTES];

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Products {
    pub(super) fn of(unit: impl Unit) -> Self {
        Self {
            found: products(unit),
            expected: products(Model),
        }
    }

    /// Whether products that have one right answer have that: of integers, and of bf16 that are
    /// small integers.
    pub(super) fn are_right(&self) -> bool {
        self.found[..2] == self.expected[..2]
    }

    /// Whether sums that have to be rounded are rounded in the same order.
    pub(super) fn are_rounded_alike(&self) -> bool {
        self.found[2] == self.expected[2]
    }
}

/// Of bytes, of bf16 that are integers, and of any bf16 with some subnormal numbers.
fn products<U: Unit>(unit: U) -> [Tile; 3] {
    let mut rng = Rng(0);
    let mut bytes = || std::array::from_fn(|_| (rng.next() >> 56) as u8);
    let bytes = [bytes(), bytes()];
    let integers = bytes.map(|tile| bf16(tile, |_, byte| f32::from(byte.cast_signed())));
    let spread = bytes.map(|tile| {
        bf16(tile, |i, byte| {
            // From 2^-130 to 2^1, of which the first have no place among normal numbers.
            let exponent = if i.is_multiple_of(8) {
                -130
            } else {
                -(i as i32 % 32)
            };
            (f32::from(byte.cast_signed()) / 64.0)
                * 2.0_f32.powi(exponent / 2)
                * 2.0_f32.powi(exponent - exponent / 2)
        })
    });
    let dot = |[a, b]: [Tile; 2], dot: fn(&mut U::Tiles)| {
        let mut tiles = unit.configure([Shape::new(ROWS, ROW_BYTES); 8]);
        tiles.load::<1>(&a, ROW_BYTES);
        tiles.load::<2>(&b, ROW_BYTES);
        // Twice, so that something is there to be added to.
        dot(&mut tiles);
        dot(&mut tiles);
        let mut sums = [0; ROWS * ROW_BYTES];
        tiles.store::<0>(&mut sums, ROW_BYTES);
        sums
    };
    [
        dot(bytes, |tiles| tiles.dot_bytes::<0, 1, 2>()),
        dot(integers, |tiles| tiles.dot_pairs::<0, 1, 2>()),
        dot(spread, |tiles| tiles.dot_pairs::<0, 1, 2>()),
    ]
}

/// A tile of bf16 out of the bytes of the first half of another: the upper halves of `f`.
fn bf16(tile: Tile, f: impl Fn(usize, u8) -> f32) -> Tile {
    let mut out = [0; ROWS * ROW_BYTES];
    for (i, (out, byte)) in out.as_chunks_mut().0.iter_mut().zip(tile).enumerate() {
        let [_, _, low, high] = f(i, byte).to_le_bytes();
        *out = [low, high];
    }
    out
}
