//! Recorded arrivals: when requests came, and how long they were.
//!
//! Read are JSON lines with `timestamp` (milliseconds), `input_length`, `output_length` and, if
//! there are any, `hash_ids` (the traces of Mooncake: each id stands for the same 512 tokens
//! wherever it comes); and CSV with a line of names, as the traces of Azure (`TIMESTAMP,
//! ContextTokens, GeneratedTokens`) and BurstGPT (`Timestamp, Request tokens, Response tokens`).
//! Times in CSV are seconds, or dates.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::LoadError;

/// Tokens that one id of `hash_ids` stands for.
pub(crate) const TOKENS_OF_HASH: usize = 512;

/// One recorded request.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// From the first request on.
    pub at: Duration,
    pub n_prompt: usize,
    pub n_output: usize,
    /// Equal ids are equal pieces of prompts, from the beginning on. Empty: nothing is known.
    pub hash_ids: Vec<u64>,
}

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: usize,
    output_length: usize,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Reads a trace. Time goes `speed` times as fast as it went.
pub fn read(path: &Path, speed: f64) -> Result<Vec<Recorded>, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::File {
        path: path.to_owned(),
        source,
    })?;
    let wrong = |(line, reason): (usize, String)| LoadError::Trace {
        path: path.to_owned(),
        line,
        reason,
    };
    parse(&text, speed).map_err(wrong)
}

/// The requests of a trace in the order of their times; or which line is wrong, and why.
fn parse(text: &str, speed: f64) -> Result<Vec<Recorded>, (usize, String)> {
    let first = text.lines().next().unwrap_or_default();
    let mut rows = if first.trim_start().starts_with('{') {
        json_lines(text)?
    } else {
        csv(text)?
    };
    if rows.is_empty() {
        return Err((1, "it has no requests".to_owned()));
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let start = rows[0].0;
    let requests = rows.into_iter().map(|(seconds, recorded)| Recorded {
        at: Duration::from_secs_f64((seconds - start) / speed),
        ..recorded
    });
    Ok(requests.collect())
}

/// Seconds of some clock, and the rest of a request.
type Row = (f64, Recorded);

fn row(seconds: f64, n_prompt: usize, n_output: usize, hash_ids: Vec<u64>) -> Row {
    let recorded = Recorded {
        at: Duration::ZERO,
        n_prompt: n_prompt.max(1),
        n_output: n_output.max(1),
        hash_ids,
    };
    (seconds, recorded)
}

fn json_lines(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(i, text)| {
        let line: Line = serde_json::from_str(text).map_err(|error| (i + 1, error.to_string()))?;
        if !line.timestamp.is_finite() {
            return Err((i + 1, "timestamp is no number".to_owned()));
        }
        let seconds = line.timestamp / 1e3;
        Ok(row(
            seconds,
            line.input_length,
            line.output_length,
            line.hash_ids,
        ))
    });
    read.collect()
}

fn csv(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut lines = text.lines().enumerate();
    let names = lines.next().map_or("", |(_, line)| line);
    let names: Vec<String> = names
        .trim_start_matches('\u{feff}')
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_ascii_lowercase())
        .collect();
    let column = |wanted: [&str; 3]| {
        let found = names
            .iter()
            .position(|name| wanted.contains(&name.as_str()));
        found.ok_or_else(|| (1, format!("no column {}", wanted.join(" or "))))
    };
    let time = column(["timestamp", "arrived_at", "time"])?;
    let prompt = column(["contexttokens", "request tokens", "input_length"])?;
    let output = column(["generatedtokens", "response tokens", "output_length"])?;
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(i, line)| {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |at: usize| {
            let found = cells.get(at).copied();
            found.ok_or_else(|| (i + 1, format!("no {}", names[at])))
        };
        let count = |at: usize| {
            let text = cell(at)?;
            text.parse::<usize>()
                .map_err(|_| (i + 1, format!("{}: {text:?} is no count", names[at])))
        };
        let text = cell(time)?;
        let seconds = seconds(text).ok_or_else(|| (i + 1, format!("{text:?} is no time")))?;
        Ok(row(seconds, count(prompt)?, count(output)?, Vec::new()))
    });
    read.collect()
}

/// `12.5`, or `2023-11-16 18:17:03.9799600` (with `T` for the blank, and any zone at its end
/// left out: all times of a trace are of one zone).
fn seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let (date, clock) = text.split_once([' ', 'T'])?;
    let date: Vec<i64> = numbers(date, '-')?;
    let clock = clock.trim_end_matches('Z').split('+').next()?;
    let (hours, rest) = clock.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let &[year, month, day] = date.as_slice() else {
        return None;
    };
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let whole = (days(year, month, day) * 24 + hours) * 60 + minutes;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let whole = whole as f64;
    Some(whole * 60.0 + seconds.parse::<f64>().ok()?)
}

fn numbers(text: &str, between: char) -> Option<Vec<i64>> {
    text.split(between).map(|word| word.parse().ok()).collect()
}

/// Days since some fixed day, of the Gregorian calendar; years are taken to begin in March, so
/// that the day of a leap year is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_others_are_read() {
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                     2023-11-30 23:59:59.5000000,4808,10\n2023-12-01 00:00:01.0000000,110,27\n";
        let read = parse(azure, 1.0).unwrap();
        assert_eq!(read[1].at, Duration::from_millis(1500));
        assert_eq!((read[0].n_prompt, read[1].n_output), (4808, 27));
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                     5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1,2,3,API log\n";
        assert_eq!(parse(burst, 4.0).unwrap()[1].at, Duration::from_secs(10));
        let mooncake = "{\"timestamp\": 27000, \"input_length\": 600, \"output_length\": 52, \
                        \"hash_ids\": [46, 47]}\n\
                        {\"timestamp\": 26000, \"input_length\": 5, \"output_length\": 0}\n";
        let read = parse(mooncake, 1.0).unwrap();
        assert_eq!((read[0].n_prompt, read[0].n_output), (5, 1));
        assert_eq!(
            (read[1].at.as_secs(), &read[1].hash_ids[..]),
            (1, &[46, 47][..])
        );
    }

    #[test]
    fn leap_days_count() {
        let at = |text| seconds(text).unwrap();
        let day = 86_400.0;
        assert_eq!(
            at("2024-03-01 00:00:00") - at("2024-02-28T00:00:00Z"),
            2.0 * day
        );
        assert_eq!(
            at("2023-03-01 00:00:00") - at("2023-02-28 00:00:00+00:00"),
            day
        );
        assert_eq!(at("2025-01-01 00:00:00") - at("2024-12-31 00:00:00"), day);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let text = "timestamp,input_length,output_length\n1,2,3\n1,two,3\n";
        assert_eq!(parse(text, 1.0).unwrap_err().0, 3);
        assert!(
            parse("time,prompt\n", 1.0)
                .unwrap_err()
                .1
                .contains("contexttokens")
        );
        assert!(parse("", 1.0).is_err());
    }
}
