//! The same requests in different company: the same bytes?

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::http::Client;
use crate::report::Report;
use crate::server::Product;
use crate::traffic::{Rng, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 50)]
    requests: usize,
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Blocks of the pool that is too small.
    #[arg(long, default_value_t = 40)]
    tiny_blocks: u32,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let server = product.start(&["--max-model-len", "256"])?;
    let client = server.client();
    let bodies = bodies(&model_name(&client)?, options.requests);
    let alone = ask(&client, &bodies, 1)?;
    let warm = ask(&client, &bodies, 1)?;
    let warm_hits = client.metric("understudy_cached_prompt_tokens_total")?;
    let tiny_bytes = (server.bytes_per_block * (f64::from(options.tiny_blocks) + 0.5)).floor();
    drop(server);
    let server = product.start(&["--max-model-len", "256"])?;
    let together = ask(&server.client(), &bodies, options.concurrency)?;
    drop(server);
    let tiny_bytes = tiny_bytes.to_string();
    let flags = ["--max-model-len", "256", "--kv-cache-memory", &tiny_bytes];
    let server = product.start(&flags)?;
    let tiny_client = server.client();
    let tiny = ask(&tiny_client, &bodies, options.concurrency)?;
    let preemptions = tiny_client.metric("understudy_preemptions_total")?;
    let mut report = Report::new("invariance");
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        report.note("requests", bodies.len() as f64, "");
        report.note("blocks of the tiny pool", server.n_blocks as f64, "");
    }
    report.at_least("preemptions in the tiny pool", preemptions, 1.0, "");
    report.at_least("tokens found by the warm run", warm_hits, 1.0, "tokens");
    for (what, answers) in [
        ("answers that differ, warm cache", &warm),
        ("answers that differ, all at once", &together),
        ("answers that differ, tiny pool with preemption", &tiny),
    ] {
        let n_different = answers.iter().zip(&alone).filter(|(a, b)| a != b).count();
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        report.at_most(what, n_different as f64, 0.0, "");
    }
    Ok(report)
}

/// Requests of many kinds; every third begins like the one before it.
fn bodies(model: &str, n: usize) -> Vec<Value> {
    let mut rng = Rng(5);
    let mut prompt = Vec::new();
    (0..n)
        .map(|i| {
            if i % 3 == 2 {
                prompt.truncate(48);
                prompt.extend(rng.tokens(20));
            } else {
                prompt = rng.tokens(50 + i % 90);
            }
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let temperature = (i % 5) as f64 * 0.3;
            json!({
                "model": model,
                "prompt": prompt,
                "max_tokens": 32 + i % 64,
                "ignore_eos": true,
                "seed": i,
                "temperature": temperature,
                "top_p": if i % 2 == 0 { 1.0 } else { 0.9 },
                "frequency_penalty": if i % 7 == 0 { 0.5 } else { 0.0 },
                "logprobs": 2,
                "n": if i % 10 == 0 { 2 } else { 1 },
            })
        })
        .collect()
}

/// The choices of all requests as text, log-probabilities included.
fn ask(client: &Client, bodies: &[Value], concurrency: usize) -> Result<Vec<String>> {
    let next = AtomicUsize::new(0);
    let mut answers = vec![String::new(); bodies.len()];
    let done = std::thread::scope(|scope| -> Result<Vec<(usize, String)>> {
        let workers: Vec<_> = (0..concurrency)
            .map(|_| scope.spawn(|| work(client, bodies, &next)))
            .collect();
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(done)
    })?;
    for (i, answer) in done {
        answers[i] = answer;
    }
    Ok(answers)
}

fn work(client: &Client, bodies: &[Value], next: &AtomicUsize) -> Result<Vec<(usize, String)>> {
    let mut done = Vec::new();
    loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        let Some(body) = bodies.get(i) else {
            return Ok(done);
        };
        let answer = client.post("/v1/completions", body)?;
        ensure!(answer.status == 200, "{}", answer.body);
        done.push((i, answer.json()?["choices"].to_string()));
    }
}
