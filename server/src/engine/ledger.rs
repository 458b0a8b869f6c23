//! Requests that the engine has taken on: where their events go, when they end at the latest,
//! and how long they took.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use scheduler::{Batch, Event, FinishReason, RequestId, SequenceId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::queue::{Place, Queue};
use super::{Deadline, EngineError, Submission};
use crate::adapters::LeaseInUse;
use crate::metrics::{FlowMetrics, Metrics};
use crate::telemetry::Timeline;
use crate::tenant::Tenant;

type Events = UnboundedSender<Result<Event, EngineError>>;

/// All unfinished requests.
pub(super) struct Ledger {
    entries: HashMap<RequestId, Entry>,
    /// Deadlines, and ends of waiting. Those of requests that are gone stay until they pass.
    limits: BTreeSet<(Instant, RequestId)>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

pub(super) struct Entry {
    events: Events,
    submitted: Instant,
    n_prompt: u64,
    /// `None` once a step has worked on it.
    place: Option<Place>,
    /// When it is given up if it still waits.
    patience_ends: Option<Instant>,
    deadline: Option<Deadline>,
    /// Sequences that have not finished.
    n_open: u32,
    /// When each choice drew its last token.
    last_token: Vec<Option<Instant>>,
    flow_metrics: FlowMetrics,
    tenant: Tenant,
    /// Batches may name its id until the request is gone.
    lease: Option<LeaseInUse>,
    timeline: Option<Arc<Timeline>>,
    n_generated: u64,
}

impl Entry {
    pub(super) fn n_sequences(&self) -> u32 {
        u32::try_from(self.last_token.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn submitted(&self) -> Instant {
        self.submitted
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(super) fn adapter(&self) -> Option<String> {
        self.lease.as_ref().map(|lease| lease.label().to_string())
    }

    /// What its client knows it by, if a client waits for it.
    pub(super) fn request_id(&self) -> Option<String> {
        let timeline = self.timeline.as_ref()?;
        Some(timeline.request_id().to_owned())
    }

    pub(super) fn n_prompt(&self) -> u64 {
        self.n_prompt
    }

    pub(super) fn n_generated(&self) -> u64 {
        self.n_generated
    }
}

impl Ledger {
    pub(super) fn new(queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        Self {
            entries: HashMap::new(),
            limits: BTreeSet::new(),
            queue,
            metrics,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (RequestId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.entries.keys().copied().collect()
    }

    /// Takes a request on, without what is for the scheduler.
    pub(super) fn open(
        &mut self,
        submission: Submission,
    ) -> (scheduler::Request, Option<crate::grammar::Constraint>) {
        let Submission {
            request,
            constraint,
            events,
            submitted,
            place,
            tenant,
            deadline,
            lease,
            timeline,
        } = submission;
        let patience_ends = self.queue.timeout().map(|timeout| submitted + timeout);
        let flow_metrics = self
            .metrics
            .of_flow(tenant.label(), lease.as_ref().map(|lease| &**lease.label()));
        let entry = Entry {
            events,
            submitted,
            n_prompt: request.prompt.len() as u64,
            place: Some(place),
            patience_ends,
            deadline,
            n_open: request.n,
            last_token: vec![None; request.n as usize],
            flow_metrics,
            tenant,
            lease: lease.map(LeaseInUse::waiting),
            timeline,
            n_generated: 0,
        };
        let ends = [patience_ends, deadline.map(|deadline| deadline.at)];
        let ends = ends.into_iter().flatten();
        self.limits.extend(ends.map(|end| (end, request.id)));
        self.entries.insert(request.id, entry);
        (request, constraint)
    }

    /// Requests whose time is over at `now`.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(RequestId, EngineError)> {
        let mut overdue = Vec::new();
        while let Some(&(end, id)) = self.limits.first() {
            if end > now {
                break;
            }
            self.limits.pop_first();
            let is_new = overdue.last().is_none_or(|(last, _)| *last != id);
            if let Some(error) = self.entries.get(&id).and_then(|e| self.reason(e, now))
                && is_new
            {
                overdue.push((id, error));
            }
        }
        overdue
    }

    fn reason(&self, entry: &Entry, now: Instant) -> Option<EngineError> {
        if let Some(deadline) = entry.deadline.filter(|deadline| deadline.at <= now) {
            let timeout = deadline.timeout;
            return Some(EngineError::DeadlineExceeded { timeout });
        }
        let is_waiting = entry.place.is_some();
        let is_impatient = entry.patience_ends.is_some_and(|end| end <= now);
        (is_waiting && is_impatient).then(|| EngineError::QueueTimeout {
            timeout: self.queue.timeout().unwrap_or_default(),
            retry_after: self.queue.retry_after(),
        })
    }

    /// Ends a request with an error.
    pub(super) fn fail(&mut self, request: RequestId, error: EngineError) {
        let Some(entry) = self.remove(request) else {
            return;
        };
        let reason = match error {
            EngineError::QueueTimeout { .. } => "queue_timeout",
            EngineError::DeadlineExceeded { .. } => "deadline",
            _ => "refused",
        };
        self.metrics.count_finished(reason, entry.n_open);
        if entry.events.send(Err(error)).is_err() {
            tracing::debug!(%request, "a request that ends is gone already");
        }
    }

    /// The client is gone: nothing is delivered any more.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(entry) = self.remove(request) {
            self.metrics.count_finished("cancelled", entry.n_open);
        }
    }

    fn remove(&mut self, request: RequestId) -> Option<Entry> {
        let entry = self.entries.remove(&request)?;
        let ends = [entry.patience_ends, entry.deadline.map(|d| d.at)];
        for end in ends.into_iter().flatten() {
            self.limits.remove(&(end, request));
        }
        Some(entry)
    }

    /// Notes which requests are worked on for the first time.
    pub(super) fn note_started(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let Some(entry) = self.entries.get_mut(&row.sequence.request) else {
                continue;
            };
            if let Some(place) = entry.place.take() {
                place.start();
                if let Some(timeline) = &entry.timeline {
                    timeline.note_started();
                }
                entry.lease.as_mut().map(LeaseInUse::start);
                self.metrics.queue.record(entry.submitted.elapsed());
                self.metrics.prompt_tokens.increment(entry.n_prompt);
                entry.flow_metrics.prompt_tokens.increment(entry.n_prompt);
            }
        }
    }

    /// Hands events to their requests.
    pub(super) fn deliver(&mut self, events: Vec<Event>) {
        let now = Instant::now();
        for event in events {
            match &event {
                Event::PromptScored { .. } | Event::Pooled { .. } => {}
                Event::Token { sequence, .. } => self.note_token(*sequence, now),
                Event::Finished {
                    sequence,
                    reason,
                    n_cached_tokens,
                    ..
                } => self.note_finished(*reason, sequence.request, *n_cached_tokens, now),
            }
            let request = match &event {
                Event::PromptScored { request, .. } | Event::Pooled { request, .. } => *request,
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
            self.remove(request);
        } else if is_gone {
            tracing::trace!(%request, "nobody listens");
        }
    }

    fn note_token(&mut self, sequence: SequenceId, now: Instant) {
        self.metrics.generated_tokens.increment(1);
        let Some(entry) = self.entries.get_mut(&sequence.request) else {
            return;
        };
        entry.flow_metrics.generated_tokens.increment(1);
        entry.tenant.charge_token();
        entry.n_generated += 1;
        if let Some(timeline) = &entry.timeline {
            timeline.note_token(now);
        }
        let last = &mut entry.last_token[sequence.index as usize];
        match last {
            None => {
                let waited = now.duration_since(entry.submitted);
                self.metrics.time_to_first_token.record(waited);
                entry.flow_metrics.time_to_first_token.record(waited);
            }
            Some(last) => self.metrics.inter_token.record(now.duration_since(*last)),
        }
        *last = Some(now);
    }

    fn note_finished(&self, reason: FinishReason, request: RequestId, n_cached: u32, now: Instant) {
        let Some(entry) = self.entries.get(&request) else {
            return;
        };
        if let Some(timeline) = &entry.timeline {
            timeline.note_cached(n_cached);
        }
        let reason = match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Failed => "failed",
        };
        self.metrics.count_finished(reason, 1);
        if entry.n_open == 1 {
            let took = now.duration_since(entry.submitted);
            self.metrics.end_to_end.record(took);
        }
    }
}
