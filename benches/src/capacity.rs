//! `understudy plan` against a real run: what it says a machine holds is offered to it, and then
//! clearly more.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use load::{Arrivals, Bench, BenchArgs, Endpoint, Length, Summary};
use serde_json::Value;

use crate::report::Report;
use crate::server::Product;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Milliseconds within which 95 of 100 first tokens are to come.
    #[arg(long, default_value_t = 600.0)]
    ttft_p95: f64,
    /// Seconds of each load of the plan; those of the check take twice as long.
    #[arg(long, default_value_t = 40.0)]
    seconds: f64,
}

/// Shares of the planned capacity that are offered, with arrivals that the plan has not seen.
const WITHIN: f64 = 0.8;
const BEYOND: f64 = 1.3;
/// Tokens of a prompt and of an answer.
const PROMPT: usize = 256;
const OUTPUT: usize = 128;

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let server = product.start(&[])?;
    let url = format!("http://{}/v1", server.address);
    let planned = plan(product, &url, options)?;
    let mut report = Report::new("capacity");
    report.note("goal: p95 of first tokens", options.ttft_p95, "ms");
    report.note("planned: held", planned, "requests/s");
    let within = offer(&url, planned * WITHIN, options)?;
    let beyond = offer(&url, planned * BEYOND, options)?;
    for (share, summary) in [(WITHIN, &within), (BEYOND, &beyond)] {
        let name = format!("{share} of that: done");
        report.note(name, summary.requests_per_s, "requests/s");
    }
    let goal = options.ttft_p95;
    let name = format!("{WITHIN} of that: p95 of first tokens");
    report.at_most(&name, within.ttft_ms.p95, goal, "ms");
    let name = format!("{BEYOND} of that: p95 of first tokens");
    report.at_least(&name, beyond.ttft_ms.p95, goal, "ms");
    Ok(report)
}

/// Requests a second that the server holds, as `understudy plan` says.
fn plan(product: &Product, url: &str, options: &Options) -> Result<f64> {
    let mut command = Command::new(&product.binary);
    command.args(["plan", "--as-json", "--users", "100", "--base-url", url]);
    command.args(["--ttft-p95", &options.ttft_p95.to_string()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--prompt-tokens", &PROMPT.to_string()]);
    command.args(["--output-tokens", &OUTPUT.to_string()]);
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "understudy plan: {told}");
    let plan: Value = serde_json::from_slice(&output.stdout)?;
    let capacity = &plan["capacity"];
    let held = capacity["held"].as_f64();
    let held = held.context("a plan without a capacity")?;
    let is_found = held > 0.0 && capacity["is_at_least"] == false;
    ensure!(is_found, "no load meets the goal, or all do: {capacity}");
    Ok(held)
}

/// Poisson arrivals of the plan's work at a rate.
fn offer(url: &str, rate: f64, options: &Options) -> Result<Summary> {
    let mut args = BenchArgs::defaults();
    url.clone_into(&mut args.base_url);
    args.endpoint = Endpoint::Completions;
    args.work.prompt_tokens = Length::Fixed(PROMPT);
    args.work.output_tokens = Length::Fixed(OUTPUT);
    args.when.seed = 2;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive count"
    )]
    let n_requests = (rate * options.seconds * 2.0).ceil() as usize;
    args.when.requests = n_requests;
    let measured = load::runtime()?.block_on(async {
        let bench = Bench::new(args).await?;
        let arrivals = Arrivals::Gamma { rate, shape: 1.0 };
        Ok::<_, load::LoadError>(bench.measure(&arrivals, 1).await)
    })?;
    let summary = measured.summary;
    ensure!(summary.n_failed == 0, "failed: {:?}", summary.errors);
    Ok(summary)
}
