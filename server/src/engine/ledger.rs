//! Requests that the engine has taken on: where their events go, and how long they took.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use scheduler::{Batch, Event, FinishReason, RequestId, SequenceId};
use tokio::sync::mpsc::UnboundedSender;

use super::EngineError;
use crate::metrics::Metrics;

type Events = UnboundedSender<Result<Event, EngineError>>;

/// All unfinished requests.
pub(super) struct Ledger {
    entries: HashMap<RequestId, Entry>,
    n_queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

struct Entry {
    events: Events,
    submitted: Instant,
    n_prompt: u64,
    /// Whether a step has worked on it.
    is_started: bool,
    /// Sequences that have not finished.
    n_open: u32,
    /// When each choice drew its last token.
    last_token: Vec<Option<Instant>>,
}

impl Ledger {
    pub(super) fn new(n_queued: Arc<AtomicUsize>, metrics: Arc<Metrics>) -> Self {
        Self {
            entries: HashMap::new(),
            n_queued,
            metrics,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests that no step has worked on yet.
    pub(super) fn n_queued(&self) -> usize {
        self.n_queued.load(Ordering::Acquire)
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn open(
        &mut self,
        request: &scheduler::Request,
        events: Events,
        submitted: Instant,
    ) {
        let entry = Entry {
            events,
            submitted,
            n_prompt: request.prompt.len() as u64,
            is_started: false,
            n_open: request.n,
            last_token: vec![None; request.n as usize],
        };
        self.entries.insert(request.id, entry);
    }

    /// Gives up the place in the queue of a request that was never opened.
    pub(super) fn leave_queue(&self) {
        self.n_queued.fetch_sub(1, Ordering::AcqRel);
    }

    /// The client is gone: nothing is delivered any more.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(entry) = self.entries.remove(&request) {
            if !entry.is_started {
                self.leave_queue();
            }
            for _ in 0..entry.n_open {
                self.metrics.count_finished("cancelled");
            }
        }
    }

    /// Notes which requests are worked on for the first time.
    pub(super) fn note_started(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let Some(entry) = self.entries.get_mut(&row.sequence.request) else {
                continue;
            };
            if !entry.is_started {
                entry.is_started = true;
                self.n_queued.fetch_sub(1, Ordering::AcqRel);
                self.metrics.queue.record(entry.submitted.elapsed());
                self.metrics.prompt_tokens.increment(entry.n_prompt);
            }
        }
    }

    /// Hands events to their requests.
    pub(super) fn deliver(&mut self, events: Vec<Event>) {
        let now = Instant::now();
        for event in events {
            match &event {
                Event::PromptScored { .. } => {}
                Event::Token { sequence, .. } => self.note_token(*sequence, now),
                Event::Finished {
                    sequence, reason, ..
                } => self.note_finished(*reason, sequence.request, now),
            }
            let request = match &event {
                Event::PromptScored { request, .. } => *request,
                Event::Token { sequence, .. } | Event::Finished { sequence, .. } => {
                    sequence.request
                }
            };
            self.send(request, event);
        }
    }

    fn send(&mut self, request: RequestId, event: Event) {
        let Some(entry) = self.entries.get_mut(&request) else {
            return;
        };
        if matches!(event, Event::Finished { .. }) {
            entry.n_open -= 1;
        }
        // A receiver that is gone has sent its cancellation already.
        let is_gone = entry.events.send(Ok(event)).is_err();
        if entry.n_open == 0 {
            let is_started = entry.is_started;
            self.entries.remove(&request);
            if !is_started {
                self.leave_queue();
            }
        } else if is_gone {
            tracing::trace!(%request, "nobody listens");
        }
    }

    fn note_token(&mut self, sequence: SequenceId, now: Instant) {
        self.metrics.generated_tokens.increment(1);
        let Some(entry) = self.entries.get_mut(&sequence.request) else {
            return;
        };
        let last = &mut entry.last_token[sequence.index as usize];
        match last {
            None => {
                let waited = now.duration_since(entry.submitted);
                self.metrics.time_to_first_token.record(waited);
            }
            Some(last) => self.metrics.inter_token.record(now.duration_since(*last)),
        }
        *last = Some(now);
    }

    fn note_finished(&self, reason: FinishReason, request: RequestId, now: Instant) {
        let Some(entry) = self.entries.get(&request) else {
            return;
        };
        self.metrics.count_finished(match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Failed => "failed",
        });
        if entry.n_open == 1 {
            let took = now.duration_since(entry.submitted);
            self.metrics.end_to_end.record(took);
        }
    }
}
