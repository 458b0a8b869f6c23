//! What the server measures. Names are an enum; the recorder belongs to one server, so that
//! several can run in one process.

mod alias;
mod closed;
#[cfg(test)]
mod deployed;
mod name;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::adapters::AdaptersInUse;
use crate::auth::LimitKind;
pub use alias::Served;
use name::{Kind, Name};

/// Seconds, from a fast token to a slow answer.
const LATENCY_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Tokens of one step.
const TOKEN_BUCKETS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];

const METADATA: Metadata<'static> = Metadata::new("understudy", Level::INFO, None);

/// The metrics of one server.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    served: Arc<Mutex<Vec<Served>>>,
    /// Label of all series of an engine, where there are several models.
    model: Option<String>,
    pub running_sequences: Gauge,
    pub waiting_sequences: Gauge,
    pub running_tokens: Gauge,
    pub receiving_requests: Gauge,
    pub queued_requests: Gauge,
    pub queued_tokens: Gauge,
    pub kv_blocks: Gauge,
    pub kv_blocks_in_use: Gauge,
    pub kv_blocks_cached: Gauge,
    pub kv_usage: Gauge,
    pub prompt_tokens: Counter,
    pub queried_prompt_tokens: Counter,
    pub cached_prompt_tokens: Counter,
    pub generated_tokens: Counter,
    pub embedded_texts: Counter,
    pub embedded_tokens: Counter,
    pub preemptions: Counter,
    pub lost_tokens: Counter,
    pub forced_tokens: Counter,
    pub steps_ahead: Counter,
    pub discarded_rows: Counter,
    pub overdue_turns: Counter,
    pub disconnects: Counter,
    pub failed_steps: Counter,
    pub failed_rows: Counter,
    pub failed_streams: Counter,
    pub time_to_first_token: Histogram,
    pub inter_token: Histogram,
    pub end_to_end: Histogram,
    pub queue: Histogram,
    pub step: Histogram,
    pub step_tokens: Histogram,
    pub adapter_hits: Counter,
    pub adapter_misses: Counter,
    pub adapter_evictions: Counter,
    pub adapter_failures: Counter,
    pub adapters_loaded: Gauge,
    pub adapter_bytes: Gauge,
    pub file_bytes: Gauge,
}

/// The limit that a request was refused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    Requests,
    Tokens,
    /// Of the key that asked.
    KeyRequests,
    KeyTokens,
    KeyQuota,
}

impl Rejection {
    const ALL: [Self; 5] = [
        Self::Requests,
        Self::Tokens,
        Self::KeyRequests,
        Self::KeyTokens,
        Self::KeyQuota,
    ];

    fn reason(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::KeyRequests => "key_requests",
            Self::KeyTokens => "key_tokens",
            Self::KeyQuota => "key_quota",
        }
    }

    /// A limit of a key.
    pub fn of(kind: LimitKind) -> Self {
        match kind {
            LimitKind::Requests => Self::KeyRequests,
            LimitKind::Tokens => Self::KeyTokens,
            LimitKind::Day => Self::KeyQuota,
        }
    }
}

/// What is measured for a tenant and an adapter. Tenants are as many as keys were given.
#[derive(Clone, Debug)]
pub struct FlowMetrics {
    pub prompt_tokens: Counter,
    pub generated_tokens: Counter,
    pub time_to_first_token: Histogram,
}

/// What is measured for an arm of an alias.
#[derive(Clone, Debug)]
pub struct ArmMetrics {
    pub requests: Counter,
    pub failures: Counter,
    pub generated_tokens: Counter,
    pub time_to_first_token: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A fresh set, all zero.
    pub fn new() -> Arc<Self> {
        Self::over(Arc::new(recorder()), Arc::default(), None)
    }

    /// The same of the first of several models, whose series have its name as label `model`.
    pub fn of_first(model: &str) -> Arc<Self> {
        Self::over(Arc::new(recorder()), Arc::default(), Some(model))
    }

    /// The series of another model, which are rendered with these. They go on where they were,
    /// if there were any.
    pub fn of_another(&self, model: &str) -> Arc<Self> {
        Self::over(
            Arc::clone(&self.recorder),
            Arc::clone(&self.served),
            Some(model),
        )
    }

