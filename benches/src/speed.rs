//! Steps of the runner without a server: prompts of some lengths, and decode steps of some
//! batches. The fastest of several, so that a busy machine disturbs least.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use models::ModelRunner;
use scheduler::{Batch, Executor};

use crate::report::Report;
use crate::steps::{BLOCK_SIZE, Room, row, runner};
use crate::traffic::Rng;

/// Tokens of a step of a prompt: the server's default.
const STEP: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    threads: Option<usize>,
    /// Lengths of prompts.
    #[arg(long, value_delimiter = ',', default_values_t = [512, 2048, 6000])]
    prompts: Vec<usize>,
    /// Sequences of decode steps.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 32])]
    batches: Vec<usize>,
    /// Tokens before a decode step.
    #[arg(long, default_value_t = 256)]
    context: usize,
    /// Seconds for each line, after the first run of it.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<Report> {
    let mut bench = Bench::new(model, options)?;
    let mut report = Report::new("speed");
    for &n_tokens in &options.prompts {
        let seconds = bench.prompt(n_tokens, options.seconds)?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rate = n_tokens as f64 / seconds;
        report.note(format!("prompt of {n_tokens} tokens"), rate, "tokens/s");
    }
    for &n_rows in &options.batches {
        let seconds = bench.decode(n_rows, options)?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rate = n_rows as f64 / seconds;
        report.note(
            format!("decode, {n_rows} sequences of {}", options.context),
            rate,
            "tokens/s",
        );
    }
    Ok(report)
}

struct Bench {
    runner: ModelRunner,
}

impl Bench {
    fn new(model: Option<&str>, options: &Options) -> Result<Self> {
        let per_sequence = (options.context + 1).div_ceil(BLOCK_SIZE);
        let n_decode = options.batches.iter().max().unwrap_or(&0) * per_sequence;
        let longest = options.prompts.iter().max().unwrap_or(&0);
        let room = Room {
            n_blocks: n_decode.max(longest.div_ceil(BLOCK_SIZE)),
            max_batched_tokens: STEP,
            max_model_len: (*longest).max(options.context + 1),
        };
        let runner = runner(model, options.threads, room)?;
        Ok(Self { runner })
    }

    /// Seconds of the fastest prompt.
    fn prompt(&mut self, n_tokens: usize, seconds: f64) -> Result<f64> {
        let mut rng = Rng(1);
        #[expect(clippy::cast_possible_truncation, reason = "ids are small")]
        let tokens: Vec<u32> = rng.tokens(n_tokens).iter().map(|&id| id as u32).collect();
        let n_blocks = n_tokens.div_ceil(BLOCK_SIZE);
        let steps: Vec<Batch> = (0..n_tokens)
            .step_by(STEP)
            .map(|start| {
                let end = n_tokens.min(start + STEP);
                let chunk = tokens[start..end].to_vec();
                let mut row = row(0, chunk, start, n_blocks);
                row.sample = row.sample.filter(|_| end == n_tokens);
                Batch { rows: vec![row] }
            })
            .collect();
        fastest(seconds, || {
            for step in &steps {
                self.execute(step)?;
            }
            Ok(())
        })
    }

    /// Seconds of the fastest decode step, after prompts.
    fn decode(&mut self, n_rows: usize, options: &Options) -> Result<f64> {
        let per_sequence = (options.context + 1).div_ceil(BLOCK_SIZE);
        for i in 0..n_rows {
            for start in (0..options.context).step_by(STEP) {
                let n_tokens = STEP.min(options.context - start);
                let chunk = (0..n_tokens as u32).map(|token| 1000 + token).collect();
                let mut row = row(i, chunk, start, per_sequence);
                row.sample = None;
                self.execute(&Batch { rows: vec![row] })?;
            }
        }
        let rows = (0..n_rows).map(|i| {
            let token = 1000 + i as u32;
            row(i, vec![token], options.context, per_sequence)
        });
        let batch = Batch {
            rows: rows.collect(),
        };
        fastest(options.seconds, || self.execute(&batch))
    }

    fn execute(&mut self, batch: &Batch) -> Result<()> {
        let results = self.runner.execute(batch)?;
        let failed = results.iter().find_map(|result| result.failed.as_ref());
        ensure!(failed.is_none(), "{failed:?}");
        Ok(())
    }
}

fn fastest(seconds: f64, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let begin = Instant::now();
    let mut best = Duration::MAX;
    while best == Duration::MAX || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed());
    }
    Ok(best.as_secs_f64())
}
