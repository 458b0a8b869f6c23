//! One tenant with many requests, and another with few.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::http::Client;
use crate::report::{Report, ms, quantile};
use crate::server::{Product, Server};
use crate::traffic::{Rng, completion, model_name};

/// Requests of the second tenant.
const N_FEW: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Requests of the first tenant.
    #[arg(long, default_value_t = 50)]
    many: usize,
    /// Tokens of every prompt.
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// Tokens of every answer.
    #[arg(long, default_value_t = 32)]
    answer: usize,
    /// Times that the whole is done.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let keys = ["--api-key", "many", "--api-key", "few"];
    let fair = product.start(&keys)?;
    let alone = rounds(&fair, options, false)?;
    let with = rounds(&fair, options, true)?;
    drop(fair);
    let unfair = product.start(&[&keys[..], &["--no-fairness"]].concat())?;
    let without = rounds(&unfair, options, true)?;
    let mut report = Report::new("fairness");
    for (name, times) in [
        ("alone", &alone),
        ("beside the other tenant", &with),
        ("the same with --no-fairness", &without),
    ] {
        report.note(format!("TTFT p50 {name}"), ms(quantile(times, 0.5)), "ms");
        report.note(format!("TTFT p95 {name}"), ms(quantile(times, 0.95)), "ms");
    }
    let base = quantile(&alone, 0.95).as_secs_f64();
    let ratio = |times: &[Duration]| quantile(times, 0.95).as_secs_f64() / base;
    report.at_most("p95 beside / alone", ratio(&with), 2.0, "x");
    report.note("p95 with --no-fairness / alone", ratio(&without), "x");
    Ok(report)
}

/// Times to the first token of the tenant with few requests.
fn rounds(server: &Server, options: &Options, is_crowded: bool) -> Result<Vec<Duration>> {
    let client = |key| Client {
        key: Some(key),
        ..server.client()
    };
    let (many, few) = (client("many"), client("few"));
    let model = model_name(&few)?;
    let mut rng = Rng(2);
    let mut times = Vec::new();
    // The first round warms the server up and does not count.
    for round in 0..=options.rounds {
        let mut send = |client: &Client, n| -> Vec<_> {
            let bodies =
                (0..n).map(|_| completion(&model, &rng.tokens(options.prompt), options.answer));
            bodies.map(|body| ask(client.clone(), body)).collect()
        };
        let crowd = send(&many, if is_crowded { options.many } else { 0 });
        // The crowd is there first.
        std::thread::sleep(Duration::from_millis(500));
        let own = join(send(&few, N_FEW))?;
        if round > 0 {
            times.extend(own);
        }
        join(crowd)?;
    }
    Ok(times)
}

fn ask(client: Client, body: serde_json::Value) -> JoinHandle<Result<Duration>> {
    std::thread::spawn(move || client.time_to_first_token(&body))
}

fn join(calls: Vec<JoinHandle<Result<Duration>>>) -> Result<Vec<Duration>> {
    let calls = calls.into_iter();
    calls
        .map(|call| call.join().map_err(|_| anyhow!("a client panicked"))?)
        .collect()
}
