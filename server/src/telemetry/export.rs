//! The way of spans to a collector: a thread of its own that sends them in batches. A collector
//! that is slow or gone costs spans, never requests.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use metrics::Counter;

use super::otlp::{self, Call};

/// Requests that wait to be sent; more are dropped.
const QUEUE: usize = 4096;
/// Requests of one export, and the time that they are collected for.
const BATCH: usize = 256;
const COLLECT: Duration = Duration::from_secs(1);
/// Time for an export.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An endpoint that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--otlp-endpoint is `{endpoint}`; expected an address such as http://localhost:4318")]
pub struct TraceError {
    endpoint: String,
}

/// Where spans go; clones go the same way. The thread ends when all are gone.
#[derive(Clone, Debug)]
pub struct Traces {
    calls: SyncSender<Call>,
    dropped: Counter,
}

impl Traces {
    /// Checks an endpoint, to which `/v1/traces` is added.
    pub fn url(endpoint: &str) -> Result<String, TraceError> {
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| endpoint.strip_prefix(scheme));
        match rest {
            Some(rest) if !rest.is_empty() => {
                Ok(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            }
            _ => Err(TraceError {
                endpoint: endpoint.to_owned(),
            }),
        }
    }

    /// Starts the thread. `sent` and `dropped` count requests.
    pub fn start(url: String, sent: Counter, dropped: Counter) -> std::io::Result<Self> {
        let (calls, receiver) = sync_channel(QUEUE);
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || export(&url, &receiver, &sent, &lost))?;
        Ok(Self { calls, dropped })
    }

    pub(crate) fn send(&self, call: Call) {
        if self.calls.try_send(call).is_err() {
            self.dropped.increment(1);
        }
    }
}

fn export(url: &str, calls: &Receiver<Call>, sent: &Counter, dropped: &Counter) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .build()
        .new_agent();
    // Until all senders are gone.
    while let Ok(first) = calls.recv() {
        let mut batch = vec![first];
        let end = Instant::now() + COLLECT;
        let mut is_over = false;
        while batch.len() < BATCH {
            let left = end.saturating_duration_since(Instant::now());
            match calls.recv_timeout(left) {
                Ok(call) => batch.push(call),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    is_over = true;
                    break;
                }
            }
        }
        let n = batch.len() as u64;
        let body = otlp::body(&batch).to_string();
        let post = agent.post(url).header("content-type", "application/json");
        match post.send(body) {
            Ok(_) => sent.increment(n),
            Err(error) => {
                dropped.increment(n);
                tracing::warn!(%error, url, n, "spans could not be sent");
            }
        }
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses() {
        let url = Traces::url("http://localhost:4318/").unwrap();
        assert_eq!(url, "http://localhost:4318/v1/traces");
        for wrong in ["localhost:4318", "http://", "grpc://x"] {
            assert!(Traces::url(wrong).is_err(), "{wrong}");
        }
    }
}
