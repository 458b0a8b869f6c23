//! How much a key may ask for: requests and tokens by minute, tokens by day.
//!
//! Minutes are token buckets (they fill evenly and hold one minute's worth), days are those of
//! UTC. A prompt is charged when it is submitted and must fit; what is generated is charged as it
//! is drawn, and may leave a debt that time pays off before the next request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::time::Instant;

const MINUTE: f64 = 60.0;
const DAY: u64 = 24 * 3600;

/// What a key may ask for; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Limits {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub tokens_per_day: Option<u64>,
}

impl Limits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    Requests,
    Tokens,
    Day,
}

/// A request that is beyond a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub kind: LimitKind,
    pub limit: u64,
    pub used: u64,
    pub requested: u64,
    /// When it would be within; `None`: never, it is larger than the limit.
    pub retry_after: Option<Duration>,
}

/// What a key has left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub limit: u64,
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// A moment: of the monotonic clock, and in seconds of Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub at: Instant,
    pub unix: u64,
}

impl Moment {
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: Instant::now(),
            unix: unix.map_or(0, |since| since.as_secs()),
        }
    }
}

/// A key's limits and what it has used of them.
#[derive(Debug)]
pub struct Meter {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    limits: Limits,
    requests: Bucket,
    tokens: Bucket,
    /// Days since 1970, and tokens of that day.
    day: u64,
    used_today: u64,
}

/// What has been used, as it was at a moment. It drains at the rate of the limit.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    used: f64,
    at: Instant,
}

impl Bucket {
    fn used(&mut self, limit: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.used = (self.used - passed * limit / MINUTE).max(0.0);
        self.at = now;
        self.used
    }

    /// Whether `n` more fit; none fit beyond the limit.
    fn check(&mut self, kind: LimitKind, limit: u32, n: u64, now: Instant) -> Result<(), Exceeded> {
        let (rate, wanted) = (f64::from(limit), as_f64(n));
        let used = self.used(rate, now);
        let beyond = used + wanted - rate;
        // What has drained so far is not exact to the last bit.
        if beyond <= 1e-6 {
            return Ok(());
        }
        let fits = n <= u64::from(limit);
        Err(Exceeded {
            kind,
            limit: u64::from(limit),
            used: whole(used.ceil()),
            requested: n,
            retry_after: fits.then(|| Duration::from_secs_f64(beyond * MINUTE / rate)),
        })
    }

    fn remaining(&mut self, limit: u32, now: Instant) -> Remaining {
        let rate = f64::from(limit);
        let used = self.used(rate, now);
        Remaining {
            limit: u64::from(limit),
            remaining: whole((rate - used + 1e-6).max(0.0)),
            reset: Duration::from_secs_f64(used * MINUTE / rate),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of tokens are far below 2^52"
)]
fn as_f64(n: u64) -> f64 {
    n as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and rounding down is meant"
)]
fn whole(x: f64) -> u64 {
    x as u64
}

