//! Far more requests than can be served: what is served still, and how the rest is refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::http::{Answer, Client};
use crate::report::{Report, ms, quantile};
use crate::server::{Product, Server};
use crate::traffic::{Rng, completion, model_name};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Times the measured peak.
    #[arg(long, default_value_t = 10.0)]
    factor: f64,
    /// Seconds of overload.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds in which the peak is measured, before the overload and after it.
    #[arg(long, default_value_t = 20)]
    peak_seconds: u64,
    /// Tokens of every prompt, and of every answer.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
}

/// Sequences that run at a time, and requests that may wait. The KV cache is so small that all of
/// it has been written to when memory is first looked at.
const FLAGS: [&str; 8] = [
    "--max-num-seqs",
    "32",
    "--max-queued-requests",
    "32",
    "--max-model-len",
    "2048",
    "--kv-cache-memory",
    "128MiB",
];
/// Clients that together keep the server just busy.
const N_CLIENTS: usize = 48;

/// What came of all requests.
#[derive(Debug, Default)]
struct Seen {
    /// When each was served.
    served: Vec<Instant>,
    refused: Vec<Duration>,
    /// Refusals that lack something, and everything that is neither.
    malformed: Vec<String>,
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    let server = product.start(&FLAGS)?;
    let client = server.client();
    let body = Body {
        model: model_name(&client)?,
        n_tokens: options.tokens,
    };
    let peak_time = Duration::from_secs(options.peak_seconds);
    let peak_before = peak(&client, &body, peak_time)?;
    let before = server.resident_mib();
    let offered = peak_before * options.factor;
    let (seen, window) = overload(&client, &body, offered, options.seconds)?;
    let left = Server::gauges_left(&client, Duration::from_secs(30))?;
    let after = server.resident_mib();
    // Once more, so that a machine that becomes slower or faster meanwhile does not decide.
    let peak_after = peak(&client, &body, peak_time)?;
    let peak = f64::midpoint(peak_before, peak_after);
    let (begin, end) = window;
    let n_served = seen
        .served
        .iter()
        .filter(|t| **t >= begin && **t < end)
        .count();
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let (goodput, n_left) = (
        n_served as f64 / (end - begin).as_secs_f64(),
        left.len() as f64,
    );
    let mut report = Report::new("overload");
    report.note("peak before", peak_before, "requests/s");
    report.note("peak after", peak_after, "requests/s");
    report.note("offered", offered, "requests/s");
    report.note("served under overload", goodput, "requests/s");
    report.at_least("served / peak", goodput / peak, 0.9, "x");
    report_refusals(&mut report, &seen);
    if let (Some(before), Some(after)) = (before, after) {
        report.note("resident memory before", before, "MiB");
        report.note("resident memory after", after, "MiB");
        report.at_most("growth", after / before, 1.05, "x");
    }
    report.at_most("gauges that are not zero afterwards", n_left, 0.0, "");
    if let Some(first) = seen.malformed.first() {
        anyhow::bail!("{first}");
    }
    Ok(report)
}

fn report_refusals(report: &mut Report, seen: &Seen) {
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let (n_refused, n_malformed) = (seen.refused.len() as f64, seen.malformed.len() as f64);
    report.note("refused", n_refused, "requests");
    report.at_most(
        "refusals that are not well-formed",
        n_malformed,
        0.0,
        "requests",
    );
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let took = ms(quantile(&seen.refused, q));
        report.note(format!("refused within, {name}"), took, "ms");
    }
    let slowest = ms(quantile(&seen.refused, 1.0));
    report.at_most("refused within, max", slowest, 50.0, "ms");
}

#[derive(Clone, Debug)]
struct Body {
    model: String,
    n_tokens: usize,
}

impl Body {
    fn draw(&self, rng: &mut Rng) -> Value {
        let mut body = completion(&self.model, &rng.tokens(self.n_tokens), self.n_tokens);
        body["stream"] = false.into();
        body
    }
}

/// Requests a second that clients get served who wait for their answers.
fn peak(client: &Client, body: &Body, time: Duration) -> Result<f64> {
    let n_served = AtomicUsize::new(0);
    // The first seconds fill the rows.
    let begin = Instant::now() + Duration::from_secs(5);
    let end = begin + time;
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..N_CLIENTS)
            .map(|seed| {
                let n_served = &n_served;
                scope.spawn(move || -> Result<()> {
                    let mut rng = Rng(100 + seed as u64);
                    while Instant::now() < end {
                        let answer = client.post("/v1/completions", &body.draw(&mut rng))?;
                        let now = Instant::now();
                        if answer.status == 200 && now >= begin && now < end {
                            n_served.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n_served = n_served.load(Ordering::Relaxed) as f64;
    Ok(n_served / time.as_secs_f64())
}

/// Sends `rate` requests a second, whatever comes of them, and waits for all answers. Returns
/// as well the window in which the server was under load from the first full second on.
fn overload(
    client: &Client,
    body: &Body,
    rate: f64,
    seconds: u64,
) -> Result<(Seen, (Instant, Instant))> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut calls = Vec::new();
    let mut rng = Rng(7);
    let mut next = start;
    while next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let (client, body, seen) = (client.clone(), body.draw(&mut rng), Arc::clone(&seen));
        calls.push(std::thread::spawn(move || {
            let answer = client.post("/v1/completions", &body);
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(answer);
        }));
        next += Duration::from_secs_f64(1.0 / rate);
    }
    for call in calls {
        call.join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))?;
    }
    let seen = Arc::try_unwrap(seen)
        .ok()
        .context("all clients have ended")?;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The first answers come after one answer's time.
    let warm = start + Duration::from_secs(seconds.min(50) / 5);
    Ok((seen, (warm, end)))
}

impl Seen {
    fn add(&mut self, answer: Result<Answer>) {
        match answer {
            Ok(answer) if answer.status == 200 => self.served.push(Instant::now()),
            Ok(answer) => match check_refusal(&answer) {
                Ok(()) => self.refused.push(answer.took),
                Err(error) => self.malformed.push(format!("{error:#}: {answer:?}")),
            },
            Err(error) => self.malformed.push(format!("{error:#}")),
        }
    }
}

/// A 429 that an SDK understands: an error object, and when to come back.
fn check_refusal(answer: &Answer) -> Result<()> {
    anyhow::ensure!(answer.status == 429, "neither served nor refused");
    let error = &answer.json()?["error"];
    anyhow::ensure!(error["code"] == "rate_limit_exceeded" && error["message"].is_string());
    let number = |name: &str| -> Result<u64> {
        let value = answer.header(name).with_context(|| format!("no {name}"))?;
        Ok(value.parse()?)
    };
    let (seconds, ms) = (number("retry-after")?, number("retry-after-ms")?);
    anyhow::ensure!((1..=120).contains(&seconds) && seconds == ms.div_ceil(1000));
    Ok(())
}
