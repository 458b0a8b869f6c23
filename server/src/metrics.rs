//! What the server measures. Names are an enum; the recorder belongs to one server, so that
//! several can run in one process.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Seconds, from a fast token to a slow answer.
const LATENCY_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Tokens of one step.
const TOKEN_BUCKETS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];

const METADATA: Metadata<'static> = Metadata::new("understudy", Level::INFO, None);

/// Every metric, by its name without unit conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    HttpRequests,
    RunningSequences,
    WaitingSequences,
    QueuedRequests,
    KvBlocks,
    KvBlocksInUse,
    KvBlocksCached,
    PromptTokens,
    CachedPromptTokens,
    GeneratedTokens,
    Preemptions,
    FinishedSequences,
    Disconnects,
    RejectedRequests,
    FailedSteps,
    TimeToFirstToken,
    InterToken,
    EndToEnd,
    Queue,
    Step,
    StepTokens,
}

impl Name {
    const ALL: [Self; 21] = [
        Self::HttpRequests,
        Self::RunningSequences,
        Self::WaitingSequences,
        Self::QueuedRequests,
        Self::KvBlocks,
        Self::KvBlocksInUse,
        Self::KvBlocksCached,
        Self::PromptTokens,
        Self::CachedPromptTokens,
        Self::GeneratedTokens,
        Self::Preemptions,
        Self::FinishedSequences,
        Self::Disconnects,
        Self::RejectedRequests,
        Self::FailedSteps,
        Self::TimeToFirstToken,
        Self::InterToken,
        Self::EndToEnd,
        Self::Queue,
        Self::Step,
        Self::StepTokens,
    ];

    /// The name on `/metrics`.
    fn name(self) -> &'static str {
        match self {
            Self::HttpRequests => "understudy_http_requests_total",
            Self::RunningSequences => "understudy_sequences_running",
            Self::WaitingSequences => "understudy_sequences_waiting",
            Self::QueuedRequests => "understudy_requests_queued",
            Self::KvBlocks => "understudy_kv_blocks",
            Self::KvBlocksInUse => "understudy_kv_blocks_in_use",
            Self::KvBlocksCached => "understudy_kv_blocks_cached",
            Self::PromptTokens => "understudy_prompt_tokens_total",
            Self::CachedPromptTokens => "understudy_cached_prompt_tokens_total",
            Self::GeneratedTokens => "understudy_generated_tokens_total",
            Self::Preemptions => "understudy_preemptions_total",
            Self::FinishedSequences => "understudy_sequences_finished_total",
            Self::Disconnects => "understudy_disconnects_total",
            Self::RejectedRequests => "understudy_requests_rejected_total",
            Self::FailedSteps => "understudy_steps_failed_total",
            Self::TimeToFirstToken => "understudy_time_to_first_token_seconds",
            Self::InterToken => "understudy_inter_token_seconds",
            Self::EndToEnd => "understudy_request_seconds",
            Self::Queue => "understudy_queue_seconds",
            Self::Step => "understudy_step_seconds",
            Self::StepTokens => "understudy_step_tokens",
        }
    }

    /// What it says.
    fn help(self) -> &'static str {
        match self {
            Self::HttpRequests => "HTTP requests by route and status",
            Self::RunningSequences => "Sequences that own KV blocks",
            Self::WaitingSequences => "Sequences that wait to run",
            Self::QueuedRequests => "Requests that no step has worked on yet",
            Self::KvBlocks => "KV blocks in all",
            Self::KvBlocksInUse => "KV blocks owned by sequences",
            Self::KvBlocksCached => "KV blocks kept for reuse and owned by no sequence",
            Self::PromptTokens => "Prompt tokens of started requests",
            Self::CachedPromptTokens => "Prompt tokens taken from the prefix cache",
            Self::GeneratedTokens => "Tokens drawn",
            Self::Preemptions => "Sequences put back to waiting",
            Self::FinishedSequences => "Sequences that ended, by reason",
            Self::Disconnects => "Requests whose client went away before the end",
            Self::RejectedRequests => "Requests refused because too many waited",
            Self::FailedSteps => "Steps that could not be computed",
            Self::TimeToFirstToken => "From submission to the first token of a sequence",
            Self::InterToken => "Between two tokens of a sequence",
            Self::EndToEnd => "From submission to the last token of a request",
            Self::Queue => "From submission to the first step that works on a request",
            Self::Step => "Duration of a step",
            Self::StepTokens => "Tokens computed in a step",
        }
    }

    fn key(self) -> Key {
        Key::from_name(self.name())
    }

    fn key_with(self, labels: Vec<Label>) -> Key {
        Key::from_parts(self.name(), labels)
    }
}

