//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};

use super::chat_choice::{ChatChoiceReader, fold};
use super::chat_prepare::{self, Conversation};
use super::chat_stream;
use super::prepare;
use crate::admission::Call;
use crate::answer::AnswerRules;
use crate::app::AppState;
use crate::generation::{Generation, Piece, Update};
use crate::identity::Numbers;
use crate::openai::{
    ApiError, ChatChoice, ChatCompletion, ChatLogprob, ChatRequest, Head, Said, Streaming,
    TokenCounts, ToolChoice,
};
use crate::token_text::TokenText;

/// A chat request, ready for the engine.
struct Prepared {
    conversation: Conversation,
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
    /// How the text becomes a message.
    pub(super) answer: AnswerRules,
    /// One tool had to be called.
    pub(super) is_named_call: bool,
    pub(super) ids: Arc<Numbers>,
}

impl Shape {
    /// Whether all text is content.
    pub(super) fn is_plain(&self) -> bool {
        self.answer.calls.is_none() && self.answer.thinking.is_none()
    }

    /// Log-probabilities of a piece, if they were asked for.
    pub(super) fn logprobs(&self, piece: &Piece) -> Option<Vec<ChatLogprob>> {
        let tokens = piece.tokens.iter();
        self.with_logprobs
            .then(|| tokens.map(|token| self.token_text.chat(token)).collect())
    }
}

/// Answers a conversation, whole or as a stream.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = prepare::body(&state, body)?;
    let prepared = prepare::off_async_threads(&state, move |state| prepare(state, &body)).await?;
    let Prepared {
        conversation,
        shape,
    } = prepared;
    let Conversation {
        mut request,
        constraint,
        rules,
        ..
    } = conversation;
    request.id = state.engine.next_request_id();
    let events = state.engine.submit_constrained(request, constraint)?;
    let generation = Generation::new(events, shape.n, 0, &state.model.tokenizer, &rules);
    if shape.streaming.enabled {
        Ok(chat_stream::respond(shape, generation))
    } else {
        whole(shape, generation).await
    }
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared, ApiError> {
    let (name, fields) = prepare::fields(state, body)?;
    let chat = ChatRequest::parse(fields, state.model.vocab_size)?;
    let conversation = chat_prepare::conversation(state, &chat)?;
    let sampling = &chat.sampling;
    let tokenizer = state.model.tokenizer.clone();
    let shape = Shape {
        head: Head {
            service_tier: sampling.serving.tier(),
            ..state.head("chatcmpl-", name)
        },
        streaming: chat.streaming,
        n: sampling.n,
        n_prompt: conversation.n_prompt,
        with_logprobs: chat.logprobs.is_some(),
        token_text: TokenText::new(tokenizer, sampling.return_tokens_as_token_ids),
        answer: conversation.answer.clone(),
        is_named_call: chat.tools.choice == ToolChoice::Named,
        ids: state.ids(),
    };
    Ok(Prepared {
        conversation,
        shape,
    })
}

#[derive(Default)]
struct Collected {
    said: Said,
    logprobs: Vec<ChatLogprob>,
    finish_reason: &'static str,
}

async fn whole(shape: Shape, mut generation: Generation) -> Result<Response, ApiError> {
    let mut readers: Vec<_> = (0..shape.n)
        .map(|_| ChatChoiceReader::new(&shape))
        .collect();
    let mut choices: Vec<Collected> = (0..shape.n).map(|_| Collected::default()).collect();
    let mut counts = TokenCounts {
        prompt: shape.n_prompt as u64,
        ..TokenCounts::default()
    };
    while let Some(update) = generation.next().await {
        let (index, parts) = match update? {
            Update::PromptScored(_) => continue,
            Update::Text { index, piece } => (index, readers[index as usize].push(&shape, &piece)),
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                let reader = &mut readers[index as usize];
                let parts = reader.finish(&shape, &piece);
                counts.completion += totals.n_tokens;
                counts.cached = totals.n_cached;
                counts.reasoning += reader.n_reasoning(&totals);
                choices[index as usize].finish_reason = reader.finish_reason(reason);
                (index, parts)
            }
        };
        let choice = &mut choices[index as usize];
        for (part, logprobs) in parts {
            fold(&mut choice.said, part);
            choice.logprobs.extend(logprobs.unwrap_or_default());
        }
    }
    let choices = (0..).zip(choices).map(|(index, choice)| {
        let logprobs = shape.with_logprobs.then_some(choice.logprobs);
        ChatChoice::new(index, choice.said, logprobs, choice.finish_reason)
    });
    let answer = ChatCompletion::new(shape.head, choices.collect(), counts.into());
    Ok(Json(answer).into_response())
}
