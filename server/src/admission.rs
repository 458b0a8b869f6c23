//! What is decided about a generating request before its body is read: whether it is taken at
//! all, whose it is, and when it ends at the latest.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use crate::auth::Moment;
use crate::engine::EngineHandle;
use crate::metrics::Rejection;
use crate::openai::ApiError;
use crate::state::AppState;
use crate::telemetry::Timeline;
use crate::tenant::Tenant;

/// Milliseconds that the whole request may take.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Bytes of a body that are a token at least. A low estimate: what is refused by it would be
/// refused by the exact count as well.
pub(crate) const BYTES_PER_TOKEN: usize = 16;
/// Time to read what a refused client is still sending; many do not listen before they are done.
const READ_REST: Duration = Duration::from_secs(1);

/// The state of the application as one request sees it: what it submits and stores is in its own
/// name.
#[derive(Debug)]
pub(crate) struct Call(pub(crate) AppState);

impl FromRequestParts<AppState> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let mut state = state.clone();
        if let Some(engine) = parts.extensions.remove::<EngineHandle>() {
            state.engine = engine;
        }
        if let Some(tenant) = parts.extensions.get::<Tenant>() {
            state.owner = tenant.owner();
            state.grant = Arc::clone(tenant.grant());
        }
        Ok(Self(state))
    }
}

/// Refuses a body that is longer than any may be by its head, before any of it has come.
pub(crate) async fn bounded(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let max_bytes = state.max_body_bytes;
    if content_length(request.headers()) <= max_bytes {
        return next.run(request).await;
    }
    // Reading would tell a client that waits for leave to send that it has it.
    if !request.headers().contains_key(header::EXPECT) {
        let mut body = request.into_body().into_data_stream();
        read_rest(&mut body, max_bytes).await;
    }
    ApiError::body_too_large(max_bytes).into_response()
}

/// Lets the request bring its body if there is room in the queue, or refuses it. Its place it takes
/// when the body is there: one that was only announced keeps nobody out.
pub(crate) async fn admit(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    match engine_for(&state, &request) {
        Ok(engine) => {
            request.extensions_mut().insert(engine);
            next.run(request).await
        }
        Err(error) => {
            let mut body = request.into_body().into_data_stream();
            read_rest(&mut body, state.max_body_bytes).await;
            error.into_response()
        }
    }
}

fn engine_for(state: &AppState, request: &Request) -> Result<EngineHandle, ApiError> {
    let tenant = request.extensions().get::<Tenant>().cloned();
    let timeout = timeout(request.headers())?.or(state.request_timeout);
    let n_tokens = content_length(request.headers()) / BYTES_PER_TOKEN;
    if let Some(meter) = tenant.as_ref().and_then(Tenant::meter) {
        meter
            .enter(n_tokens as u64, Moment::now())
            .inspect_err(|exceeded| {
                state.metrics.count_rejected(Rejection::of(exceeded.kind));
            })?;
    }
    let tenant = tenant.unwrap_or_default();
    let engine = if state.fleet.is_some() {
        // The body says whose queue it is; see `AppState::enter`.
        state.engine.for_call_somewhere(tenant, timeout)?
    } else {
        state.engine.for_body(tenant, timeout, n_tokens)?
    };
    if let Some(timeline) = request.extensions().get::<Arc<Timeline>>() {
        engine.note_in(Arc::clone(timeline));
    }
    Ok(engine)
}

/// What the head of a request says of the length of its body; 0 if it says nothing.
pub(crate) fn content_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else {
        return Ok(None);
    };
    let ms = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    match ms {
        Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(u64::from(ms)))),
        _ => Err(ApiError::bad_request(format!(
            "Invalid header '{TIMEOUT_HEADER}': expected a number of milliseconds, an integer \
             from 1 to {}.",
            u32::MAX
        ))),
    }
}

/// Reads what a client that was refused is still sending, within bounds.
pub(crate) async fn read_rest(body: &mut BodyDataStream, max_bytes: usize) {
    let read = async {
        let mut n_bytes = 0;
        while let Some(Ok(frame)) = body.next().await {
            n_bytes += frame.len();
            if n_bytes > max_bytes {
                return;
            }
        }
    };
    // Whether it came to an end makes no difference to the answer.
    tokio::time::timeout(READ_REST, read).await.ok();
}
