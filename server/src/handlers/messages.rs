//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's dialect of chats.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use serde_json::{Value, json};

use super::conversation::{self, Conversation, Thoughts};
use super::flow::{self, Prepared};
use super::messages_fold::MessageFold;
use super::prepare::{self, Input};
use crate::admission::Call;
use crate::anthropic::{MessageObject, MessageRequest};
use crate::openai::{ApiError, ChatRequest};
use crate::state::AppState;

/// Answers a conversation, whole or as a stream.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    flow::respond(&state, body, prepare).await
}

/// Counts the tokens of what would be answered.
pub(crate) async fn count_tokens(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = prepare::body(&state, body)?;
    let state = prepare::with_model(&state, &body).await?;
    prepare::reading(&state, body, |state, body| {
        let (_, chat) = read(state, body, true)?;
        let prompt = conversation::prompt(state, &chat, Input::Messages, Thoughts::Allowed)?;
        Ok(Json(json!({"input_tokens": prompt.tokens.len()})))
    })
    .await
}

fn read(
    state: &AppState,
    body: &[u8],
    is_counted: bool,
) -> Result<(String, ChatRequest), ApiError> {
    let (name, fields) = prepare::fields(state, body)?;
    let request = MessageRequest::parse(fields, is_counted)?;
    if request.wants_thoughts && !state.dialect.thinks() {
        let value = "'enabled': the chat template of this model knows no thoughts";
        return Err(ApiError::unsupported_value("thinking.type", value));
    }
    Ok((name, request.chat))
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared<MessageFold>, ApiError> {
    let (name, mut chat) = read(state, body, false)?;
    // Clients ask for as much as they would take: what does not fit is left out at the end.
    let (conversation, is_cut) = match conversation::prepare(state, &chat, Input::Messages) {
        Err(error) if error.code.as_deref() == Some("context_length_exceeded") => {
            chat.max_tokens = None;
            let rest = conversation::prepare(state, &chat, Input::Messages)?;
            (rest, true)
        }
        prepared => (prepared?, false),
    };
    let Conversation {
        job,
        rules,
        message,
        n_prompt,
    } = conversation;
    let object = MessageObject::new(state.ids().id("msg_"), name, n_prompt as u64);
    let fold = MessageFold::new(object, &message, is_cut, chat.streaming.enabled);
    Ok(Prepared {
        jobs: vec![job],
        rules,
        fold,
    })
}
