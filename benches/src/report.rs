//! Results: a table for people, and JSON with where and when they were measured.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::{Value, json};

/// What one benchmark found.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// The bound, in words, and whether it was kept.
    expected: Option<(String, bool)>,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            rows: Vec::new(),
        }
    }

    /// A figure without an expectation.
    pub(crate) fn note(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row {
            what: what.into(),
            value,
            unit,
            expected: None,
        });
    }

    /// A figure that should be at most `bound`.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, bound: f64, unit: &'static str) {
        let expected = Some((format!("<= {bound}"), value <= bound));
        self.rows.push(Row {
            what: what.to_owned(),
            value,
            unit,
            expected,
        });
    }

    /// A figure that should be at least `bound`.
    pub(crate) fn at_least(&mut self, what: &str, value: f64, bound: f64, unit: &'static str) {
        let expected = Some((format!(">= {bound}"), value >= bound));
        self.rows.push(Row {
            what: what.to_owned(),
            value,
            unit,
            expected,
        });
    }

    /// Whether all expectations were met.
    pub(crate) fn is_met(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.expected.as_ref().is_none_or(|(_, met)| *met))
    }

    /// Prints the table, and writes `<name>.json` to `dir` if there is one.
    pub(crate) fn publish(&self, dir: Option<&Path>) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", self.name)?;
        for row in &self.rows {
            let expected = match &row.expected {
                None => String::new(),
                Some((bound, true)) => format!("{bound:>10}  met"),
                Some((bound, false)) => format!("{bound:>10}  MISSED"),
            };
            writeln!(
                out,
                "  {:<58} {:>12.3} {:<10}{expected}",
                row.what, row.value, row.unit
            )?;
        }
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir)?;
            let path = dir.join(format!("{}.json", self.name));
            let text = serde_json::to_string_pretty(&self.json())?;
            std::fs::write(&path, text + "\n")?;
            writeln!(out, "  written to {}", path.display())?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let expected = row.expected.as_ref();
            json!({
                "what": row.what,
                "value": row.value,
                "unit": row.unit,
                "expected": expected.map(|(bound, _)| bound),
                "met": expected.map(|(_, met)| met),
            })
        });
        let rows: Vec<Value> = rows.collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        json!({
            "benchmark": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "unix_seconds": now.unwrap_or_default().as_secs(),
            "machine": machine(),
            "commit": told("git", &["describe", "--always", "--dirty", "--exclude", "*"]),
            "pressure_percent": pressure(),
            "rows": rows,
        })
    }
}

/// The processor, and how many of it.
pub(crate) fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{n} x {model}")
}

/// What a program says, in a line; `unknown` if it is not there.
pub(crate) fn told(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Share of the last minute in which something waited for a processor, in percent, where the
/// system tells.
fn pressure() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let value = text.split("avg60=").nth(1)?.split_whitespace().next()?;
    value.parse().ok()
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that a share `q` of all values do not exceed (nearest rank); 0 of none.
pub(crate) fn quantile(values: &[Duration], q: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    load::quantile(&sorted, q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(ms(quantile(&values, 0.5)), 50.0);
        assert_eq!(ms(quantile(&values, 0.99)), 99.0);
        assert_eq!(ms(quantile(&values, 1.0)), 100.0);
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_missed_bound_is_not_met() {
        let mut report = Report::new("x");
        report.at_most("a", 1.0, 2.0, "");
        assert!(report.is_met());
        report.at_least("b", 1.0, 2.0, "");
        assert!(!report.is_met());
    }
}
