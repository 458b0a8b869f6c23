//! `POST /v1/chat/completions`.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;

use super::chat_fold::{ChatFold, Shape};
use super::conversation::{self, Conversation};
use super::flow::{self, Prepared};
use super::prepare::{self, Input};
use crate::admission::Call;
use crate::openai::{ApiError, ChatRequest, Head};
use crate::state::AppState;
use crate::store::Kind;

/// Answers a conversation, whole or as a stream.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    flow::respond(&state, body, prepare).await
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared<ChatFold>, ApiError> {
    let (name, fields) = prepare::fields(state, body)?;
    let chat = ChatRequest::parse(fields, state.model.vocab_size)?;
    prepare::check_choices(state, 1, chat.sampling.n, "n")?;
    let conversation = conversation::prepare(state, &chat, Input::Messages)?;
    let Conversation {
        job,
        rules,
        message,
        n_prompt,
    } = conversation;
    let head = Head {
        service_tier: chat.sampling.serving.tier(),
        ..state.head("chatcmpl-", name)
    };
    let key = state.key(Kind::ChatCompletion, &head.id);
    let shape = Shape {
        head,
        streaming: chat.streaming,
        n: chat.sampling.n,
        message,
        storing: chat.storing.map(|storing| (key, storing)),
    };
    Ok(Prepared {
        jobs: vec![job],
        rules,
        fold: ChatFold::new(shape, n_prompt),
    })
}
