//! Benchmarks of the running product, for anybody to run again:
//! `cargo run --release -p benches -- <name>`. Most start the release binary
//! themselves.

mod abuse;
mod adapters;
mod capacity;
mod fairness;
mod guard;
mod hostile;
mod http;
mod interference;
mod invariance;
mod kernels;
mod lora;
mod null_server;
mod overhead;
mod overload;
mod prefix;
mod quality;
mod report;
mod results;
mod scheduler;
mod server;
mod simulate;
mod speed;
mod startup;
mod steps;
mod streams;
mod structured;
mod text;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;
use server::Product;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Args {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// What to serve, as the server's own argument; without it, the demo model.
    #[arg(long, global = true)]
    model: Option<String>,
    /// Write <benchmark>.json to this directory, for example benches/results.
    #[arg(long, global = true, value_name = "DIR")]
    results: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// A long prompt arrives while streams run: do they stutter?
    Interference(interference::Options),
    /// One tenant sends 50 requests, another two: how long does the second wait?
    Fairness(fairness::Options),
    /// Requests that share a long system prompt: cold and warm.
    Prefix(prefix::Options),
    /// Ten times more requests than can be served.
    Overload(overload::Options),
    /// The same requests alone, together, cold, warm and preempted: the same bytes?
    Invariance(invariance::Options),
    /// Schemas and grammars that nobody should send, while others stream.
    Hostile(hostile::Options),
    /// Answers that must match a schema, and answers that need not.
    Structured(structured::Options),
    /// More adapters than may be in memory: what their loads do to streams.
    Adapters(adapters::Options),
    /// Steps with adapters and without.
    Lora(lora::Options),
    /// What quantizing costs in quality.
    Quality,
    /// How near every kernel comes to what the machine can do.
    Kernels(kernels::Options),
    /// Prompts and decode steps of a model, without a server.
    Speed(speed::Options),
    /// Idle connections, slow heads, floods of headers, large bodies: what others notice.
    Abuse(abuse::Options),
    /// What `understudy plan` says, against a real run.
    Capacity(capacity::Options),
    /// Servers in simulated time, validated here and used for what is not here.
    Simulate(simulate::Options),
    /// What a step's policy costs, without a model.
    Scheduler(scheduler::Args),
    /// Tokenizer, detokenizer and masks of grammars.
    Text(text::Options),
    /// What a request costs beside the model.
    Overhead(overhead::Options),
    /// How long a start takes, by phase.
    Startup(startup::Options),
    /// Instructions of a few pieces of work against what is recorded (needs valgrind).
    Guard(guard::Options),
    /// Everything, as benches/RESULTS.md.
    Results(results::Options),
    /// The server of `overhead`.
    #[command(hide = true)]
    NullServer,
    /// The work of `guard`.
    #[command(hide = true)]
    GuardWork(guard::Work),
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let model = args.model.as_deref();
    match &args.benchmark {
        Benchmark::Results(options) => results::run(model, options)?,
        Benchmark::NullServer => null_server::run(model)?,
        Benchmark::GuardWork(work) => guard::work(work)?,
        benchmark => {
            let report = match without_server(benchmark, model) {
                Some(report) => report?,
                None => with_server(benchmark, args.model)?,
            };
            return end(&report, args.results.as_deref());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Benchmarks that start no server, or their own.
fn without_server(benchmark: &Benchmark, model: Option<&str>) -> Option<Result<Report>> {
    Some(match benchmark {
        Benchmark::Guard(options) => guard::run(options),
        Benchmark::Kernels(options) => kernels::run(options),
        Benchmark::Lora(options) => lora::run(model, options),
        Benchmark::Overhead(options) => overhead::run(model, options),
        Benchmark::Scheduler(args) => scheduler::run(args),
        Benchmark::Simulate(options) => simulate::run(model, options),
        Benchmark::Speed(options) => speed::run(model, options),
        Benchmark::Text(options) => text::run(model, options),
        _ => return None,
    })
}

/// Benchmarks of the release binary.
fn with_server(benchmark: &Benchmark, model: Option<String>) -> Result<Report> {
    let product = Product::new(model)?;
    match benchmark {
        Benchmark::Interference(options) => interference::run(&product, options),
        Benchmark::Fairness(options) => fairness::run(&product, options),
        Benchmark::Prefix(options) => prefix::run(&product, options),
        Benchmark::Overload(options) => overload::run(&product, options),
        Benchmark::Abuse(options) => abuse::run(&product, options),
        Benchmark::Adapters(options) => adapters::run(&product, options),
        Benchmark::Capacity(options) => capacity::run(&product, options),
        Benchmark::Invariance(options) => invariance::run(&product, options),
        Benchmark::Hostile(options) => hostile::run(&product, options),
        Benchmark::Quality => quality::run(&product),
        Benchmark::Structured(options) => structured::run(&product, options),
        Benchmark::Startup(options) => startup::run(&product, options),
        _ => unreachable!("all others have run without the binary"),
    }
}

/// Publishes a report; whether its expectations were met is the exit code.
fn end(report: &Report, results: Option<&Path>) -> Result<ExitCode> {
    report.publish(results)?;
    Ok(if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
