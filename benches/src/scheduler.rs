//! What a step's policy costs: `begin_step` and `end_step` without a model between them.
//!
//! The cost must grow with the rows of a batch, never with the queue behind them. So each figure
//! stands beside the same machine's with a hundred times the queue, and the ratio is printed.

use std::time::Instant;

use crate::report::Report;
use crate::steps::made_up;
use anyhow::{Result, ensure};
use scheduler::{FlowId, Request, RequestId, Scheduler, SchedulerConfig};

const N_FLOWS: u64 = 50;
const N_PROMPT: usize = 40;
const BLOCK_SIZE: usize = 16;

/// Measures the scheduler.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Steps to measure for each figure; fewer where they are long.
    #[arg(long, default_value_t = 1_000)]
    steps: usize,
}

/// One machine's load.
#[derive(Clone, Copy, Debug)]
struct Load {
    n_running: usize,
    n_waiting: usize,
    /// Tokens that each sequence draws: few make sequences come and go in every step.
    max_new_tokens: u32,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("scheduler");
    for (name, max_new_tokens) in [("long answers", 100_000), ("short answers", 8)] {
        for n_running in [1, 100, 10_000] {
            let mut shortest = None;
            for n_waiting in [100, 10_000] {
                let load = Load {
                    n_running,
                    n_waiting,
                    max_new_tokens,
                };
                // A step of many rows takes long, and few of them say as much.
                let n_steps = args.steps.min((300_000 / n_running).max(30));
                let (p50, p99) = measure(load, n_steps)?;
                let what = format!("{name}, {n_running} running, {n_waiting} waiting");
                report.note(format!("{what}: step p50"), p50, "us");
                report.note(format!("{what}: step p99"), p99, "us");
                #[expect(clippy::cast_precision_loss, reason = "a small count")]
                report.note(format!("{what}: a row"), p50 / n_running as f64, "us");
                let shortest = *shortest.get_or_insert(p50);
                if n_waiting > 100 {
                    report.note(format!("{what}: against 100 waiting"), p50 / shortest, "x");
                }
            }
        }
    }
    Ok(report)
}

/// Steps for the guard: as many as asked for, with a hundred sequences running.
pub(crate) fn steps(n: usize) -> Result<()> {
    let load = Load {
        n_running: 100,
        n_waiting: 100,
        max_new_tokens: 64,
    };
    measure(load, n)?;
    Ok(())
}

/// Median and 99th percentile of the time of a step, in microseconds.
fn measure(load: Load, n_steps: usize) -> Result<(f64, f64)> {
    let n_longest = N_PROMPT + n_steps + 2_048;
    let n_blocks = load.n_running * (n_longest.div_ceil(BLOCK_SIZE) + 1);
    let mut scheduler = Scheduler::new(SchedulerConfig {
        block_size: BLOCK_SIZE,
        n_blocks,
        max_batched_tokens: load.n_running.max(256) * 2,
        max_sequences: load.n_running,
        max_model_len: n_longest,
        window: None,
        prefix_cache: true,
        fairness: true,
        head_start: SchedulerConfig::HEAD_START,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    })?;
    let mut next_id = 0;
    let mut times = Vec::with_capacity(n_steps);
    let n_warm_up = 100;
    for step in 0..n_warm_up + n_steps {
        // The queue is as long in every step. Submitting is not part of what is measured.
        while scheduler.stats().n_waiting + scheduler.stats().n_running
            < load.n_waiting + load.n_running
        {
            scheduler.submit(request(next_id, load.max_new_tokens))?;
            next_id += 1;
        }
        let started = Instant::now();
        let batch = scheduler.begin_step();
        let begun = started.elapsed();
        let Some(batch) = batch else {
            anyhow::bail!("there is work but no batch");
        };
        let sampled = made_up(&batch);
        let started = Instant::now();
        let events = scheduler.end_step(sampled);
        let took = begun + started.elapsed();
        drop(events);
        if step >= n_warm_up {
            times.push(took.as_secs_f64() * 1e6);
        }
    }
    ensure!(
        scheduler.stats().n_running <= load.n_running,
        "too many run"
    );
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn request(id: u64, max_new_tokens: u32) -> Request {
    let token = |i: usize| {
        (id as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(i as u32)
            % 50_000
    };
    let prompt = (0..N_PROMPT).map(token).collect();
    Request {
        flow: FlowId(id % N_FLOWS),
        ..Request::new(RequestId(id), prompt, max_new_tokens)
    }
}
