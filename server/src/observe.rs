//! Every request is given an id, and counted and logged once: at the end of its answer, however
//! that comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Span;

use crate::metrics::Metrics;
use crate::state::AppState;

/// What requests are counted under whose clients hang up before there is an answer.
const HUNG_UP: u16 = 499;

/// Gives every answer its id and its time, and counts it.
pub(crate) async fn observe(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let id = state.request_id();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", %id, method = %request.method(), route);
    let mut record = Record {
        metrics: Arc::clone(&state.metrics),
        route,
        started: Instant::now(),
        status: HUNG_UP,
        outcome: "hung up",
        span: span.clone(),
    };
    let mut response = tracing::Instrument::instrument(next.run(request), span).await;
    record.status = response.status().as_u16();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    headers.insert(
        HeaderName::from_static("openai-processing-ms"),
        record.elapsed_ms().into(),
    );
    response.map(|body| Body::new(Observed { body, record }))
}

/// A request until its end, which is when this is dropped.
struct Record {
    metrics: Arc<Metrics>,
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

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.count_http_request(&self.route, self.status);
        let (status, outcome, elapsed_ms) = (self.status, self.outcome, self.elapsed_ms());
        self.span.in_scope(|| {
            // Probes come every few seconds and say nothing.
            if self.route.starts_with("/health") || self.route == "/metrics" {
                tracing::debug!(status, outcome, elapsed_ms, "ended");
            } else {
                tracing::info!(status, outcome, elapsed_ms, "ended");
            }
        });
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
