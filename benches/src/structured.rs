//! What structured output costs: the same requests with a schema and without, in turn. Each round
//! has all kinds, beginning with another one, and is compared with itself only: a machine that
//! grows slower between rounds, or within one, tells nothing of grammars.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::http::Client;
use crate::report::Report;
use crate::server::Product;
use crate::traffic::model_name;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Requests at once.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Times that each kind is measured.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// Kinds of requests. None can end before its length.
fn kinds() -> Vec<(&'static str, Value)> {
    let person = json!({"type": "object", "additionalProperties": false,
        "required": ["name", "age", "tags", "kind"], "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["customer", "supplier", "both"]}}});
    let people = json!({"type": "array", "items": person, "minItems": 500});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "people", "schema": people}});
    vec![
        ("without", json!({"ignore_eos": true})),
        ("schema", json!({"response_format": format})),
        ("regex", json!({"regex": "([a-z]+ ){500}"})),
    ]
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let server = product.start(&[])?;
    let client = server.client();
    let model = model_name(&client)?;
    let kinds = kinds();
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    // The first round builds what is built once.
    for round in 0..=options.rounds {
        for i in 0..kinds.len() {
            let kind = (round + i) % kinds.len();
            let rate = measure(&client, &model, &kinds[kind].1, options, round)?;
            if round > 0 {
                rates[kind].push(rate);
            }
        }
    }
    let mut report = Report::new("structured");
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        report.note("requests at once", options.concurrency as f64, "");
        report.note("rounds", options.rounds as f64, "");
    }
    report.note("without", quantile(&rates[0], 0.5), "tokens/s");
    for ((name, _), with) in kinds.iter().zip(&rates).skip(1) {
        report.note(format!("with a {name}"), quantile(with, 0.5), "tokens/s");
        let ratios = with.iter().zip(&rates[0]);
        let ratios: Vec<f64> = ratios.map(|(with, without)| with / without).collect();
        let name = format!("{name} / without");
        for (what, q) in [("least", 0.0), ("quarter", 0.25), ("three quarters", 0.75)] {
            report.note(format!("{name}, {what}"), quantile(&ratios, q), "x");
        }
        let median = quantile(&ratios, 0.5);
        report.at_least(&format!("{name}, median of rounds"), median, 0.9, "x");
    }
    Ok(report)
}

/// Tokens a second of one round.
fn measure(
    client: &Client,
    model: &str,
    more: &Value,
    options: &Options,
    round: usize,
) -> Result<f64> {
    let started = Instant::now();
    let clients: Vec<_> = (0..options.concurrency)
        .map(|i| {
            let mut body = json!({"model": model, "max_tokens": options.tokens, "temperature": 0.8,
                "seed": round * options.concurrency + i,
                "messages": [{"role": "user", "content": format!("Describe group {i} of people.")}]});
            for (name, value) in more.as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            let client = client.clone();
            std::thread::spawn(move || tokens(&client, &body))
        })
        .collect();
    let mut n_tokens = 0;
    for client in clients {
        n_tokens += client.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    let took: Duration = started.elapsed();
    ensure!(
        n_tokens == (options.concurrency * options.tokens) as u64,
        "{n_tokens} tokens came"
    );
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    Ok(n_tokens as f64 / took.as_secs_f64())
}

fn tokens(client: &Client, body: &Value) -> Result<u64> {
    let answer = client.post("/v1/chat/completions", body)?;
    ensure!(
        answer.status == 200,
        "status {}: {}",
        answer.status,
        answer.body
    );
    let usage = &answer.json()?["usage"]["completion_tokens"];
    usage.as_u64().context("no usage")
}

/// Of few values: the nearest one.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small counts"
    )]
    let nearest = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(nearest).copied().unwrap_or_default()
}
