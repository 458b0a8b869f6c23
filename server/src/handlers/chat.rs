//! `POST /v1/chat/completions`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use scheduler::Request;
use serde_json::Value;

use super::chat_stream;
use super::prepare::{self, Input, Lengths, Plan};
use crate::app::AppState;
use crate::generation::{Generation, Piece, TextRules, Update};
use crate::openai::{
    ApiError, ChatChoice, ChatCompletion, ChatLogprob, ChatRequest, Head, Streaming, TokenCounts,
};
use crate::text::TemplateError;
use crate::token_text::TokenText;

/// A chat request, ready for the engine.
struct Prepared {
    request: Request,
    rules: TextRules,
    shape: Shape,
}

/// What the answer looks like.
pub(super) struct Shape {
    pub(super) head: Head,
    pub(super) streaming: Streaming,
    pub(super) n: u32,
    pub(super) n_prompt: usize,
    pub(super) with_logprobs: bool,
    pub(super) token_text: TokenText,
}

impl Shape {
    /// Log-probabilities of a piece, if they were asked for.
    pub(super) fn logprobs(&self, piece: &Piece) -> Option<Vec<ChatLogprob>> {
        let tokens = piece.tokens.iter();
        self.with_logprobs
            .then(|| tokens.map(|token| self.token_text.chat(token)).collect())
    }
}

/// Answers a conversation, whole or as a stream.
pub(crate) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = prepare::body(&state, body)?;
    let worker = state.clone();
    let prepared = prepare::off_async_threads(move || prepare(&worker, &body)).await?;
    let Prepared {
        mut request,
        rules,
        shape,
    } = prepared;
    request.id = state.engine.next_request_id();
    let events = state.engine.submit(request)?;
    let generation = Generation::new(events, shape.n, 0, &state.model.tokenizer, &rules);
    if shape.streaming.enabled {
        Ok(chat_stream::respond(shape, generation))
    } else {
        whole(shape, generation).await
    }
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared, ApiError> {
    let model = &state.model;
    let (name, fields) = prepare::fields(state, body)?;
    let chat = ChatRequest::parse(fields, model.vocab_size)?;
    let text = render(state, &chat)?;
    // The template has put all special tokens where they belong.
    let prompt = model
        .tokenizer
        .encode(&text, false)
        .map_err(|error| ApiError::internal_for_good(error.to_string()))?;
    if prompt.is_empty() {
        let message = "Invalid 'messages': the conversation has no tokens.";
        return Err(ApiError::invalid("messages", "invalid_value", message));
    }
    let n_prompt = prompt.len();
    let lengths = Lengths {
        n_prompt,
        max_tokens: chat.max_tokens,
        n_needed: 1,
    };
    let sampling = &chat.sampling;
    let plan = Plan {
        n: sampling.n,
        max_new_tokens: prepare::max_new_tokens(state, Input::Messages, lengths)?,
        logprobs: chat.logprobs,
        prompt_logprobs: None,
        seed: sampling.seed.unwrap_or_else(|| state.draw_seed()),
    };
    let request = prepare::request(state, prompt, sampling, plan)?;
    let rules = TextRules {
        stop: sampling.stop.clone(),
        stop_tokens: request.stop_tokens.clone(),
        min_tokens: sampling.min_tokens,
        continues_prompt: chat.continue_final_message,
    };
    let shape = Shape {
        head: state.head("chatcmpl-", name),
        streaming: chat.streaming,
        n: sampling.n,
        n_prompt,
        with_logprobs: chat.logprobs.is_some(),
        token_text: TokenText::new(model.tokenizer.clone(), sampling.return_tokens_as_token_ids),
    };
    Ok(Prepared {
        request,
        rules,
        shape,
    })
}

fn render(state: &AppState, chat: &ChatRequest) -> Result<String, ApiError> {
    let template = state.model.template.as_ref();
    let template = template.ok_or_else(ApiError::not_a_chat_model)?;
    let messages = Value::Array(chat.messages.clone());
    let kwargs = &chat.template_kwargs;
    let rendered = template.render(&messages, None, chat.add_generation_prompt, kwargs);
    let mut text = rendered.map_err(|error| match error {
        TemplateError::Raised(message) => {
            let message =
                format!("The chat template of this model refuses the messages: {message}");
            ApiError::invalid("messages", "invalid_value", message)
        }
        TemplateError::Failed { .. } => {
            ApiError::internal_for_good(format!("The chat template of this model failed: {error}"))
        }
    })?;
    if chat.continue_final_message {
        let end = end_of_final_message(&chat.messages, &text)?;
        text.truncate(end);
    }
    Ok(text)
}

/// Where the last message's content ends in the rendered text, before whatever closes it.
fn end_of_final_message(messages: &[Value], text: &str) -> Result<usize, ApiError> {
    let content = messages
        .last()
        .and_then(|message| message["content"].as_str());
    let content = content.unwrap_or_default().trim();
    let start = text.rfind(content).filter(|_| !content.is_empty());
    start.map(|start| start + content.len()).ok_or_else(|| {
        let message = "The final message cannot be continued: the chat template of this model \
                       does not render its content as it is.";
        ApiError::invalid("continue_final_message", "invalid_value", message)
    })
}

#[derive(Default)]
struct Collected {
    text: String,
    logprobs: Vec<ChatLogprob>,
    finish_reason: &'static str,
}

async fn whole(shape: Shape, mut generation: Generation) -> Result<Response, ApiError> {
    let mut choices: Vec<Collected> = (0..shape.n).map(|_| Collected::default()).collect();
    let mut counts = TokenCounts {
        prompt: shape.n_prompt as u64,
        ..TokenCounts::default()
    };
    while let Some(update) = generation.next().await {
        let (index, piece) = match update? {
            Update::PromptScored(_) => continue,
            Update::Text { index, piece } => (index, piece),
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                counts.completion += totals.n_tokens;
                counts.cached = totals.n_cached;
                choices[index as usize].finish_reason = reason;
                (index, piece)
            }
        };
        let choice = &mut choices[index as usize];
        choice.text.push_str(&piece.text);
        choice
            .logprobs
            .extend(shape.logprobs(&piece).unwrap_or_default());
    }
    let choices = (0..).zip(choices).map(|(index, choice)| {
        let logprobs = shape.with_logprobs.then_some(choice.logprobs);
        ChatChoice::new(index, choice.text, logprobs, choice.finish_reason)
    });
    let answer = ChatCompletion::new(shape.head, choices.collect(), counts.into());
    Ok(Json(answer).into_response())
}
