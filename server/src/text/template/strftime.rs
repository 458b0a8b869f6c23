//! `strftime_now` of chat templates, in UTC and English.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A civil date and time.
struct Civil {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// 0: January 1st.
    day_of_year: u64,
    /// 0: Monday.
    weekday: u64,
    second_of_day: u64,
}

impl Civil {
    fn new(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut days = seconds / 86_400;
        // The first day of 1970 was a Thursday.
        let weekday = (days + 3) % 7;
        let mut year = 1970;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let day_of_year = days;
        let mut month = 1;
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: days + 1,
            day_of_year,
            weekday,
            second_of_day: seconds % 86_400,
        }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Formats a time as C's `strftime` does; a directive that is not supported is an error.
pub(super) fn format(time: SystemTime, format: &str) -> Result<String, String> {
    let now = Civil::new(time);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // `%-d`: without padding.
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        let name = directive.map_or(String::new(), String::from);
        write_directive(&mut out, &now, directive, padded)
            .ok_or_else(|| format!("strftime_now: %{name} is not supported"))?;
    }
    Ok(out)
}

fn write_directive(
    out: &mut String,
    now: &Civil,
    directive: Option<char>,
    padded: bool,
) -> Option<()> {
    let (hour, minute, second) = (
        now.second_of_day / 3600,
        now.second_of_day / 60 % 60,
        now.second_of_day % 60,
    );
    let day = DAYS[usize::try_from(now.weekday).ok()?];
    let month = MONTHS[usize::try_from(now.month - 1).ok()?];
    let (number, width) = match directive? {
        'a' => return text(out, &day[..3]),
        'A' => return text(out, day),
        'b' | 'h' => return text(out, &month[..3]),
        'B' => return text(out, month),
        'p' => return text(out, if hour < 12 { "AM" } else { "PM" }),
        'Z' => return text(out, "UTC"),
        'z' => return text(out, "+0000"),
        '%' => return text(out, "%"),
        'F' => return write!(out, "{}-{:02}-{:02}", now.year, now.month, now.day).ok(),
        'T' => return write!(out, "{hour:02}:{minute:02}:{second:02}").ok(),
        'Y' => (now.year, 4),
        'y' => (now.year % 100, 2),
        'm' => (now.month, 2),
        'd' => (now.day, 2),
        'H' => (hour, 2),
        'I' => ((hour + 11) % 12 + 1, 2),
        'M' => (minute, 2),
        'S' => (second, 2),
        'j' => (now.day_of_year + 1, 3),
        _ => return None,
    };
    let width = if padded { width } else { 0 };
    write!(out, "{number:0width$}").ok()
}

fn text(out: &mut String, text: &str) -> Option<()> {
    out.push_str(text);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_of_known_seconds() {
        let at = |seconds, pattern| format(UNIX_EPOCH + Duration::from_secs(seconds), pattern);
        assert_eq!(
            at(1_767_323_045, "%Y-%m-%d %H:%M:%S %A %j").unwrap(),
            "2026-01-02 03:04:05 Friday 002"
        );
        assert_eq!(
            at(1_709_164_800, "%d %b %Y, %-d %B %y").unwrap(),
            "29 Feb 2024, 29 February 24"
        );
        assert_eq!(at(0, "%a %I %p 100%%").unwrap(), "Thu 12 AM 100%");
        assert_eq!(at(951_868_799, "%F %T").unwrap(), "2000-02-29 23:59:59");
        assert!(at(0, "%Q").unwrap_err().contains("%Q"));
        assert!(at(0, "%").is_err());
    }
}
