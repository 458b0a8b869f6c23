//! Every request is given an id, and counted and logged once: at the end of its answer, however
//! that comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Span;

use crate::metrics::Metrics;
use crate::state::AppState;
use crate::telemetry::{Call, Phases, TRACERESPONSE, Timeline, TraceContext, Traces};
use crate::tenant::Tenant;

/// The version of the API that all clients speak.
const API_VERSION: &str = "2020-10-01";
/// What requests are counted under whose clients hang up before there is an answer.
const HUNG_UP: u16 = 499;

/// Gives every answer its id and its time, and counts it.
pub(crate) async fn observe(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = state.request_id();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let context = TraceContext::of_request(request.headers(), &state.ids());
    let trace = format!("{:032x}", context.trace);
    let span = tracing::info_span!("request", %id, method = %request.method(), route, trace);
    let timeline = Arc::new(Timeline::of(&id));
    request.extensions_mut().insert(Arc::clone(&timeline));
    let mut record = Record {
        id: id.clone(),
        method: request.method().to_string(),
        context,
        timeline,
        tenant: None,
        began: SystemTime::now(),
        metrics: Arc::clone(&state.metrics),
        slow_request: state.slow_request,
        traces: state.traces.clone(),
        route,
        started: Instant::now(),
        status: HUNG_UP,
        outcome: "hung up",
        span: span.clone(),
    };
    let mut response = tracing::Instrument::instrument(next.run(request), span).await;
    record.status = response.status().as_u16();
    record.tenant = response.extensions_mut().remove::<Tenant>();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        // The one of them is OpenAI's name, the other Anthropic's.
        headers.insert(HeaderName::from_static("request-id"), id.clone());
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(trace) = context.header() {
        headers.insert(TRACERESPONSE, trace);
    }
    headers.insert(
        HeaderName::from_static("openai-version"),
        HeaderValue::from_static(API_VERSION),
    );
    headers.insert(
        HeaderName::from_static("openai-processing-ms"),
        record.elapsed_ms().into(),
    );
    response.map(|body| Body::new(Observed { body, record }))
}

/// A request until its end, which is when this is dropped.
struct Record {
    id: String,
    method: String,
    context: TraceContext,
    timeline: Arc<Timeline>,
    /// Who asked, if they were let in.
    tenant: Option<Tenant>,
    began: SystemTime,
    metrics: Arc<Metrics>,
    slow_request: Option<Duration>,
    traces: Option<Traces>,
    route: String,
    started: Instant,
    status: u16,
    outcome: &'static str,
    span: Span,
}

impl Record {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Record {
    fn tenant(&self) -> &str {
        self.tenant.as_ref().map_or("", Tenant::label)
    }

    /// Probes come every few seconds and say nothing.
    fn is_of_a_machine(&self) -> bool {
        self.route.starts_with("/health") || self.route == "/metrics"
    }

    fn log(&self, phases: &Phases) {
        let (status, outcome, elapsed_ms) = (self.status, self.outcome, self.elapsed_ms());
        let key = self.tenant();
        if let Some(code) = &phases.failure {
            tracing::warn!(status, outcome = "failed", code, elapsed_ms, key, "ended");
        } else if self.is_of_a_machine() {
            tracing::debug!(status, outcome, elapsed_ms, key, "ended");
        } else {
            tracing::info!(status, outcome, elapsed_ms, key, "ended");
        }
        if self
            .slow_request
            .is_some_and(|limit| self.started.elapsed() > limit)
        {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                elapsed_ms,
                queue_ms = ms(phases.queue),
                prefill_ms = ms(phases.prefill),
                decode_ms = ms(phases.decode),
                detokenize_ms = ms(phases.detokenize),
                prompt_tokens = phases.n_prompt,
                cached_tokens = phases.n_cached,
                generated_tokens = phases.n_generated,
                model = phases.model.as_deref().unwrap_or_default(),
                adapter = phases.adapter.as_deref().unwrap_or_default(),
                key,
                "slow request"
            );
        }
    }

    fn trace(&self, phases: Phases) {
        let Some(traces) = self.traces.as_ref().filter(|_| self.context.is_sampled) else {
            return;
        };
        let submitted = phases.submitted.map(tokio::time::Instant::into_std);
        traces.send(Call {
            context: self.context,
            request_id: self.id.clone(),
            method: self.method.clone(),
            route: self.route.clone(),
            status: self.status,
            tenant: self.tenant().to_owned(),
            began: self.began,
            took: self.started.elapsed(),
            until_submitted: submitted.map_or(Duration::ZERO, |at| {
                at.saturating_duration_since(self.started)
            }),
            phases,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.count_http_request(&self.route, self.status);
        let phases = self.timeline.phases();
        if phases.failure.is_some() {
            self.metrics.failed_streams.increment(1);
        }
        self.span.in_scope(|| self.log(&phases));
        if !self.is_of_a_machine() {
            self.trace(phases);
        }
    }
}

/// An answer's body with its record.
struct Observed {
    body: Body,
    record: Record,
}

impl Observed {
    fn note_end(&mut self) {
        if self.body.is_end_stream() {
            self.record.outcome = "finished";
        }
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.record.outcome = "finished",
            Poll::Ready(Some(Err(_))) => self.record.outcome = "failed",
            // Nobody asks for more after the last frame of a body of known length.
            Poll::Ready(Some(Ok(_))) => self.note_end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // An empty body is never asked for anything.
        self.note_end();
    }
}