impl Meter {
    pub fn new(limits: Limits) -> Self {
        let bucket = Bucket {
            used: 0.0,
            at: Instant::now(),
        };
        Self {
            books: Mutex::new(Books {
                limits,
                requests: bucket,
                tokens: bucket,
                day: 0,
                used_today: 0,
            }),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on; what was used stays used.
    pub fn set_limits(&self, limits: Limits) {
        self.books().limits = limits;
    }

    /// Counts a request whose body is still to be read, which brings `n_tokens` at least. One
    /// that is refused for its tokens is not counted.
    pub fn enter(&self, n_tokens: u64, now: Moment) -> Result<(), Exceeded> {
        let mut books = self.books();
        books.check_tokens(n_tokens.max(1), now)?;
        if let Some(limit) = books.limits.requests_per_minute {
            books
                .requests
                .check(LimitKind::Requests, limit, 1, now.at)?;
            books.requests.used += 1.0;
        }
        Ok(())
    }

    /// Charges the tokens of a prompt, if they are within the limits.
    pub fn charge_prompt(&self, n_tokens: u64, now: Moment) -> Result<(), Exceeded> {
        let mut books = self.books();
        books.check_tokens(n_tokens, now)?;
        books.charge(n_tokens, now);
        Ok(())
    }

    /// Charges tokens that were generated.
    pub fn charge_generated(&self, n_tokens: u64, now: Moment) {
        self.books().charge(n_tokens, now);
    }

    /// What is left of each limit that there is.
    pub fn remaining(&self, now: Moment) -> Vec<(LimitKind, Remaining)> {
        let mut books = self.books();
        let limits = books.limits;
        let mut remaining = Vec::new();
        if let Some(limit) = limits.requests_per_minute {
            let left = books.requests.remaining(limit, now.at);
            remaining.push((LimitKind::Requests, left));
        }
        if let Some(limit) = limits.tokens_per_minute {
            let left = books.tokens.remaining(limit, now.at);
            remaining.push((LimitKind::Tokens, left));
        }
        if let Some(limit) = limits.tokens_per_day {
            let left = Remaining {
                limit,
                remaining: limit.saturating_sub(books.used_today(now)),
                reset: rest_of_day(now),
            };
            remaining.push((LimitKind::Day, left));
        }
        remaining
    }

    /// The day, in days since 1970, and the tokens used in it.
    pub fn today(&self, now: Moment) -> (u64, u64) {
        let mut books = self.books();
        let used = books.used_today(now);
        (books.day, used)
    }

    /// Takes up what was used in a day, as [`today`](Self::today) gave it.
    pub fn resume(&self, day: u64, used: u64) {
        let mut books = self.books();
        (books.day, books.used_today) = (day, used);
    }
}

impl Books {
    fn used_today(&mut self, now: Moment) -> u64 {
        let day = now.unix / DAY;
        if self.day != day {
            (self.day, self.used_today) = (day, 0);
        }
        self.used_today
    }

    fn check_tokens(&mut self, n_tokens: u64, now: Moment) -> Result<(), Exceeded> {
        if let Some(limit) = self.limits.tokens_per_day {
            let used = self.used_today(now);
            if used + n_tokens > limit {
                let fits = n_tokens <= limit;
                return Err(Exceeded {
                    kind: LimitKind::Day,
                    limit,
                    used,
                    requested: n_tokens,
                    retry_after: fits.then(|| rest_of_day(now)),
                });
            }
        }
        match self.limits.tokens_per_minute {
            Some(limit) => self
                .tokens
                .check(LimitKind::Tokens, limit, n_tokens, now.at),
            None => Ok(()),
        }
    }

    fn charge(&mut self, n_tokens: u64, now: Moment) {
        self.used_today(now);
        self.used_today = self.used_today.saturating_add(n_tokens);
        if let Some(limit) = self.limits.tokens_per_minute {
            self.tokens.used(f64::from(limit), now.at);
            self.tokens.used += as_f64(n_tokens);
        }
    }
}

fn rest_of_day(now: Moment) -> Duration {
    Duration::from_secs(DAY - now.unix % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(rpm: Option<u32>, tpm: Option<u32>, tpd: Option<u64>) -> (Meter, Moment) {
        let meter = Meter::new(Limits {
            requests_per_minute: rpm,
            tokens_per_minute: tpm,
            tokens_per_day: tpd,
        });
        let now = Moment {
            at: Instant::now(),
            unix: 10 * DAY + DAY - 100,
        };
        (meter, now)
    }

    fn later(now: Moment, seconds: u64) -> Moment {
        Moment {
            at: now.at + Duration::from_secs(seconds),
            unix: now.unix + seconds,
        }
    }

    #[test]
    fn requests_come_back_evenly() {
        let (meter, now) = meter(Some(3), None, None);
        for left in [2, 1, 0] {
            meter.enter(1, now).unwrap();
            assert_eq!(meter.remaining(now)[0].1.remaining, left);
        }
        let refused = meter.enter(1, now).unwrap_err();
        assert_eq!(refused.kind, LimitKind::Requests);
        assert_eq!((refused.limit, refused.used), (3, 3));
        let wait = refused.retry_after.unwrap();
        assert!((wait.as_secs_f64() - 20.0).abs() < 0.1, "{wait:?}");
        assert!(meter.enter(1, later(now, 19)).is_err());
        meter.enter(1, later(now, 20)).unwrap();
        assert!(meter.enter(1, later(now, 21)).is_err());
        let rested = meter.remaining(later(now, 3600))[0].1;
        assert_eq!((rested.remaining, rested.reset), (3, Duration::ZERO));
    }

    #[test]
    fn a_prompt_must_fit_and_an_answer_may_leave_a_debt() {
        let (meter, now) = meter(None, Some(60), None);
        meter.charge_prompt(50, now).unwrap();
        assert!(meter.charge_prompt(20, now).is_err());
        meter.charge_generated(70, now);
        assert_eq!(meter.remaining(now)[0].1.remaining, 0);
        // 120 were used: after 59 seconds there are still 61.
        let refused = meter.enter(1, later(now, 59)).unwrap_err();
        assert_eq!(refused.kind, LimitKind::Tokens);
        meter.enter(1, later(now, 61)).unwrap();
        let never = meter.charge_prompt(61, later(now, 3600)).unwrap_err();
        assert_eq!(never.retry_after, None);
    }

    #[test]
    fn quotas_are_of_a_day() {
        let (meter, now) = meter(None, None, Some(100));
        meter.charge_prompt(90, now).unwrap();
        let refused = meter.charge_prompt(11, now).unwrap_err();
        assert_eq!(refused.kind, LimitKind::Day);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(100)));
        meter.charge_generated(30, now);
        assert_eq!(meter.remaining(now)[0].1.remaining, 0);
        assert!(meter.enter(0, now).is_err());
        assert_eq!(meter.today(now), (10, 120));
        let tomorrow = later(now, 100);
        meter.charge_prompt(100, tomorrow).unwrap();
        assert_eq!(meter.today(tomorrow), (11, 100));
    }

    #[test]
    fn other_limits_do_not_forget() {
        let (meter, now) = meter(Some(2), None, None);
        meter.enter(1, now).unwrap();
        meter.enter(1, now).unwrap();
        meter.set_limits(Limits {
            requests_per_minute: Some(3),
            ..Limits::default()
        });
        meter.enter(1, now).unwrap();
        assert!(meter.enter(1, now).is_err());
    }
}
