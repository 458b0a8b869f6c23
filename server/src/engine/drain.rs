//! How fast the queue drains: prompt tokens that left it by its front, over the last seconds.
//!
//! Tokens that leave are measured, and not tokens that are computed, because that is the unit of
//! what waits: the time that answers take is in the rate by itself.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// What is remembered.
const WINDOW: Duration = Duration::from_secs(30);
/// What left within so short a time is one entry.
const GRAIN: Duration = Duration::from_millis(250);
/// The answer while nothing has been measured.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Bounds of every answer: whole seconds in a header, and no SDK retries after two minutes.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(120);

/// A sliding window over what left the queue.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    /// Beginning of each grain, and the tokens that left in it.
    left: VecDeque<(Instant, usize)>,
}

impl DrainRate {
    /// Notes that `n_tokens` left.
    pub(super) fn note(&mut self, n_tokens: usize, now: Instant) {
        match self.left.back_mut() {
            Some((begin, n_left)) if now.duration_since(*begin) < GRAIN => *n_left += n_tokens,
            _ => self.left.push_back((now, n_tokens)),
        }
        while self
            .left
            .front()
            .is_some_and(|(begin, _)| is_old(*begin, now))
        {
            self.left.pop_front();
        }
    }

    /// The time that `n_tokens` will take to leave.
    pub(super) fn time_for(&self, n_tokens: usize, now: Instant) -> Duration {
        let mut recent = self
            .left
            .iter()
            .filter(|(begin, _)| !is_old(*begin, now))
            .peekable();
        let Some((first, _)) = recent.peek() else {
            return UNKNOWN;
        };
        let span = now.duration_since(*first).max(LEAST);
        let n_left: usize = recent.map(|(_, n_left)| n_left).sum();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = span.as_secs_f64() * n_tokens as f64 / n_left.max(1) as f64;
        Duration::from_secs_f64(seconds.clamp(LEAST.as_secs_f64(), MOST.as_secs_f64()))
    }
}

fn is_old(begin: Instant, now: Instant) -> bool {
    now.duration_since(begin) > WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_takes_as_long_as_what_left() {
        let mut rate = DrainRate::default();
        let start = Instant::now();
        assert_eq!(rate.time_for(1_000, start), UNKNOWN);
        for second in 0..10 {
            rate.note(100, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(rate.time_for(1_000, now), Duration::from_secs(10));
        assert_eq!(rate.time_for(1, now), LEAST);
        assert_eq!(rate.time_for(1_000_000, now), MOST);
    }

    #[test]
    fn the_window_slides() {
        let mut rate = DrainRate::default();
        let start = Instant::now();
        rate.note(1_000_000, start);
        for second in 31..41 {
            rate.note(10, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(41);
        assert_eq!(rate.time_for(100, now), Duration::from_secs(10));
        assert_eq!(rate.time_for(1, now + 2 * WINDOW), UNKNOWN);
    }
}
