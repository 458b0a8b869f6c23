//! `cargo xtask simulate`: one seed step by step, or many seeds.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use tests::simulation::{self, Report, StepLine};

/// Simulates the scheduler.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this seed and print one line a step
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run this many seeds
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run seeds for so long instead, from one that the clock gives and that is printed
    #[arg(long, conflicts_with_all = ["seed", "seeds", "from"])]
    minutes: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match (args.seed, args.minutes) {
        (Some(seed), _) => replay(seed, &mut out),
        (None, Some(minutes)) => run_for(minutes, &mut out),
        (None, None) => run_many(args.from..args.from + args.seeds, &mut out),
    }
}

fn replay(seed: u64, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "  step waiting running  in use    free  cached  preempted     hits  rows tokens events flow:tokens"
    )?;
    let mut written = Ok(());
    let outcome = simulation::run_watched(seed, &mut |line| {
        if written.is_ok() {
            written = write_line(line, out);
        }
    });
    written?;
    summarize(&outcome?, 1, out)
}

fn write_line(line: &StepLine, out: &mut dyn Write) -> std::io::Result<()> {
    let stats = &line.stats;
    writeln!(
        out,
        "{:6} {:7} {:7} {:7} {:7} {:7} {:10} {:8} {:5} {:6} {:6}{}{}",
        line.step,
        stats.n_waiting,
        stats.n_running,
        stats.n_blocks_in_use,
        stats.n_blocks_free,
        stats.n_blocks_cached,
        stats.n_preemptions,
        stats.n_prefix_hit_tokens,
        line.n_rows,
        line.n_tokens,
        line.n_events,
        line.flows
            .iter()
            .map(|(flow, n_tokens)| format!(" {flow}:{n_tokens}"))
            .collect::<String>(),
        if line.failed { " failed" } else { "" }
    )
}

fn run_for(minutes: u64, out: &mut dyn Write) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let from = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * 1_000_000;
    writeln!(out, "from seed {from}")?;
    out.flush()?;
    run_many((from..).take_while(|_| Instant::now() < until), out)
}

fn run_many(seeds: impl Iterator<Item = u64>, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let mut total = Report::default();
    let mut n_seeds = 0;
    for seed in seeds {
        n_seeds += 1;
        match simulation::run(seed) {
            Ok(report) => total.add(&report),
            Err(failure) => bail!(failure),
        }
    }
    summarize(&total, n_seeds, out)?;
    writeln!(out, "{:.1} s", started.elapsed().as_secs_f64())?;
    Ok(())
}

fn summarize(report: &Report, n_seeds: u64, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "{n_seeds} seeds, {} steps ({} failed, {} rows failed alone), {} tokens, {} requests ({} refused), \
         {} cancellations, {} preemptions ({} tokens lost), {} prompt tokens hit, {} prompt scores, \
         {} overdue, {} tokens forced, {} steps begun ahead ({} rows void, {} postponed)",
        report.n_steps,
        report.n_failed_steps,
        report.n_failed_rows,
        report.n_tokens,
        report.n_requests,
        report.n_refused,
        report.n_cancelled,
        report.n_preemptions,
        report.n_tokens_lost,
        report.n_hit_tokens,
        report.n_scores,
        report.n_overdue,
        report.n_forced,
        report.n_ahead,
        report.n_void,
        report.n_postponed
    )?;
    Ok(())
}
