//! `POST /v1/responses` and `POST /v1/responses/input_tokens`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::conversation::{self, Conversation};
use super::flow::{self, Folding, Prepared};
use super::prepare::{self, Input};
use super::response_context;
use super::response_fold::ResponseFold;
use crate::admission::Call;
use crate::openai::{
    ApiError, ChatRequest, ResponseHead, ResponseObject, ResponseRequest, item_messages,
};
use crate::runs::Run;
use crate::sse::{self, to_json};
use crate::state::AppState;
use crate::store::{Key, Kind, Store, Write};

/// The part of the context that is kept free for an answer of no given length, where older turns
/// are left out to make room.
const ANSWER_SHARE: u32 = 8;

/// A response, ready for the engine.
struct Ready {
    prepared: Prepared<ResponseFold>,
    is_background: bool,
    is_streamed: bool,
}

/// Answers items, whole, as a stream or in the background.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = prepare::body(&state, body)?;
    let state = prepare::with_adapters(&state, &body).await?;
    let ready = prepare::reading(&state, body, ready).await?;
    if ready.is_background {
        in_background(&state, ready).await
    } else {
        flow::answer(&state, ready.prepared).await
    }
}

/// Counts the tokens of what would be answered.
pub(crate) async fn count_tokens(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = prepare::body(&state, body)?;
    let state = prepare::with_adapters(&state, &body).await?;
    let ready = prepare::reading(&state, body, ready).await?;
    let n_tokens = ready.prepared.jobs[0].request.prompt.len();
    Ok(Json(json!({
        "object": "response.input_tokens", "input_tokens": n_tokens,
    })))
}

fn ready(state: &AppState, body: &[u8]) -> Result<Ready, ApiError> {
    let (name, fields) = prepare::fields(state, body)?;
    let mut request = ResponseRequest::parse(fields, state.model.vocab_size)?;
    let (context, items) = response_context::items(state, &mut request)?;
    let messages = item_messages(request.instructions.as_deref(), &items)?;
    if messages.is_empty() {
        let message = "Invalid 'input': there is nothing in it to be answered.";
        let empty = || ApiError::invalid("input", "invalid_value", message);
        return Err(request.without_input.unwrap_or_else(empty));
    }
    let mut chat = request.chat;
    chat.messages = messages;
    let conversation = fitted(state, chat.clone(), request.truncates)?;
    let Conversation {
        job,
        rules,
        message,
        n_prompt,
    } = conversation;
    let is_streamed = chat.streaming.enabled;
    let response = ResponseObject::new(ResponseHead {
        id: state.ids().id("resp_"),
        created_at: crate::identity::unix_seconds(),
        model: name,
        service_tier: chat.sampling.serving.tier(),
        background: request.background,
        store: request.store,
        conversation: request.conversation,
        echo: request.echo,
    });
    let fold = ResponseFold::new(response, &message, context, n_prompt, is_streamed);
    Ok(Ready {
        prepared: Prepared {
            jobs: vec![job],
            rules,
            fold,
        },
        is_background: request.background,
        is_streamed,
    })
}

/// The conversation as it is, or, where that is allowed, without as many of its oldest turns as
/// makes it fit.
fn fitted(
    state: &AppState,
    mut chat: ChatRequest,
    truncates: bool,
) -> Result<Conversation, ApiError> {
    let error = match conversation::prepare(state, &chat, Input::Items) {
        Err(error) if truncates && is_overflow(&error) => error,
        fits => return fits,
    };
    chat.max_tokens = chat
        .max_tokens
        .or(Some((state.model.max_model_len / ANSWER_SHARE).max(1)));
    let messages = std::mem::take(&mut chat.messages);
    let n_system = messages
        .iter()
        .take_while(|m| m["role"] == "system")
        .count();
    // A turn begins with the user, so that no call loses its result.
    let turns: Vec<usize> = (n_system + 1..messages.len())
        .filter(|i| messages[*i]["role"] == "user")
        .collect();
    // The fewest turns left out that fit, by bisection: each try renders and tokenizes.
    let (mut low, mut high) = (0, turns.len());
    let mut found = Err(error);
    while low < high {
        let middle = (low + high) / 2;
        let (kept, rest) = (&messages[..n_system], &messages[turns[middle]..]);
        chat.messages = [kept, rest].concat();
        match conversation::prepare(state, &chat, Input::Items) {
            Ok(fits) => {
                found = Ok(fits);
                high = middle;
            }
            Err(error) if is_overflow(&error) => low = middle + 1,
            Err(error) => return Err(error),
        }
    }
    found
}

fn is_overflow(error: &ApiError) -> bool {
    error.code.as_deref() == Some("context_length_exceeded")
}

/// Begins a response and answers with it as it is then, or with its events.
async fn in_background(state: &AppState, ready: Ready) -> Result<Response, ApiError> {
    let folding = Folding::begin(state, ready.prepared)?;
    let (key, record) = folding.fold().record();
    let response = to_json(folding.fold().response());
    // From here on it can be asked for, whatever becomes of this process.
    state
        .store
        .write(vec![Write::put(key.clone(), record)])
        .await?;
    let run = state.runs.begin(key.owner, &key.id, ready.is_streamed);
    let drive = drive(state.clone(), folding, Arc::clone(&run), key);
    let span = tracing::Span::current();
    tokio::spawn(tracing::Instrument::instrument(drive, span));
    if ready.is_streamed {
        Ok(sse::respond(run.follow(0)))
    } else {
        let response: Value = serde_json::from_str(&response)
            .map_err(|error| ApiError::internal_for_good(error.to_string()))?;
        Ok(Json(response).into_response())
    }
}

/// Makes a response until its end is in the store.
async fn drive(state: AppState, mut folding: Folding<ResponseFold>, run: Arc<Run>, key: Key) {
    loop {
        let frame = tokio::select! {
            frame = folding.next() => frame,
            () = run.cancelled() => {
                let writes = folding.into_fold().cancel();
                note(state.store.write(writes).await.map(drop));
                break;
            }
        };
        match frame {
            Some(frame) => run.push(frame, folding.fold().has_begun()),
            None => break,
        }
    }
    if run.is_streamed() {
        note(keep_events(&state.store, &key, &run).await);
    }
    state.runs.end(key.owner, &key.id);
}

/// The events, for those who ask for them later.
async fn keep_events(store: &Store, key: &Key, run: &Run) -> Result<(), crate::store::StoreError> {
    let frames = run.frames();
    let events: Vec<[&str; 2]> = frames
        .iter()
        .map(|frame| [frame.name.as_deref().unwrap_or_default(), &frame.data])
        .collect();
    let key = Key::new(key.owner, Kind::Events, &key.id);
    store
        .write(vec![Write::put(key, to_json(&events))])
        .await
        .map(drop)
}

fn note(written: Result<(), crate::store::StoreError>) {
    if let Err(error) = written {
        tracing::error!(%error, "a response in the background could not be stored");
    }
}
