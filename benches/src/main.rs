//! Benchmarks of the running product, for anybody to run again:
//! `cargo run --release -p benches -- <name>`. Most start the release binary
//! themselves.

mod abuse;
mod adapters;
mod fairness;
mod hostile;
mod http;
mod interference;
mod invariance;
mod kernels;
mod lora;
mod overload;
mod prefix;
mod report;
mod scheduler;
mod server;
mod speed;
mod steps;
mod streams;
mod structured;
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
    /// How near every kernel comes to what the machine can do.
    Kernels(kernels::Options),
    /// Prompts and decode steps of a model, without a server.
    Speed(speed::Options),
    /// Idle connections, slow heads, floods of headers, large bodies: what others notice.
    Abuse(abuse::Options),
    /// What a step's policy costs, without a model.
    Scheduler(scheduler::Args),
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Benchmark::Scheduler(args) = &args.benchmark {
        scheduler::run(args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Benchmark::Lora(options) = &args.benchmark {
        return end(
            &lora::run(args.model.as_deref(), options)?,
            args.results.as_deref(),
        );
    }
    if let Benchmark::Kernels(options) = &args.benchmark {
        return end(&kernels::run(options)?, args.results.as_deref());
    }
    if let Benchmark::Speed(options) = &args.benchmark {
        return end(
            &speed::run(args.model.as_deref(), options)?,
            args.results.as_deref(),
        );
    }
    let product = Product::new(args.model)?;
    let report: Report = match &args.benchmark {
        Benchmark::Interference(options) => interference::run(&product, options)?,
        Benchmark::Fairness(options) => fairness::run(&product, options)?,
        Benchmark::Prefix(options) => prefix::run(&product, options)?,
        Benchmark::Overload(options) => overload::run(&product, options)?,
        Benchmark::Abuse(options) => abuse::run(&product, options)?,
        Benchmark::Adapters(options) => adapters::run(&product, options)?,
        Benchmark::Invariance(options) => invariance::run(&product, options)?,
        Benchmark::Hostile(options) => hostile::run(&product, options)?,
        Benchmark::Structured(options) => structured::run(&product, options)?,
        Benchmark::Kernels(_)
        | Benchmark::Lora(_)
        | Benchmark::Scheduler(_)
        | Benchmark::Speed(_) => {
            unreachable!("it needs no server and has run")
        }
    };
    end(&report, args.results.as_deref())
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
