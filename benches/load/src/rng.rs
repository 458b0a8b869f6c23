//! Chance from a seed, the same on every machine and in every version: a library may change
//! what a seed draws, and then yesterday's work cannot be repeated.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for each `label`, so that one part of a load can change its draws
    /// without moving those of another.
    #[must_use]
    pub fn fork(seed: u64, label: u64) -> Self {
        let mut rng = Self(seed ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self(rng.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`; `n` must not be 0. The bias of the remainder is below 2^-40 for any `n` here.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// In (0, 1): never 0, so that its logarithm is a number.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.bits() >> 11) as f64;
        (bits + 0.5) / 9_007_199_254_740_992.0
    }

    /// Of the normal distribution with mean 0 and variance 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Of the gamma distribution with this shape and mean 1 (Marsaglia and Tsang, 2000; below
    /// shape 1 by their boost).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = self.unit().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * (shape + 1.0) * boost / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v / shape;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = std::iter::repeat_with(draw).take(200_000).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        (mean, variance)
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = Rng::new(1);
        let (mean, variance) = moments(|| rng.unit());
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002);
        let (mean, variance) = moments(|| rng.normal());
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02);
        for shape in [0.25, 1.0, 4.0] {
            let (mean, variance) = moments(|| rng.gamma(shape));
            assert!((mean - 1.0).abs() < 0.02, "shape {shape}: mean {mean}");
            let relative = variance * shape;
            assert!((relative - 1.0).abs() < 0.05, "shape {shape}: {variance}");
        }
    }

    #[test]
    fn a_seed_draws_what_it_always_drew() {
        // Published values of SplitMix64 for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.bits(), 6_457_827_717_110_365_317);
        assert_eq!(rng.bits(), 3_203_168_211_198_807_973);
        assert_ne!(Rng::fork(1, 2).bits(), Rng::fork(1, 3).bits());
    }
}
