//! Streams that run on while something else is measured beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;

use crate::http::Client;
use crate::traffic::{Rng, completion, plain_token};

/// Tokens of an answer that outlasts what is measured; its connection is closed after that.
const LONG: usize = 7_000;

#[derive(Debug)]
pub(crate) struct Streams {
    all: Vec<JoinHandle<Result<Vec<Instant>>>>,
    stop: Arc<AtomicBool>,
}

impl Streams {
    /// `n` streams after prompts of `n_prompt` tokens, each event of one token.
    pub(crate) fn start(
        client: &Client,
        model: &str,
        n: usize,
        n_prompt: usize,
        rng: &mut Rng,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let token = plain_token(client, model)?;
        let all = (0..n).map(|_| {
            let mut body = completion(model, &rng.tokens(n_prompt), LONG);
            body["logit_bias"] = json!({ token.as_str(): 100 });
            follow(client.clone(), body, Arc::clone(&stop))
        });
        Ok(Self {
            all: all.collect(),
            stop,
        })
    }

    /// Set when the streams are told to stop.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// The times of the events of each.
    pub(crate) fn end(self) -> Result<Vec<Vec<Instant>>> {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.all.into_iter();
        all.map(|stream| stream.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect()
    }
}

/// The times of a stream's events, until told to stop.
fn follow(
    client: Client,
    body: serde_json::Value,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Result<Vec<Instant>>> {
    std::thread::spawn(move || {
        let mut times = Vec::new();
        for event in client.stream(&body)? {
            times.push(event?);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(times)
    })
}

/// Times between events of one stream, for those that end within a window.
pub(crate) fn gaps(streams: &[Vec<Instant>], from: Instant, to: Instant) -> Vec<Duration> {
    let pairs = streams.iter().flat_map(|times| times.windows(2));
    let within = pairs.filter(|pair| pair[1] >= from && pair[1] < to);
    within.map(|pair| pair[1] - pair[0]).collect()
}
