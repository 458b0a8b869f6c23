//! Who is asked for how often, when few are asked for often and many hardly ever.

use crate::rng::Rng;

/// Ranks `0..n` with probabilities in proportion to `1 / (rank + 1)^exponent`.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Sums of the weights up to each rank.
    sums: Vec<f64>,
}

impl Zipf {
    /// `n` must not be 0. With exponent 0 all ranks are alike.
    #[must_use]
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| {
            #[expect(clippy::cast_precision_loss, reason = "a small rank")]
            let rank = rank as f64;
            sum += rank.powf(-exponent);
            sum
        };
        Self {
            sums: (1..=n).map(weight).collect(),
        }
    }

    /// A rank, from 0.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let at = rng.unit() * total;
        let rank = self.sums.partition_point(|sum| *sum <= at);
        rank.min(self.sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_they_should() {
        let mut rng = Rng::new(9);
        let mut counts = [0.0_f64; 4];
        let zipf = Zipf::new(4, 1.0);
        for _ in 0..100_000 {
            counts[zipf.draw(&mut rng)] += 1.0;
        }
        let total = 1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0;
        for (rank, count) in counts.iter().enumerate() {
            let expected = 100_000.0 / (rank as f64 + 1.0) / total;
            assert!(
                (count / expected - 1.0).abs() < 0.03,
                "rank {rank}: {count}"
            );
        }
    }
}
