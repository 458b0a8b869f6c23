//! Running streams, and a long prompt that arrives among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::http::Client;
use crate::report::{Report, ms, quantile};
use crate::server::Product;
use crate::streams::{Streams, gaps};
use crate::traffic::{Rng, completion, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Streams that run.
    #[arg(long, default_value_t = 8)]
    streams: usize,
    /// Tokens of the prompt that arrives.
    #[arg(long, default_value_t = 6_000)]
    prompt: usize,
    /// Seconds of running alone that the gaps are compared with.
    #[arg(long, default_value_t = 15)]
    baseline: u64,
    /// The server's --max-num-batched-tokens; without it, the default.
    #[arg(long)]
    budget: Option<usize>,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let budget = options.budget.map(|budget| budget.to_string());
    let flags = match &budget {
        Some(budget) => vec!["--max-num-batched-tokens", budget],
        None => Vec::new(),
    };
    let server = product.start(&flags)?;
    let client = server.client();
    let model = model_name(&client)?;
    let mut rng = Rng(1);
    let streams = Streams::start(&client, &model, options.streams, 64, &mut rng)?;
    // Until all stream.
    std::thread::sleep(Duration::from_secs(3));
    let health = probe(client.clone(), streams.stop());
    let quiet = Instant::now();
    std::thread::sleep(Duration::from_secs(options.baseline));
    let sent = Instant::now();
    let long = completion(&model, &rng.tokens(options.prompt), 1);
    let ttft = client.time_to_first_token(&long)?;
    let end = Instant::now();
    let times = streams.end()?;
    let (alone, beside) = (gaps(&times, quiet, sent), gaps(&times, sent, end));
    let health = health.join().map_err(|_| anyhow!("a client panicked"))??;
    report(options, &alone, &beside, &health, ttft)
}

fn report(
    options: &Options,
    alone: &[Duration],
    beside: &[Duration],
    health: &[Duration],
    ttft: Duration,
) -> Result<Report> {
    let mut report = Report::new("interference");
    let (before, during) = (quantile(alone, 0.99), quantile(beside, 0.99));
    alone.first().context("no stream ran alone")?;
    beside.first().context("no stream ran beside the prompt")?;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        report.note("streams", options.streams as f64, "");
        report.note("prompt that arrives", options.prompt as f64, "tokens");
        report.note("time to its first token", ttft.as_secs_f64(), "s");
        let rate = options.prompt as f64 / ttft.as_secs_f64();
        report.note("its prefill", rate, "tokens/s");
    }
    report.note("gap p50 without the prompt", ms(quantile(alone, 0.5)), "ms");
    report.note("gap p99 without the prompt", ms(before), "ms");
    report.note("gap p50 beside the prompt", ms(quantile(beside, 0.5)), "ms");
    report.note("gap p99 beside the prompt", ms(during), "ms");
    report.note("gap max beside the prompt", ms(quantile(beside, 1.0)), "ms");
    let ratio = during.as_secs_f64() / before.as_secs_f64();
    report.at_most("p99 beside / without", ratio, 3.0, "x");
    report.note("/health p50", ms(quantile(health, 0.5)), "ms");
    report.note("/health p99", ms(quantile(health, 0.99)), "ms");
    report.at_most("/health max", ms(quantile(health, 1.0)), 20.0, "ms");
    Ok(report)
}

/// How long `/health` takes, fifty times a second.
fn probe(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<Result<Vec<Duration>>> {
    std::thread::spawn(move || {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            took.push(client.get("/health")?.took);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(took)
    })
}
