//! Many more adapters than may be in memory: do their loads disturb the streams that run, and
//! are they counted exactly?
//!
//! Clients ask for adapters drawn from a Zipf distribution while streams of the base run. First
//! all asked for are in memory, then most are not: what differs is the loads alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use models::Checkpoint;
use serde_json::Value;
use understudy::source::{self, SourceSettings};

use crate::http::Client;
use crate::lora::{Targets, write_adapter};
use crate::report::{Report, ms, quantile};
use crate::server::Product;
use crate::streams::{Streams, gaps};
use crate::traffic::{Rng, completion, model_name};

/// Tokens of a prompt and of an answer of the clients.
const N_TOKENS: usize = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Adapters on disk.
    #[arg(long, default_value_t = 256)]
    adapters: usize,
    /// Adapters that may be in memory.
    #[arg(long, default_value_t = 32)]
    loaded: usize,
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Streams of the base model.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Clients that ask for adapters, one request after the other.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Seconds with and without loads, each.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// Counters of the server.
#[derive(Clone, Copy, Debug)]
struct Counts {
    hits: f64,
    misses: f64,
    evictions: f64,
    failures: f64,
    loaded: f64,
}

impl Counts {
    fn read(client: &Client) -> Result<Self> {
        let counter = |name: &str| client.metric(&format!("understudy_adapter{name}"));
        Ok(Self {
            hits: counter("_hits_total")?,
            misses: counter("_misses_total")?,
            evictions: counter("_evictions_total")?,
            failures: counter("_failures_total")?,
            loaded: counter("s_loaded")?,
        })
    }
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    ensure!(
        options.loaded > 0 && options.loaded <= options.adapters,
        "--loaded is from 1 to --adapters"
    );
    let dir = tempfile::tempdir()?;
    write_all(product, dir.path(), options)?;
    let dir = dir.path().display().to_string();
    let loaded = options.loaded.to_string();
    let memory = "16GiB";
    let flags = [
        "--adapter-dir",
        &dir,
        "--max-loaded-adapters",
        &loaded,
        "--adapter-memory",
        memory,
        "--kv-cache-memory",
        "512MiB",
    ];
    let server = product.start(&flags)?;
    let client = server.client();
    let asked = Arc::new(AtomicU64::new(0));
    // Each that will be in memory is asked for once.
    for i in 0..options.loaded {
        ask(&client, i, &mut Rng(i as u64), &asked)?;
    }
    let model = model_name(&client)?;
    let streams = Streams::start(&client, &model, options.streams, 64, &mut Rng(7))?;
    std::thread::sleep(Duration::from_secs(3));
    let quiet = Instant::now();
    let before = Counts::read(&client)?;
    ask_for(&client, options, options.loaded, &asked)?;
    let middle = Counts::read(&client)?;
    let busy = Instant::now();
    ask_for(&client, options, options.adapters, &asked)?;
    let end = Instant::now();
    let times = streams.end()?;
    let (without, with) = (gaps(&times, quiet, busy), gaps(&times, busy, end));
    ensure!(
        before.misses == middle.misses,
        "adapters in memory were loaded again"
    );
    let after = Counts::read(&client)?;
    Ok(report(&after, &asked, &without, &with))
}

fn report(counts: &Counts, asked: &AtomicU64, without: &[Duration], with: &[Duration]) -> Report {
    let mut report = Report::new("adapters");
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let asked = asked.load(Ordering::Relaxed) as f64;
    let Counts {
        hits,
        misses,
        evictions,
        failures,
        loaded,
    } = *counts;
    report.note("requests for adapters", asked, "");
    report.note("hits", hits, "");
    report.note("misses", misses, "");
    report.note("evictions", evictions, "");
    report.at_most("failures", failures, 0.0, "");
    report.at_most(
        "hits + misses - requests",
        (hits + misses - asked).abs(),
        0.0,
        "",
    );
    let missing = (misses - evictions - loaded).abs();
    report.at_most("misses - evictions - in memory", missing, 0.0, "");
    let (before, during) = (quantile(without, 0.99), quantile(with, 0.99));
    report.note("gap p50 without loads", ms(quantile(without, 0.5)), "ms");
    report.note("gap p50 beside loads", ms(quantile(with, 0.5)), "ms");
    report.note("gap p99 without loads", ms(before), "ms");
    report.note("gap p99 beside loads", ms(during), "ms");
    report.note("gap max beside loads", ms(quantile(with, 1.0)), "ms");
    let ratio = during.as_secs_f64() / before.as_secs_f64();
    report.at_most("p99 beside / without", ratio, 2.0, "x");
    report
}

fn write_all(product: &Product, dir: &std::path::Path, options: &Options) -> Result<()> {
    let found = source::resolve(product.model.as_deref(), &SourceSettings::from_env()?)?;
    let checkpoint = Checkpoint::open(&found.path)?;
    for i in 0..options.adapters {
        let own = dir.join(name(i));
        std::fs::create_dir(&own)?;
        let seed = i as u64 + 1;
        write_adapter(
            &own,
            checkpoint.config(),
            options.rank,
            Targets::AllLinear,
            seed,
        )?;
    }
    Ok(())
}

fn name(i: usize) -> String {
    format!("adapter-{i:03}")
}

/// Clients that ask for the first `n` adapters for the time given.
fn ask_for(client: &Client, options: &Options, n: usize, asked: &Arc<AtomicU64>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let clients: Vec<JoinHandle<Result<()>>> = (0..options.clients)
        .map(|i| {
            let (client, asked) = (client.clone(), Arc::clone(asked));
            std::thread::spawn(move || {
                let mut rng = Rng(1000 + i as u64);
                while Instant::now() < end {
                    let adapter = zipf(&mut rng, n);
                    ask(&client, adapter, &mut rng, &asked)?;
                }
                Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    Ok(())
}

/// A number below `n`, of which `i` comes in proportion to `1 / (i + 1)`.
fn zipf(rng: &mut Rng, n: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let share = |i: usize| 1.0 / (i + 1) as f64;
    let total: f64 = (0..n).map(share).sum();
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    let mut place = total * ((rng.next() >> 11) as f64 / (1_u64 << 53) as f64);
    for i in 0..n {
        place -= share(i);
        if place < 0.0 {
            return i;
        }
    }
    n - 1
}

fn ask(client: &Client, adapter: usize, rng: &mut Rng, asked: &AtomicU64) -> Result<()> {
    let mut body = completion(&name(adapter), &rng.tokens(N_TOKENS), N_TOKENS);
    body["stream"] = Value::Bool(false);
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = client.post("/v1/completions", &body)?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
    let tokens = answer.json()?["usage"]["completion_tokens"].as_u64();
    ensure!(tokens.context("no usage")? == N_TOKENS as u64);
    Ok(())
}