    fn over(
        recorder: Arc<PrometheusRecorder>,
        served: Arc<Mutex<Vec<Served>>>,
        model: Option<&str>,
    ) -> Arc<Self> {
        let key = |name: Name| name.key_with(labels_of(model));
        let counter = |name: Name| recorder.register_counter(&key(name), &METADATA);
        let gauge = |name: Name| recorder.register_gauge(&key(name), &METADATA);
        let histogram = |name: Name| recorder.register_histogram(&key(name), &METADATA);
        let metrics = Self {
            running_sequences: gauge(Name::RunningSequences),
            waiting_sequences: gauge(Name::WaitingSequences),
            running_tokens: gauge(Name::RunningTokens),
            receiving_requests: gauge(Name::ReceivingRequests),
            queued_requests: gauge(Name::QueuedRequests),
            queued_tokens: gauge(Name::QueuedTokens),
            kv_blocks: gauge(Name::KvBlocks),
            kv_blocks_in_use: gauge(Name::KvBlocksInUse),
            kv_blocks_cached: gauge(Name::KvBlocksCached),
            kv_usage: gauge(Name::KvUsage),
            prompt_tokens: counter(Name::PromptTokens),
            queried_prompt_tokens: counter(Name::QueriedPromptTokens),
            cached_prompt_tokens: counter(Name::CachedPromptTokens),
            generated_tokens: counter(Name::GeneratedTokens),
            embedded_texts: counter(Name::EmbeddedTexts),
            embedded_tokens: counter(Name::EmbeddedTokens),
            preemptions: counter(Name::Preemptions),
            lost_tokens: counter(Name::LostTokens),
            forced_tokens: counter(Name::ForcedTokens),
            steps_ahead: counter(Name::StepsAhead),
            discarded_rows: counter(Name::DiscardedRows),
            overdue_turns: counter(Name::OverdueTurns),
            disconnects: counter(Name::Disconnects),
            failed_steps: counter(Name::FailedSteps),
            failed_rows: counter(Name::FailedRows),
            failed_streams: counter(Name::FailedStreams),
            time_to_first_token: histogram(Name::TimeToFirstToken),
            inter_token: histogram(Name::InterToken),
            end_to_end: histogram(Name::EndToEnd),
            queue: histogram(Name::Queue),
            step: histogram(Name::Step),
            step_tokens: histogram(Name::StepTokens),
            adapter_hits: counter(Name::AdapterHits),
            adapter_misses: counter(Name::AdapterMisses),
            adapter_evictions: counter(Name::AdapterEvictions),
            adapter_failures: counter(Name::AdapterFailures),
            adapters_loaded: gauge(Name::AdaptersLoaded),
            adapter_bytes: gauge(Name::AdapterBytes),
            file_bytes: gauge(Name::FileBytes),
            served,
            model: model.map(str::to_owned),
            handle: recorder.handle(),
            recorder,
        };
        metrics.begin_at_zero();
        Arc::new(metrics)
    }

    /// Makes all series whose labels are known: one that is born with its first event has not
    /// increased by it, so that nobody is alerted.
    fn begin_at_zero(&self) {
        let reasons = closed::FINISHED.into_iter();
        let finished = reasons.map(|reason| (Name::FinishedSequences, reason));
        let rejections = Rejection::ALL.into_iter();
        let rejected = rejections.map(|one| (Name::RejectedRequests, one.reason()));
        for (name, reason) in finished.chain(rejected) {
            let labels = vec![label("reason", reason)];
            self.counter_with(name, labels).increment(0);
        }
        let results = closed::TRACE_RESULTS.into_iter();
        let traced = results.map(|result| (Name::TracedRequests, vec![label("result", result)]));
        let places = closed::PANIC_PLACES.into_iter();
        let panics = places.map(|place| (Name::Panics, vec![label("place", place)]));
        let reloads = closed::RELOADED.into_iter().flat_map(|what| {
            let with = move |result| vec![label("what", what), label("result", result)];
            closed::RELOAD_RESULTS.map(|result| (Name::Reloads, with(result)))
        });
        for (name, labels) in traced.chain(panics).chain(reloads) {
            self.counter_of_all(name, labels).increment(0);
        }
    }

    /// Says what is served, which the aliases repeat.
    pub fn describe_served(&self, served: Served) {
        let mut all = self.served();
        all.retain(|earlier| earlier.model != served.model);
        all.push(served);
    }

    /// The model has left memory: nothing of it runs or is cached.
    pub fn note_unloaded(&self) {
        for gauge in [
            &self.running_sequences,
            &self.waiting_sequences,
            &self.running_tokens,
            &self.queued_requests,
            &self.queued_tokens,
            &self.kv_blocks,
            &self.kv_blocks_in_use,
            &self.kv_blocks_cached,
            &self.kv_usage,
            &self.adapters_loaded,
            &self.adapter_bytes,
        ] {
            gauge.set(0.0);
        }
        let model = self.model.as_deref();
        self.served()
            .retain(|served| Some(served.model.as_str()) != model);
    }

    fn served(&self) -> MutexGuard<'_, Vec<Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one answered HTTP request. `route` is a pattern, never a client's path.
    pub fn count_http_request(&self, route: &str, status: u16) {
        let labels = vec![
            Label::new("route", route.to_owned()),
            Label::new("status", status.to_string()),
        ];
        self.counter_of_all(Name::HttpRequests, labels).increment(1);
    }

    /// Counts `n` ended sequences.
    pub fn count_finished(&self, reason: &'static str, n: u32) {
        let labels = vec![label("reason", reason)];
        self.counter_with(Name::FinishedSequences, labels)
            .increment(u64::from(n));
    }

