//! Which values of a difference stay.

use sha2::{Digest, Sha256};

/// What is done to the differences of one source in one tensor, in the order of their places.
#[derive(Clone, Debug)]
pub(super) enum Sparse {
    All,
    Trim(Trim),
    Dropout(Dropout),
}

impl Sparse {
    /// Goes over the next differences; the first of them is at `first` in the tensor.
    pub(super) fn apply(&mut self, first: usize, differences: &mut [f64]) {
        match self {
            Self::All => (),
            Self::Trim(trim) => trim.apply(differences),
            Self::Dropout(drop) => drop.apply(first, differences),
        }
    }
}

/// Keeps the largest by size. Of those as large as the smallest kept, the first ones stay, so
/// that as many stay as were asked for.
#[derive(Clone, Debug)]
pub(super) struct Trim {
    least: f32,
    /// How many of exactly that size stay yet.
    n_equal: usize,
}

impl Trim {
    /// `sizes`: of all differences of a tensor; left in another order.
    pub(super) fn new(sizes: &mut [f32], density: f64) -> Self {
        let n_kept = n_kept(sizes.len(), density);
        if n_kept == 0 {
            return Self {
                least: f32::INFINITY,
                n_equal: 0,
            };
        }
        let at = sizes.len() - n_kept;
        let (_, least, above) = sizes.select_nth_unstable_by(at, f32::total_cmp);
        let least = *least;
        let n_above = above.iter().filter(|size| **size > least).count();
        Self {
            least,
            n_equal: n_kept - n_above,
        }
    }

    fn apply(&mut self, differences: &mut [f64]) {
        for difference in differences {
            let size = size(*difference);
            if size == self.least && self.n_equal > 0 {
                self.n_equal -= 1;
            } else if size <= self.least {
                *difference = 0.0;
            }
        }
    }
}

/// What differences are ranked by.
pub(super) fn size(difference: f64) -> f32 {
    difference.abs() as f32
}

fn n_kept(n: usize, density: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        reason = "tensors have far fewer than 2^52 values"
    )]
    let n_kept = (n as f64 * density).round();
    (n_kept as usize).min(n)
}

/// Keeps each with a probability, and enlarges what stays so that sums stay in the mean.
#[derive(Clone, Debug)]
pub(super) struct Dropout {
    density: f64,
    key: u64,
}

impl Dropout {
    /// Draws that depend on nothing but the seed, the place of the source among the others, and
    /// the tensor's name.
    pub(super) fn new(density: f64, seed: u64, source: usize, tensor: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update((source as u64).to_le_bytes());
        hash.update(tensor.as_bytes());
        let hash = hash.finalize();
        let key = hash[..8].try_into().expect("SHA-256 has 32 bytes");
        Self {
            density,
            key: u64::from_le_bytes(key),
        }
    }

    fn apply(&self, first: usize, differences: &mut [f64]) {
        for (i, difference) in differences.iter_mut().enumerate() {
            if self.draw((first + i) as u64) < self.density {
                *difference /= self.density;
            } else {
                *difference = 0.0;
            }
        }
    }

    /// Evenly from 0 to 1: output `place` of splitmix64 (Steele, Lea, Flood 2014).
    fn draw(&self, place: u64) -> f64 {
        let steps = place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut z = self.key.wrapping_add(steps);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let fraction = (z >> 11) as f64;
        fraction / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_stay_as_were_asked_for() {
        let values = [0.5, -2.0, 2.0, 0.0, 2.0, -3.0, 1.0, 0.5];
        let trimmed = |density: f64| {
            let mut sizes: Vec<f32> = values.iter().map(|x| size(*x)).collect();
            let mut trim = Trim::new(&mut sizes, density);
            let mut left = values;
            // In two runs, as chunks are.
            let (a, b) = left.split_at_mut(3);
            trim.apply(a);
            trim.apply(b);
            left
        };
        assert_eq!(trimmed(1.0), values);
        assert_eq!(trimmed(0.375), [0.0, -2.0, 2.0, 0.0, 0.0, -3.0, 0.0, 0.0]);
        assert_eq!(trimmed(0.625), [0.0, -2.0, 2.0, 0.0, 2.0, -3.0, 1.0, 0.0]);
        assert_eq!(trimmed(0.01), [0.0; 8]);
    }

    #[test]
    fn draws_are_even_and_differ_by_all_that_they_depend_on() {
        let kept = |drop: &Dropout| -> Vec<f64> {
            let mut values = vec![1.0; 10_000];
            drop.apply(0, &mut values);
            values
        };
        let drop = Dropout::new(0.3, 7, 0, "a");
        let values = kept(&drop);
        let n = values.iter().filter(|x| **x != 0.0).count();
        // 3000 and five standard deviations of 46.
        assert!(n.abs_diff(3000) < 230, "{n}");
        assert!(values.iter().all(|x| *x == 0.0 || *x == 1.0 / 0.3));
        for other in [
            Dropout::new(0.3, 8, 0, "a"),
            Dropout::new(0.3, 7, 1, "a"),
            Dropout::new(0.3, 7, 0, "b"),
        ] {
            assert_ne!(kept(&other), values);
        }
        // By place, not by chunk.
        let mut late = vec![1.0; 10];
        drop.apply(9_990, &mut late);
        assert_eq!(late, values[9_990..]);
    }
}
