//! How much a machine holds, and how many of it are needed, from what was measured.

use serde::Serialize;

/// What users are to get.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Requests a second of all users together.
    pub rate: f64,
    /// 95 of 100 requests have their first token within so many milliseconds.
    pub ttft_p95_ms: f64,
    /// And each further token within so many.
    pub tpot_p95_ms: Option<f64>,
}

/// One measured load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Requests offered a second.
    pub rate: f64,
    pub ttft_p95_ms: f64,
    pub tpot_p95_ms: f64,
    pub n_failed: usize,
    /// Requests that ended, a second; below `rate` when the queue grew.
    pub done_per_s: f64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// Requests a second that one machine holds within the goal.
    pub held: f64,
    /// All loads that were measured met the goal: it may hold more.
    pub is_at_least: bool,
    /// Machines for all users with room to spare; `None` if one does not even serve the least
    /// load that was measured well enough: more machines do not help then.
    pub n_replicas: Option<usize>,
}

impl Goal {
    /// By how much a load is within the goal: at most 1 is within.
    fn strain(&self, point: &Point) -> f64 {
        if point.n_failed > 0 {
            return f64::INFINITY;
        }
        let ttft = point.ttft_p95_ms / self.ttft_p95_ms;
        let tpot = self
            .tpot_p95_ms
            .map_or(0.0, |most| point.tpot_p95_ms / most);
        ttft.max(tpot)
    }

    /// The capacity by these loads, of which each machine is to take only `1 - headroom`.
    ///
    /// The greatest rate that holds lies between the last load within the goal, from the lowest
    /// up, and the first that misses it: on a straight line between their strains where both are
    /// known, else at the former. A better figure beyond a miss is luck and does not count.
    #[must_use]
    pub fn capacity(&self, points: &[Point], headroom: f64) -> Capacity {
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let n_within = points
            .iter()
            .take_while(|point| self.strain(point) <= 1.0)
            .count();
        let held = match (points[..n_within].last(), points.get(n_within)) {
            (None, _) => 0.0,
            (Some(last), None) => last.rate,
            (Some(last), Some(miss)) => {
                let (low, high) = (self.strain(last), self.strain(miss));
                let share = if high.is_finite() {
                    (1.0 - low) / (high - low)
                } else {
                    0.0
                };
                last.rate + share * (miss.rate - last.rate)
            }
        };
        Capacity {
            held,
            is_at_least: n_within == points.len() && n_within > 0,
            n_replicas: (held > 0.0).then(|| replicas(self.rate, held * (1.0 - headroom))),
        }
    }
}

/// Machines of `each` requests a second for `all`. Users that are shared out by chance come to each
/// as they came to all, so a machine among many does what it does alone.
fn replicas(all: f64, each: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    // What is over by rounding errors needs no machine of its own.
    let n = (all / each - 1e-9).ceil().max(1.0) as usize;
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal {
        rate: 10.0,
        ttft_p95_ms: 500.0,
        tpot_p95_ms: Some(50.0),
    };

    fn point(rate: f64, ttft_p95_ms: f64, tpot_p95_ms: f64) -> Point {
        Point {
            rate,
            ttft_p95_ms,
            tpot_p95_ms,
            n_failed: 0,
            done_per_s: rate,
        }
    }

    #[test]
    fn what_holds_lies_where_the_bound_is_crossed() {
        let points = [
            point(4.0, 900.0, 30.0),
            point(1.0, 100.0, 20.0),
            point(2.0, 300.0, 25.0),
        ];
        let capacity = GOAL.capacity(&points, 0.2);
        // From 0.6 at 2 to 1.8 at 4: 1 is a third of the way.
        assert!(
            (capacity.held - (2.0 + 2.0 / 3.0)).abs() < 1e-9,
            "{capacity:?}"
        );
        // 10 by 2.67 x 0.8.
        assert_eq!(
            (capacity.n_replicas, capacity.is_at_least),
            (Some(5), false)
        );
        assert_eq!(GOAL.capacity(&points, 0.0).n_replicas, Some(4));
    }

    #[test]
    fn the_stricter_bound_decides() {
        let points = [point(1.0, 100.0, 40.0), point(2.0, 110.0, 60.0)];
        assert!((GOAL.capacity(&points, 0.0).held - 1.5).abs() < 1e-9);
        let goal = Goal {
            tpot_p95_ms: None,
            ..GOAL
        };
        let capacity = goal.capacity(&points, 0.0);
        assert_eq!((capacity.held, capacity.is_at_least), (2.0, true));
        assert_eq!(
            capacity.n_replicas,
            Some(5),
            "10 by 2 is 5 and no rounding error more"
        );
    }

    #[test]
    fn failures_and_luck_do_not_count() {
        let mut points = [
            point(1.0, 100.0, 9.0),
            point(2.0, 100.0, 9.0),
            point(3.0, 100.0, 9.0),
        ];
        points[1].n_failed = 1;
        assert_eq!(GOAL.capacity(&points, 0.0).held, 1.0);
        points[0].ttft_p95_ms = 501.0;
        let capacity = GOAL.capacity(&points, 0.0);
        assert_eq!((capacity.held, capacity.n_replicas), (0.0, None));
        assert_eq!(GOAL.capacity(&[], 0.0).n_replicas, None);
    }
}