/// The metrics of one server.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    pub running_sequences: Gauge,
    pub waiting_sequences: Gauge,
    pub queued_requests: Gauge,
    pub kv_blocks: Gauge,
    pub kv_blocks_in_use: Gauge,
    pub kv_blocks_cached: Gauge,
    pub prompt_tokens: Counter,
    pub cached_prompt_tokens: Counter,
    pub generated_tokens: Counter,
    pub preemptions: Counter,
    pub disconnects: Counter,
    pub rejected_requests: Counter,
    pub failed_steps: Counter,
    pub time_to_first_token: Histogram,
    pub inter_token: Histogram,
    pub end_to_end: Histogram,
    pub queue: Histogram,
    pub step: Histogram,
    pub step_tokens: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A fresh set, all zero.
    pub fn new() -> Arc<Self> {
        let step_tokens = Matcher::Full(Name::StepTokens.name().to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets(&LATENCY_BUCKETS)
            .and_then(|builder| builder.set_buckets_for_metric(step_tokens, &TOKEN_BUCKETS))
            .expect("bucket lists are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let counter = |name: Name| recorder.register_counter(&name.key(), &METADATA);
        let gauge = |name: Name| recorder.register_gauge(&name.key(), &METADATA);
        let histogram = |name: Name| recorder.register_histogram(&name.key(), &METADATA);
        let metrics = Self {
            running_sequences: gauge(Name::RunningSequences),
            waiting_sequences: gauge(Name::WaitingSequences),
            queued_requests: gauge(Name::QueuedRequests),
            kv_blocks: gauge(Name::KvBlocks),
            kv_blocks_in_use: gauge(Name::KvBlocksInUse),
            kv_blocks_cached: gauge(Name::KvBlocksCached),
            prompt_tokens: counter(Name::PromptTokens),
            cached_prompt_tokens: counter(Name::CachedPromptTokens),
            generated_tokens: counter(Name::GeneratedTokens),
            preemptions: counter(Name::Preemptions),
            disconnects: counter(Name::Disconnects),
            rejected_requests: counter(Name::RejectedRequests),
            failed_steps: counter(Name::FailedSteps),
            time_to_first_token: histogram(Name::TimeToFirstToken),
            inter_token: histogram(Name::InterToken),
            end_to_end: histogram(Name::EndToEnd),
            queue: histogram(Name::Queue),
            step: histogram(Name::Step),
            step_tokens: histogram(Name::StepTokens),
            handle,
            recorder,
        };
        metrics.describe();
        Arc::new(metrics)
    }

    fn describe(&self) {
        for name in Name::ALL {
            let (key, help) = (name.name(), name.help());
            match name {
                Name::RunningSequences
                | Name::WaitingSequences
                | Name::QueuedRequests
                | Name::KvBlocks
                | Name::KvBlocksInUse
                | Name::KvBlocksCached => {
                    self.recorder.describe_gauge(key.into(), None, help.into());
                }
                Name::TimeToFirstToken
                | Name::InterToken
                | Name::EndToEnd
                | Name::Queue
                | Name::Step
                | Name::StepTokens => {
                    self.recorder
                        .describe_histogram(key.into(), None, help.into());
                }
                _ => self
                    .recorder
                    .describe_counter(key.into(), None, help.into()),
            }
        }
    }

    /// Counts one answered HTTP request. `route` is a pattern, never a client's path.
    pub fn count_http_request(&self, route: &str, status: u16) {
        let labels = vec![
            Label::new("route", route.to_owned()),
            Label::new("status", status.to_string()),
        ];
        let key = Name::HttpRequests.key_with(labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts one ended sequence.
    pub fn count_finished(&self, reason: &'static str) {
        let key =
            Name::FinishedSequences.key_with(vec![Label::from_static_parts("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.handle.render()
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
