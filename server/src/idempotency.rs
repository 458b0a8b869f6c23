//! `Idempotency-Key`: a request that is sent again under the same key gets the answer that the
//! first one got, for a day. Only answers that succeeded are kept; what failed may be tried again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::handlers;
use crate::openai::ApiError;
use crate::state::AppState;
use crate::store::{Key, Kind, Store, Write};
use crate::tenant::Tenant;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY: usize = 255;
const TTL: Duration = Duration::from_secs(24 * 3600);

/// A digest of path and body.
type Fingerprint = [u8; 32];

/// A request that is being answered, and what tells of its end.
type Other = (Fingerprint, watch::Receiver<()>);

/// Keys under which an answer is just being made, and which one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answering {
    open: Arc<Mutex<HashMap<String, Other>>>,
}

/// The right to answer under a key; others wait until it is gone.
struct Turn {
    answering: Answering,
    id: String,
    _gone: watch::Sender<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = self
            .answering
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.id);
    }
}

impl Answering {
    /// The turn, or what to wait for.
    fn enter(&self, id: &str, fingerprint: Fingerprint) -> Result<Turn, Other> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = open.get(id) {
            return Err(other.clone());
        }
        let (gone, is_gone) = watch::channel(());
        open.insert(id.to_owned(), (fingerprint, is_gone));
        Ok(Turn {
            answering: self.clone(),
            id: id.to_owned(),
            _gone: gone,
        })
    }
}

/// Answers once for each key; without the header, as always.
pub(crate) async fn answer_once(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    match request.headers().get(&HEADER).cloned() {
        None => next.run(request).await,
        Some(key) => match keyed(&state, &key, request, next).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        },
    }
}

async fn keyed(
    state: &AppState,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let key = key.ok_or_else(|| {
        let message = format!("Invalid header '{HEADER}': expected 1 to {MAX_KEY} characters.");
        ApiError::bad_request(message)
    })?;
    let owner = request.extensions().get::<Tenant>().map(Tenant::owner);
    let key = Key::new(owner.unwrap_or_default(), Kind::Answer, key);
    let path = request.uri().path().to_owned();
    let (parts, body) = request.into_parts();
    let body = Request::from_parts(parts.clone(), body);
    let body = handlers::body(state, Bytes::from_request(body, state).await)?;
    let mut digest = Sha256::new_with_prefix(path.as_bytes());
    digest.update([0]);
    digest.update(&body);
    let fingerprint: Fingerprint = digest.finalize().into();
    let id = format!("{:x}/{}", key.owner.number(), key.id);
    let turn = loop {
        match state.answering.enter(&id, fingerprint) {
            Ok(turn) => break turn,
            Err((other, _)) if other != fingerprint => return Err(ApiError::idempotency_mismatch()),
            // Resolves by an error: the sender is dropped with the turn.
            Err((_, mut gone)) => drop(gone.changed().await),
        }
    };
    if let Some(answer) = kept(state, &key, &fingerprint).await? {
        return Ok(answer);
    }
    let request = Request::from_parts(parts, Body::from(body));
    let response = next.run(request).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let keeping = Keeping {
        store: state.store.clone(),
        key,
        record: begin_record(fingerprint, response.headers()),
        _turn: turn,
    };
    if is_stream(response.headers()) {
        Ok(passed_on(response, keeping))
    } else {
        whole(response, keeping).await
    }
}

/// A kept answer: digest, content type, a line end, body.
async fn kept(
    state: &AppState,
    key: &Key,
    fingerprint: &Fingerprint,
) -> Result<Option<Response>, ApiError> {
    let (store, key) = (state.store.clone(), key.clone());
    let read = tokio::task::spawn_blocking(move || store.get(&key)).await;
    let read = read.map_err(|error| ApiError::internal(error.to_string()))?;
    let Some(record) = read? else {
        return Ok(None);
    };
    let broken = || ApiError::internal_for_good("A kept answer cannot be read.");
    let (found, rest) = record.split_at_checked(32).ok_or_else(broken)?;
    if found != fingerprint {
        return Err(ApiError::idempotency_mismatch());
    }
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(broken)?;
    let kind = HeaderValue::from_bytes(&rest[..end]).map_err(|_| broken())?;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    let body = rest[end + 1..].to_vec();
    Ok(Some((StatusCode::OK, headers, body).into_response()))
}

fn begin_record(fingerprint: Fingerprint, headers: &HeaderMap) -> Vec<u8> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
    [&fingerprint[..], kind, b"\n"].concat()
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer that will be kept when it is whole.
struct Keeping {
    store: Store,
    key: Key,
    record: Vec<u8>,
    _turn: Turn,
}

impl Keeping {
    async fn keep(self) -> Result<(), ApiError> {
        let put = Write::Put {
            key: self.key,
            body: self.record,
            ttl: Some(TTL),
        };
        self.store.write(vec![put]).await?;
        Ok(())
    }
}

async fn whole(response: Response, mut keeping: Keeping) -> Result<Response, ApiError> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await;
    let body = body.map_err(|error| ApiError::internal(error.to_string()))?;
    keeping.record.extend_from_slice(&body);
    keeping.keep().await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A stream on its way to the client. The whole is kept before its last event is given out; of one
/// that fails or whose client hangs up nothing is kept.
fn passed_on(response: Response, keeping: Keeping) -> Response {
    let (parts, body) = response.into_parts();
    let pieces = stream::unfold(
        (body.into_data_stream(), Some(keeping)),
        |(mut pieces, mut keeping)| async {
            let piece = pieces.next().await?;
            match &piece {
                Ok(bytes) => {
                    if let Some(keeping) = &mut keeping {
                        keeping.record.extend_from_slice(bytes);
                    }
                    if is_last(bytes)
                        && let Some(keeping) = keeping.take()
                        && let Err(error) = keeping.keep().await
                    {
                        tracing::error!(%error.message, "an answer could not be kept for its key");
                    }
                }
                Err(_) => keeping = None,
            }
            Some((piece, (pieces, keeping)))
        },
    );
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Whether this event ends a stream that has not failed. Events come one by one.
fn is_last(event: &[u8]) -> bool {
    let ends: [&[u8]; 3] = [
        b"data: [DONE]",
        b"event: response.completed",
        b"event: response.incomplete",
    ];
    ends.iter().any(|end| event.starts_with(end))
}