    /// Counts one refused request.
    pub fn count_rejected(&self, rejection: Rejection) {
        let labels = vec![label("reason", rejection.reason())];
        self.counter_with(Name::RejectedRequests, labels)
            .increment(1);
    }

    /// Counts one reading of files while the server runs.
    pub fn count_reload(&self, what: &'static str, is_good: bool) {
        let labels = vec![
            Label::from_static_parts("what", what),
            Label::from_static_parts("result", if is_good { "ok" } else { "failed" }),
        ];
        self.counter_of_all(Name::Reloads, labels).increment(1);
    }

    /// Counters of requests whose spans were sent, and whose spans were not.
    pub fn of_traces(&self) -> (Counter, Counter) {
        let labels = |result| vec![Label::from_static_parts("result", result)];
        (
            self.counter_of_all(Name::TracedRequests, labels("sent")),
            self.counter_of_all(Name::TracedRequests, labels("dropped")),
        )
    }

    /// Counts one panic: of a step, a handler, or the preparation of a request.
    pub fn count_panic(&self, place: &'static str) {
        let labels = vec![Label::from_static_parts("place", place)];
        self.counter_of_all(Name::Panics, labels).increment(1);
    }

    fn counter_with(&self, name: Name, labels: Vec<Label>) -> Counter {
        self.counter_of_all(name, [self.labels(), labels].concat())
    }

    /// A counter of the server as a whole.
    fn counter_of_all(&self, name: Name, labels: Vec<Label>) -> Counter {
        self.recorder
            .register_counter(&name.key_with(labels), &METADATA)
    }

    fn labels(&self) -> Vec<Label> {
        labels_of(self.model.as_deref())
    }

    /// The figures of a tenant and an adapter, by its name.
    pub fn of_flow(&self, tenant: &str, adapter: Option<&str>) -> FlowMetrics {
        let adapter = adapter.unwrap_or("none").to_owned();
        let labels = vec![
            Label::new("tenant", tenant.to_owned()),
            Label::new("adapter", adapter),
        ];
        let own = [self.labels(), labels.clone()].concat();
        let ttft = Name::TenantTimeToFirstToken.key_with(own);
        FlowMetrics {
            prompt_tokens: self.counter_with(Name::TenantPromptTokens, labels.clone()),
            generated_tokens: self.counter_with(Name::TenantGeneratedTokens, labels),
            time_to_first_token: self.recorder.register_histogram(&ttft, &METADATA),
        }
    }

    /// The figures of what answers in the place of an alias, or gets copies of its requests.
    pub fn of_arm(&self, alias: &str, target: &str, is_shadow: bool) -> ArmMetrics {
        let role = if is_shadow { "shadow" } else { "arm" };
        let labels = || {
            vec![
                Label::new("alias", alias.to_owned()),
                Label::new("target", target.to_owned()),
                Label::from_static_parts("role", role),
            ]
        };
        let ttft = Name::AliasTimeToFirstToken.key_with(labels());
        ArmMetrics {
            requests: self.counter_of_all(Name::AliasRequests, labels()),
            failures: self.counter_of_all(Name::AliasFailures, labels()),
            generated_tokens: self.counter_of_all(Name::AliasGeneratedTokens, labels()),
            time_to_first_token: self.recorder.register_histogram(&ttft, &METADATA),
        }
    }

    /// The text of `/metrics`: our own series, and once it is known what is served, vLLM's
    /// names for them.
    pub fn render(&self) -> String {
        self.render_with(&AdaptersInUse::default())
    }

    /// The same with the adapters in use.
    pub fn render_with(&self, adapters: &AdaptersInUse) -> String {
        let mut text = self.handle.render();
        let served = self.served();
        if !served.is_empty() {
            let aliases = alias::render(&text, &served, adapters, crate::identity::unix_seconds());
            text.push_str(&aliases);
        }
        text
    }

    /// Folds recorded samples into their buckets from time to time, as long as `metrics` lives.
    pub async fn upkeep(metrics: Weak<Self>) {
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            match metrics.upgrade() {
                Some(metrics) => metrics.handle.run_upkeep(),
                None => return,
            }
        }
    }
}

fn label(key: &'static str, value: &'static str) -> Label {
    Label::from_static_parts(key, value)
}

fn labels_of(model: Option<&str>) -> Vec<Label> {
    let label = |model: &str| Label::new("model", model.to_owned());
    model.map(label).into_iter().collect()
}

/// A recorder that knows the kind, the help and the buckets of every name.
fn recorder() -> PrometheusRecorder {
    let step_tokens = Matcher::Full(Name::StepTokens.name().to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(step_tokens, &TOKEN_BUCKETS))
        .expect("bucket lists are not empty")
        .build_recorder();
    for (_, name, kind, help) in name::ALL {
        let (name, help) = (name.into(), help.into());
        match kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
    recorder
}
