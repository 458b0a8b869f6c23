//! Percentiles.

use serde::Serialize;

/// Values of one kind in figures. All 0 if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub n: usize,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of values in any order.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        if n == 0 {
            return Self::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let mean = values.iter().sum::<f64>() / n as f64;
        Self {
            n,
            mean,
            p50: quantile(&values, 0.5),
            p90: quantile(&values, 0.9),
            p95: quantile(&values, 0.95),
            p99: quantile(&values, 0.99),
            max: values[n - 1],
        }
    }
}

/// The least value that a share `q` of all do not exceed (nearest rank): always one that was
/// measured, and never better than what was. `sorted` is in ascending order; the default of none.
#[must_use]
pub fn quantile<T: Copy + Default>(sorted: &[T], q: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among measured values"
    )]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((spread.p50, spread.p90, spread.p99), (50.0, 90.0, 99.0));
        assert_eq!((spread.max, spread.mean, spread.n), (100.0, 50.5, 100));
        // A hundredth of three values is the worst of them, not something between.
        let few = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((few.p50, few.p90, few.p99), (2.0, 3.0, 3.0));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
