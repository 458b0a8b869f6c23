//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use scheduler::{Event, FinishReason, Request};
use serde_json::Value;

use super::prepare;
use crate::admission::Call;
use crate::aliases::Meter;
use crate::embedder::{Embedder, EmbeddingModel};
use crate::engine::TokenStream;
use crate::openai::{ApiError, EmbeddingList, EmbeddingRequest, EncodingFormat, Fields, Prompt};
use crate::state::AppState;

/// A request, ready for the engine.
struct Prepared {
    embedder: Arc<Embedder>,
    name: String,
    requests: Vec<Request>,
    format: EncodingFormat,
    dimensions: Option<u32>,
}

/// One vector for each input.
pub(crate) async fn create(
    Call(state): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let body = prepare::body(&state, body)?;
    let prepared = prepare::reading(&state, body, prepare).await?;
    let Prepared {
        embedder,
        name,
        mut requests,
        format,
        dimensions,
    } = prepared;
    for request in &mut requests {
        request.id = state.engine.next_request_id();
    }
    let n_tokens: Vec<usize> = requests.iter().map(|r| r.prompt.len()).collect();
    let requests = requests.into_iter().map(|request| (request, None));
    let streams = state.engine.submit_all(requests.collect(), None)?;
    let mut vectors = Vec::with_capacity(streams.len());
    for (stream, &n_tokens) in streams.into_iter().zip(&n_tokens) {
        let pooled = pooled(stream).await?;
        vectors.push(embedder.model.finish(&pooled, n_tokens, dimensions));
    }
    let n_tokens = n_tokens.iter().sum::<usize>() as u64;
    state.metrics.embedded_texts.increment(vectors.len() as u64);
    state.metrics.embedded_tokens.increment(n_tokens);
    Ok(Json(EmbeddingList::new(name, vectors, format, n_tokens)))
}

fn prepare(state: &AppState, body: &[u8]) -> Result<Prepared, ApiError> {
    let mut fields = Fields::from_body(body)?;
    let name = fields.required_string("model")?;
    let key = fields.peek("user").and_then(Value::as_str);
    let arm = state.arm_of(&name, key);
    let embedder = state.embedder_of(&name, arm.as_ref().map_or(&name, |arm| &arm.target))?;
    if let Some(arm) = &arm {
        Meter::begin(&state.metrics, &arm.alias, &arm.target, false);
    }
    let model = &embedder.model;
    let request = EmbeddingRequest::parse(fields, model.vocab_size, model.width)?;
    if request.dimensions.is_some_and(|n| n != model.width) && !model.is_matryoshka {
        let message = "This model does not support specifying dimensions.";
        return Err(ApiError::invalid(
            "dimensions",
            "unsupported_value",
            message,
        ));
    }
    let requests = request.inputs.into_iter().enumerate();
    let requests = requests.map(|(i, input)| Ok(model.request(tokens(model, i, input)?)));
    Ok(Prepared {
        requests: requests.collect::<Result<_, ApiError>>()?,
        name,
        format: request.format,
        dimensions: request.dimensions,
        embedder,
    })
}

/// Tokens of the `i`th input, which fit the model.
fn tokens(model: &EmbeddingModel, i: usize, input: Prompt) -> Result<Vec<u32>, ApiError> {
    let max_tokens = model.max_tokens;
    let too_long = |n_tokens: usize, at_least: &str| {
        let message = format!(
            "This model's maximum context length is {max_tokens} tokens, however you requested \
             {at_least}{n_tokens} tokens (input {i}). Please reduce the length of the input."
        );
        Err(ApiError::invalid(
            "input",
            "context_length_exceeded",
            message,
        ))
    };
    let tokens = match input {
        Prompt::Tokens(tokens) => tokens,
        Prompt::Text(text) => {
            let n_least = model.tokenizer.least_tokens(&text);
            if !model.cuts && n_least > max_tokens {
                return too_long(n_least, "at least ");
            }
            let encoded = model.encode(&text);
            encoded.map_err(|error| ApiError::internal_for_good(error.to_string()))?
        }
    };
    match tokens.len() {
        0 => {
            let message = format!("Invalid 'input': input {i} has no tokens.");
            Err(ApiError::invalid("input", "invalid_value", message))
        }
        n if n > max_tokens => too_long(n, ""),
        _ => Ok(tokens),
    }
}

/// What the engine made of one input.
async fn pooled(mut stream: TokenStream) -> Result<Arc<[f64]>, ApiError> {
    let mut pooled = None;
    while let Some(event) = stream.next().await {
        match event? {
            Event::Pooled { vector, .. } => pooled = Some(vector),
            Event::Finished {
                reason: FinishReason::Cancelled,
                ..
            } => return Err(ApiError::shutting_down()),
            Event::Finished { failure, .. } => {
                if let Some(failure) = failure {
                    tracing::error!(%failure, "a row failed");
                }
            }
            Event::PromptScored { .. } | Event::Token { .. } => {}
        }
    }
    pooled.ok_or_else(|| {
        ApiError::internal(
            "The server had an error while processing your request. The request can be retried.",
        )
    })
}
