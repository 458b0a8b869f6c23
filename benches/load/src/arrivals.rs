//! When work arrives.
//!
//! Open loop: users come when they come, whatever the server does, so a server that stalls meets
//! all whom the stall made wait. Closed loop: so many clients, each waiting for its answer before
//! it asks again; a server that stalls is asked less, so its latencies look better than users
//! would see them.

use std::time::Duration;

use crate::rng::Rng;

/// A process of arrivals.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// Open loop: `rate` a second on average. The gaps follow a gamma distribution of this
    /// shape: 1 is a Poisson process, less comes in bursts, more is steadier.
    Gamma { rate: f64, shape: f64 },
    /// Open loop, at equal gaps.
    Constant { rate: f64 },
    /// Open loop, at these times.
    Trace(Vec<Duration>),
    /// Closed loop of so many clients.
    Closed { n_clients: usize },
}

impl Arrivals {
    /// Times of the first `n` arrivals, from the beginning on; a trace has no more than it has.
    /// `None` in a closed loop, where answers decide.
    #[must_use]
    pub fn times(&self, n: usize, seed: u64) -> Option<Vec<Duration>> {
        let mut rng = Rng::fork(seed, 0xa11);
        let mut at = 0.0;
        let mut times = |gap: &mut dyn FnMut(&mut Rng) -> f64| {
            let next = |_| {
                let now = Duration::from_secs_f64(at);
                at += gap(&mut rng);
                now
            };
            (0..n).map(next).collect()
        };
        match self {
            Self::Gamma { rate, shape } => Some(times(&mut |rng| rng.gamma(*shape) / rate)),
            Self::Constant { rate } => Some(times(&mut |_| 1.0 / rate)),
            Self::Trace(all) => Some(all.iter().copied().take(n).collect()),
            Self::Closed { .. } => None,
        }
    }

    /// Arrivals a second on average; `None` in a closed loop.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Gamma { rate, .. } | Self::Constant { rate } => Some(*rate),
            Self::Trace(times) => {
                let span = times.last()?.as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a count")]
                let n = times.len().saturating_sub(1) as f64;
                Some(if span > 0.0 { n / span } else { f64::INFINITY })
            }
            Self::Closed { .. } => None,
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Gamma { rate, shape: 1.0 } => format!("Poisson, {rate} a second"),
            Self::Gamma { rate, shape } => format!("gamma of shape {shape}, {rate} a second"),
            Self::Constant { rate } => format!("equal gaps, {rate} a second"),
            Self::Trace(times) => format!("trace of {}", times.len()),
            Self::Closed { n_clients } => format!("closed loop of {n_clients}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and squared coefficient of variation of the gaps.
    fn gaps(arrivals: &Arrivals) -> (f64, f64) {
        let times = arrivals.times(50_001, 5).unwrap();
        assert_eq!(times[0], Duration::ZERO);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        (mean, variance / (mean * mean))
    }

    #[test]
    fn processes_have_their_rate_and_their_burstiness() {
        for (shape, cv2) in [(1.0, 1.0), (0.25, 4.0), (4.0, 0.25)] {
            let (mean, found) = gaps(&Arrivals::Gamma { rate: 8.0, shape });
            assert!((mean * 8.0 - 1.0).abs() < 0.03, "shape {shape}: {mean}");
            assert!((found / cv2 - 1.0).abs() < 0.08, "shape {shape}: {found}");
        }
        let (mean, cv2) = gaps(&Arrivals::Constant { rate: 8.0 });
        assert!((mean - 0.125).abs() < 1e-6 && cv2 < 1e-6);
    }

    #[test]
    fn the_same_seed_is_the_same_work() {
        let arrivals = Arrivals::Gamma {
            rate: 1.0,
            shape: 1.0,
        };
        assert_eq!(arrivals.times(100, 1), arrivals.times(100, 1));
        assert_ne!(arrivals.times(100, 1), arrivals.times(100, 2));
        // A longer run begins as the shorter one.
        let long = arrivals.times(200, 1).unwrap();
        assert_eq!(long[..100], arrivals.times(100, 1).unwrap());
    }
}
