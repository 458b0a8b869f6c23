//! Where results go: standard output, JSON, a page, lines of requests.

use std::path::Path;

use serde_json::{Value, json};

use crate::bench::{Bench, Measured};
use crate::error::LoadError;
use crate::outcome::Outcome;
use crate::page;
use crate::summary::Summary;
use crate::table;

/// Writes what the flags ask for; gives the table.
pub(crate) fn publish(bench: &Bench, all: &[Measured]) -> Result<String, LoadError> {
    let args = bench.args();
    let summaries: Vec<Summary> = all
        .iter()
        .map(|measured| measured.summary.clone())
        .collect();
    let title = bench.title();
    if let Some(path) = &args.json {
        let whole = json!({"title": title, "seed": args.when.seed, "loads": summaries});
        write(path, &format!("{whole:#}\n"))?;
    }
    if let Some(path) = &args.html {
        write(path, &page::html(&title, &summaries)?)?;
    }
    if let Some(path) = &args.requests_out {
        let lines = all.iter().flat_map(|measured| {
            let load = &measured.summary.load;
            measured
                .outcomes
                .iter()
                .map(|outcome| format!("{}\n", line(load, outcome)))
        });
        write(path, &lines.collect::<String>())?;
    }
    Ok(table::text(&title, &summaries))
}

fn write(path: &Path, text: &str) -> Result<(), LoadError> {
    std::fs::write(path, text).map_err(|source| LoadError::File {
        path: path.to_owned(),
        source,
    })
}

/// A request in seconds from the beginning of its load.
fn line(load: &str, outcome: &Outcome) -> Value {
    json!({
        "load": load,
        "session": outcome.session,
        "turn": outcome.turn,
        "model": outcome.model,
        "intended": outcome.intended,
        "sent": outcome.sent,
        "events": outcome.tokens_at,
        "finished": outcome.finished,
        "ended": outcome.ended,
        "usage": outcome.usage,
        "error": outcome.failure.as_ref().map(|failure| failure.kind.name()),
    })
}
