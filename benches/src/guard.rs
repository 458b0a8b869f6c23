//! Instructions instead of times: a guard against code that does more than it did. Counted by
//! valgrind, so that what else runs on the machine does not matter. Each work is done once and
//! then several times; the difference leaves the start of the program out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::report::Report;
use crate::text::{detokenize_once, encode_once, tokenizer};

/// More than what is recorded by this is a regression.
const TOLERANCE: f64 = 0.10;
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guard.json");
const PROSE: &str = include_str!("../../server/src/commands/eval_text.txt");

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Record what is counted instead of comparing it.
    #[arg(long)]
    bless: bool,
}

/// One piece of work, so many times.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Work {
    #[arg(value_enum)]
    what: What,
    times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// A step of the scheduler with a hundred sequences.
    SchedulerStep,
    /// The token ids of a page.
    Encode,
    /// The text of a page's tokens.
    Detokenize,
    /// Splitting a stream into events.
    Events,
}

const ALL: [(What, &str, usize); 4] = [
    (What::SchedulerStep, "scheduler-step", 200),
    (What::Encode, "encode", 4),
    (What::Detokenize, "detokenize", 4),
    (What::Events, "events", 20),
];

/// Does it; nothing is printed.
pub(crate) fn work(work: &Work) -> Result<()> {
    match work.what {
        What::SchedulerStep => crate::scheduler::steps(work.times)?,
        What::Encode => {
            let (tokenizer, _) = tokenizer(None)?;
            for _ in 0..work.times {
                std::hint::black_box(encode_once(&tokenizer, PROSE));
            }
        }
        What::Detokenize => {
            let (tokenizer, _) = tokenizer(None)?;
            let tokens = tokenizer.encode(PROSE, false)?;
            for _ in 0..work.times {
                std::hint::black_box(detokenize_once(&tokenizer, &tokens));
            }
        }
        What::Events => {
            let stream = format!("data: {{\"text\":\"{}\"}}\n\n", "a".repeat(120)).repeat(200);
            for _ in 0..work.times {
                let mut n = 0;
                let mut parser = load::SseParser::default();
                parser.push(stream.as_bytes(), |event| n += event.len());
                std::hint::black_box(n);
            }
        }
    }
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut counted = BTreeMap::new();
    for (_, name, times) in ALL {
        let once = instructions(name, times)?;
        let more = instructions(name, 3 * times)?;
        ensure!(
            more > once,
            "{name}: {once} instructions, and {more} for more"
        );
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        counted.insert(name.to_owned(), (more - once) as f64 / (2 * times) as f64);
    }
    let path = PathBuf::from(RECORDED);
    if options.bless {
        std::fs::write(&path, serde_json::to_string_pretty(&counted)? + "\n")?;
    }
    let recorded = read(&path)?;
    let mut report = Report::new("guard");
    for (name, n) in counted {
        report.note(format!("{name}: instructions each"), n, "");
        let before = recorded.get(&name);
        let before = before.with_context(|| format!("{}: no {name}", path.display()))?;
        let name = format!("{name}: against what is recorded");
        report.at_most(&name, n / before, 1.0 + TOLERANCE, "x");
    }
    Ok(report)
}

fn read(path: &Path) -> Result<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("{}: --bless writes it", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// Instructions of one piece of work, start of the program included.
fn instructions(name: &str, times: usize) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?);
    let output = command
        .args(["guard-work", name, &times.to_string()])
        .output();
    let output = output.context("valgrind counts instructions; it is a package of that name")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name}: {told}");
    }
    collected(&told).with_context(|| format!("valgrind says: {told}"))
}

/// The number behind `Collected :`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read() {
        let told = "==1== Events    : Ir\n==1== Collected : 123456\n==1== \n";
        assert_eq!(collected(told), Some(123_456));
        assert_eq!(collected("==1== killed"), None);
    }
}
