//! Schemas and grammars that nobody should send, while others stream: is each refused in time,
//! and do the streams stutter?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tests::hostile::hostile;

use crate::http::Client;
use crate::report::{Report, ms, quantile};
use crate::server::Product;
use crate::streams::{Streams, gaps};
use crate::traffic::{Rng, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Streams that run.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Seconds of running alone that the gaps are compared with.
    #[arg(long, default_value_t = 10)]
    baseline: u64,
    /// Times that all are sent.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients that send them at once.
    #[arg(long, default_value_t = 1)]
    senders: usize,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let server = product.start(&[])?;
    let client = server.client();
    let model = model_name(&client)?;
    // The tables of the tokenizer are built by the first grammar, hostile or not.
    client.post(
        "/v1/chat/completions",
        &request(&model, json!({"regex": "a"})),
    )?;
    let streams = Streams::start(&client, &model, options.streams, 32, &mut Rng(3))?;
    std::thread::sleep(Duration::from_secs(2));
    let quiet = Instant::now();
    std::thread::sleep(Duration::from_secs(options.baseline));
    let attack = Instant::now();
    let took = attack_by_all(&client, &model, options)?;
    let end = Instant::now();
    let times = streams.end()?;
    let (alone, beside) = (gaps(&times, quiet, attack), gaps(&times, attack, end));
    report(options, &took, &alone, &beside)
}

fn request(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "max_tokens": 4,
        "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// What was refused, by its name, and how long that took.
type Refused = (&'static str, Duration);

fn attack_by_all(client: &Client, model: &str, options: &Options) -> Result<Vec<Refused>> {
    let senders: Vec<_> = (0..options.senders)
        .map(|_| {
            let (client, model, rounds) = (client.clone(), model.to_owned(), options.rounds);
            std::thread::spawn(move || attack(&client, &model, rounds))
        })
        .collect();
    let mut took = Vec::new();
    for sender in senders {
        took.extend(sender.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    Ok(took)
}

fn attack(client: &Client, model: &str, rounds: usize) -> Result<Vec<Refused>> {
    let mut took = Vec::new();
    let mut wrong = Vec::new();
    for _ in 0..rounds {
        for one in hostile() {
            let answer = client.post("/v1/chat/completions", &request(model, one.parameters))?;
            let start: String = answer.body.chars().take(300).collect();
            if ![400, 429].contains(&answer.status) {
                wrong.push(format!("{}: status {}: {start}", one.name, answer.status));
            }
            took.push((one.name, answer.took));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "not refused: {wrong:#?}");
    Ok(took)
}

fn report(
    options: &Options,
    took: &[Refused],
    alone: &[Duration],
    beside: &[Duration],
) -> Result<Report> {
    let mut report = Report::new("hostile");
    let times: Vec<Duration> = took.iter().map(|(_, took)| *took).collect();
    let (slowest, longest) = took
        .iter()
        .max_by_key(|(_, took)| *took)
        .context("nothing was sent")?;
    alone.first().context("no stream ran alone")?;
    beside.first().context("no stream ran beside")?;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        report.note("hostile requests", took.len() as f64, "");
        report.note("streams", options.streams as f64, "");
    }
    report.note("refused after p50", ms(quantile(&times, 0.5)), "ms");
    report.note("refused after p99", ms(quantile(&times, 0.99)), "ms");
    report.at_most(&format!("slowest: {slowest}"), ms(*longest), 2_000.0, "ms");
    let mut slow: Vec<&Refused> = took.iter().collect();
    slow.sort_unstable_by_key(|(_, took)| std::cmp::Reverse(*took));
    slow.dedup_by_key(|(name, _)| *name);
    for (name, took) in slow.into_iter().take(5) {
        report.note(format!("  {name}"), ms(*took), "ms");
    }
    for (what, q) in [("p50", 0.5), ("p99", 0.99)] {
        let (before, during) = (quantile(alone, q), quantile(beside, q));
        report.note(format!("gap {what} alone"), ms(before), "ms");
        report.note(format!("gap {what} beside"), ms(during), "ms");
        let ratio = during.as_secs_f64() / before.as_secs_f64();
        report.at_most(&format!("gap {what}: beside / alone"), ratio, 2.0, "x");
    }
    Ok(report)
}
