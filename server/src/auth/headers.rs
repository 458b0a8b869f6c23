//! What a key has left, as the hosted API's headers tell it.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::limits::{LimitKind, Meter, Moment};

/// Adds `x-ratelimit-*` for each limit that the key has. Keys without limits get none: there
/// would be nothing true to say.
pub(super) fn add(headers: &mut HeaderMap, meter: &Meter) {
    for (kind, left) in meter.remaining(Moment::now()) {
        let (limit, remaining, reset) = names(kind);
        headers.insert(HeaderName::from_static(limit), left.limit.into());
        headers.insert(HeaderName::from_static(remaining), left.remaining.into());
        if let Ok(time) = HeaderValue::from_str(&go_duration(left.reset)) {
            headers.insert(HeaderName::from_static(reset), time);
        }
    }
}

/// All names, for scripts of other origins.
pub(crate) const NAMES: [&str; 9] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-tokens-day",
    "x-ratelimit-remaining-tokens-day",
    "x-ratelimit-reset-tokens-day",
];

fn names(kind: LimitKind) -> (&'static str, &'static str, &'static str) {
    let [a, b, c, d, e, f, g, h, i] = NAMES;
    match kind {
        LimitKind::Requests => (a, b, c),
        LimitKind::Tokens => (d, e, f),
        LimitKind::Day => (g, h, i),
    }
}

/// As the hosted API writes times: `350ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn go_duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", time.as_millis());
    }
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) => {
            let tenths = time.subsec_millis() / 100;
            if tenths == 0 {
                format!("{seconds}s")
            } else {
                format!("{seconds}.{tenths}s")
            }
        }
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        for (ms, text) in [
            (0, "0ms"),
            (350, "350ms"),
            (1_000, "1s"),
            (1_540, "1.5s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }
}
