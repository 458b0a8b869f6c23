//! Dashboards, alert rules and autoscalers in `deploy/` ask for series that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::alias;
use super::name::{ALL, Kind};

/// Endings of the series of one histogram.
const HISTOGRAM_SERIES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Files of `deploy/` that ask for metrics hold this many different names at least: with fewer,
/// this test would be looking at the wrong place.
const MIN_NAMES: usize = 20;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Words that begin like a metric of ours or of vLLM's.
fn asked_for(text: &str) -> impl Iterator<Item = &str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(move |c| !is_of_name(c))
        // After the colon of `key:value` a name may begin anew.
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.starts_with("understudy_") || word.starts_with("vllm:"))
}

/// Every series that `/metrics` can have.
fn series() -> BTreeSet<String> {
    let own = ALL
        .iter()
        .map(|(_, name, kind, _)| (*name, *kind == Kind::Histogram));
    let mut series = BTreeSet::new();
    for (name, is_histogram) in own.chain(alias::names()) {
        series.insert(name.to_owned());
        if is_histogram {
            series.extend(HISTOGRAM_SERIES.map(|ending| format!("{name}{ending}")));
        }
    }
    series
}

/// All that `text` has in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Series of a row of the table in the document whose labels have known values.
fn documented(row: &str) -> Vec<String> {
    let columns: Vec<&str> = row.split('|').map(str::trim).collect();
    let [_, name, kind, labels, ..] = columns[..] else {
        return Vec::new();
    };
    if kind != "counter" || !labels.contains("`: `") {
        return Vec::new();
    }
    let mut series = vec![String::new()];
    for label in labels.split(';') {
        let words = quoted(label);
        let (label, values) = words.split_first().unwrap();
        let with = |before: &String| {
            let comma = if before.is_empty() { "" } else { "," };
            let all = values.iter();
            all.map(|value| format!("{before}{comma}{label}=\"{value}\""))
                .collect::<Vec<_>>()
        };
        series = series.iter().flat_map(with).collect();
    }
    let name = quoted(name)[0];
    let series = series.iter().map(|labels| format!("{name}{{{labels}}} 0"));
    series.collect()
}

/// An increase is seen only in a series that was there before it.
#[test]
fn series_with_known_labels_are_there_from_the_start() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = fs::read_to_string(document).unwrap();
    let fresh = super::Metrics::new().render();
    let expected: Vec<String> = document.lines().flat_map(documented).collect();
    assert!(expected.len() >= 20, "{expected:?}");
    for series in expected {
        assert!(
            fresh.lines().any(|line| line == series),
            "no {series} in {fresh}"
        );
    }
}

#[test]
fn what_is_deployed_asks_for_metrics_that_exist() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut found = Vec::new();
    files(&deploy, &mut found);
    let series = series();
    let mut n_names = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for name in asked_for(&text) {
            assert!(
                series.contains(name),
                "{} asks for {name}, which /metrics does not have",
                path.display()
            );
            n_names.insert(name.to_owned());
        }
    }
    assert!(n_names.len() >= MIN_NAMES, "only {n_names:?}");
}
