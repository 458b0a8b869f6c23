//! `/tokenize`, `/detokenize` and `/apply-template`: what a model reads, without running it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde_json::{Value, json};

use super::conversation::{self, Thoughts};
use super::prepare::{self, Input};
use crate::admission::Call;
use crate::openai::{
    ApiError, ChatRequest, Fields, PromptText, TokenList, TokenizeRequest, Tokenized, detokenized,
};
use crate::state::AppState;
use crate::text::Tokenizer;

/// The tokens of a text or of a conversation.
pub(crate) async fn tokenize(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<TokenList>, ApiError> {
    reading(&state, body, |state, fields, tokenizer, max_model_len| {
        let request = TokenizeRequest::parse(fields, state.model.vocab_size)?;
        let tokens = match request.what {
            Tokenized::Chat(chat) => {
                conversation::prompt(state, &chat, Input::Messages, Thoughts::Allowed)?.tokens
            }
            Tokenized::Prompt { text, adds_special } => tokenizer
                .encode(&text, adds_special)
                .map_err(|error| ApiError::internal_for_good(error.to_string()))?,
        };
        let text = |token: &u32| spelled(&tokenizer, *token);
        Ok(Json(TokenList {
            count: tokens.len(),
            max_model_len,
            token_strs: request
                .with_texts
                .then(|| tokens.iter().map(text).collect()),
            tokens,
        }))
    })
    .await
}

/// The text of tokens; special ones are spelled out.
pub(crate) async fn detokenize(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PromptText>, ApiError> {
    reading(&state, body, |_, fields, tokenizer, _| {
        let tokens = detokenized(fields, tokenizer.vocab_size())?;
        let mut prompt = String::new();
        for part in tokens.chunk_by(|a, b| tokenizer.is_special(*a) == tokenizer.is_special(*b)) {
            if tokenizer.is_special(part[0]) {
                prompt.extend(part.iter().map(|token| spelled(&tokenizer, *token)));
            } else {
                prompt.push_str(&tokenizer.decode(part));
            }
        }
        Ok(Json(PromptText { prompt }))
    })
    .await
}

/// A conversation as the model reads it.
pub(crate) async fn apply_template(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PromptText>, ApiError> {
    reading(&state, body, |state, fields, _, _| {
        let chat = ChatRequest::parse(fields, state.model.vocab_size)?;
        let prompt = conversation::prompt(state, &chat, Input::Messages, Thoughts::Allowed)?;
        Ok(Json(PromptText {
            prompt: prompt.text,
        }))
    })
    .await
}

/// Answers from the fields of a body, by the tokenizer of the model it is for, and most tokens that
/// the model reads.
async fn reading<T: Send + 'static>(
    state: &AppState,
    body: Result<Bytes, BytesRejection>,
    answer: fn(&AppState, Fields, Tokenizer, usize) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let body = prepare::body(state, body)?;
    let state = &prepare::with_model(state, &body).await?;
    prepare::reading(state, body, move |state, body| {
        let (fields, tokenizer, max_model_len) = of_model(state, Fields::from_body(body)?)?;
        answer(state, fields, tokenizer, max_model_len)
    })
    .await
}

/// The tokenizer of the model that the body names, or of the one that is served; most tokens that
/// the model reads.
fn of_model(state: &AppState, mut fields: Fields) -> Result<(Fields, Tokenizer, usize), ApiError> {
    if let Some(Value::String(name)) = fields.peek("model")
        && let Some(embedder) = state.embedder.as_ref()
        && embedder.model.names.contains(name)
        && !fields.has("messages")
    {
        fields.take("model");
        let model = &embedder.model;
        return Ok((fields, model.tokenizer.clone(), model.max_tokens));
    }
    if !fields.has("model") {
        let own = state.model.names.first();
        fields.put("model", json!(own));
    }
    state.choice(&mut fields)?;
    let model = &state.model;
    Ok((
        fields,
        model.tokenizer.clone(),
        model.max_model_len as usize,
    ))
}

/// A token's own text.
fn spelled(tokenizer: &Tokenizer, token: u32) -> String {
    if tokenizer.is_special(token) {
        return tokenizer.token_spelling(token).unwrap_or_default();
    }
    let bytes = tokenizer.token_bytes(token).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
