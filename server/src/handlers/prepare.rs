//! What all generating endpoints do before they submit.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use scheduler::{FlowId, Request, RequestId};
use serde::Deserialize;
use serde_json::Value;

use super::unknown::{UnknownParams, read_without};
use crate::adapters::loader;
use crate::admission::BYTES_PER_TOKEN;
use crate::connections::{BodyError, body_error};
use crate::openai::{ApiError, Fields, Sampling};
use crate::state::AppState;

/// The body, if it came whole and is not too large. A call that has to wait takes its place with
/// it.
pub(crate) fn body(
    state: &AppState,
    body: Result<Bytes, BytesRejection>,
) -> Result<Bytes, ApiError> {
    let body = body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return ApiError::body_too_large(state.max_body_bytes);
        }
        unread(&error)
    })?;
    state.engine.enter(body.len() / BYTES_PER_TOKEN)?;
    Ok(body)
}

/// Why a body did not come whole.
pub(super) fn unread(error: &(dyn std::error::Error + 'static)) -> ApiError {
    match body_error(error) {
        Some(BodyError::Late) => ApiError::body_too_slow(),
        Some(BodyError::Ending) => ApiError::shutting_down(),
        Some(BodyError::TooMuch) => ApiError::bodies_too_large(),
        None => ApiError::bad_request(format!("The request body could not be read: {error}.")),
    }
}

/// The body's fields but for those that say which model it is for.
pub(super) fn fields(state: &AppState, body: &[u8]) -> Result<(String, Fields), ApiError> {
    let mut fields = Fields::from_body(body)?;
    if let Some(Value::String(name)) = fields.peek("model") {
        state.check_generates(name)?;
    }
    let (model, _) = state.choice(&mut fields)?;
    Ok((model, fields))
}

/// What a body says of the model it is for.
#[derive(Deserialize)]
struct Chosen {
    model: Option<Value>,
    adapter: Option<Value>,
    adapters: Option<Value>,
    prompt_cache_key: Option<Value>,
    user: Option<Value>,
    safety_identifier: Option<Value>,
}

impl Chosen {
    /// What the arm of an alias is chosen by, so that a conversation stays with one.
    fn key(&self) -> Option<&str> {
        let keys = [&self.prompt_cache_key, &self.user, &self.safety_identifier];
        keys.into_iter().flatten().find_map(Value::as_str)
    }
}

/// The state for a request with this body, which is to run: as [`with_model`] has it, and with a
/// place in the queue of its model.
pub(super) async fn with_adapters(state: &AppState, body: &Bytes) -> Result<AppState, ApiError> {
    let mut state = with_model(state, body).await?;
    state.enter(body.len() / BYTES_PER_TOKEN)?;
    Ok(state)
}

/// The state for a request with this body: with the arm of an alias that answers it, the one of
/// several models that it calls, and the adapters that it asks for, which are loaded first if
/// need be. What is wrong with the body is told when it is read as a whole.
pub(super) async fn with_model(state: &AppState, body: &Bytes) -> Result<AppState, ApiError> {
    let mut state = state.clone();
    if !state.adapters.are_served() && state.aliases.is_empty() && state.fleet.is_none() {
        return Ok(state);
    }
    let Ok(chosen) = serde_json::from_slice::<Chosen>(body) else {
        return Ok(state);
    };
    if let Some(Value::String(name)) = &chosen.model {
        state.arm = state.arm_of(name, chosen.key());
        let target = state.arm.as_ref().map_or(name, |arm| &arm.target);
        let names_adapters = [&chosen.adapter, &chosen.adapters]
            .into_iter()
            .flatten()
            .any(|value| !value.is_null());
        state = state.of_model(name, target, names_adapters).await?;
    }
    let fields = [
        ("model", chosen.model),
        ("adapter", chosen.adapter),
        ("adapters", chosen.adapters),
    ];
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let mut fields = Fields::from_value("", Value::Object(fields.collect()))?;
    let Ok((_, choice)) = state.choice(&mut fields) else {
        return Ok(state);
    };
    let lease = state.adapters.lease(&choice);
    state.lease = state.engine.in_time(lease).await??;
    Ok(state)
}

/// Bodies that take milliseconds to read, and so give way to the threads that compute.
const LARGE_BODY: usize = 64 << 10;
/// About a third of a core that is in demand.
const LARGE_NICE: i32 = 5;

/// Runs work that takes long for an async thread: parsing, templates, tokenization. Only some
/// of it at a time.
pub(super) async fn off_async_threads<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&AppState) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    prepared(state, 0, work).await
}

/// The same for a body of `n_bytes`.
async fn prepared<T: Send + 'static>(
    state: &AppState,
    n_bytes: usize,
    work: impl FnOnce(&AppState) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "preparing a request failed");
        ApiError::internal_for_good("The server had an error while processing your request.")
    };
    let is_large = n_bytes > LARGE_BODY;
    let turns = if is_large {
        &state.preparing_large
    } else {
        &state.preparing
    };
    let turn = Arc::clone(turns).acquire_owned().await;
    let turn = turn.map_err(|error| failed(&error))?;
    let span = tracing::Span::current();
    let metrics = Arc::clone(&state.metrics);
    let state = state.clone();
    let work = move || {
        let done = span.in_scope(|| work(&state));
        drop(turn);
        done
    };
    let done = if is_large {
        let done = loader::run_at(LARGE_NICE, work).await;
        done.map_err(|error| failed(&error))
    } else {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| failed(&error))
    };
    done.unwrap_or_else(|error| {
        metrics.count_panic("preparation");
        Err(error)
    })
}

/// Reads a body off the async threads. Parameters that nobody knows are refused or left out, as
/// the operator has chosen.
pub(super) async fn reading<T: Send + 'static>(
    state: &AppState,
    body: Bytes,
    read: impl Fn(&AppState, &[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    prepared(state, body.len(), move |state| match state.unknown_params {
        UnknownParams::Refuse => read(state, &body),
        UnknownParams::Warn => read_without(&body, |body| read(state, body)),
    })
    .await
}

/// Refuses text that cannot fit before it is tokenized, which takes the longer the longer it is.
pub(super) fn check_text(state: &AppState, input: Input, text: &str) -> Result<(), ApiError> {
    let n_least = state.model.tokenizer.least_tokens(text);
    let max_model_len = state.model.max_model_len;
    if n_least <= max_model_len as usize {
        return Ok(());
    }
    let (param, what) = input.words();
    let message = format!(
        "This model's maximum context length is {max_model_len} tokens. However, your {what} \
         resulted in at least {n_least} tokens. Please reduce the length of the {what}."
    );
    Err(ApiError::invalid(param, "context_length_exceeded", message))
}

/// Refuses more answers than one request may ask for. `n` is of each prompt, by the parameter
/// `param`.
pub(super) fn check_choices(
    state: &AppState,
    n_prompts: usize,
    n: u32,
    param: &str,
) -> Result<(), ApiError> {
    let n_choices = n_prompts.saturating_mul(n as usize);
    let max = state.max_choices;
    if n_choices <= max as usize {
        return Ok(());
    }
    let (param, code) = if n > 1 {
        (param, "integer_above_max_value")
    } else {
        ("prompt", "array_above_max_length")
    };
    let message = format!(
        "Invalid '{param}': {n_prompts} prompts with {n} choices each are {n_choices} choices, \
         but this server generates at most {max} for one request."
    );
    Err(ApiError::invalid(param, code, message))
}

/// How the length of a request is worded to its client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Messages,
    Prompt,
    /// Of a response.
    Items,
}

impl Input {
    /// Its parameter, and what it is.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Messages => ("messages", "messages"),
            Self::Prompt => ("prompt", "prompt"),
            Self::Items => ("input", "input"),
        }
    }
}

/// Lengths of a request, before they are known to fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) n_prompt: usize,
    /// `None`: as much as fits.
    pub(super) max_tokens: Option<u32>,
    /// Tokens that must at least have room.
    pub(super) n_needed: u32,
}

/// Tokens that may be generated; an error if the request exceeds the context.
pub(super) fn max_new_tokens(
    state: &AppState,
    input: Input,
    lengths: Lengths,
) -> Result<u32, ApiError> {
    let max_model_len = state.model.max_model_len;
    let n_prompt = u32::try_from(lengths.n_prompt).unwrap_or(u32::MAX);
    let n_wanted = lengths.max_tokens.unwrap_or(lengths.n_needed);
    let n_total = u64::from(n_prompt) + u64::from(n_wanted);
    if n_total <= u64::from(max_model_len) {
        return Ok(lengths.max_tokens.unwrap_or(max_model_len - n_prompt));
    }
    let (param, what) = input.words();
    let message = match (input, lengths.max_tokens) {
        (Input::Prompt, _) => format!(
            "This model's maximum context length is {max_model_len} tokens, however you \
             requested {n_total} tokens ({n_prompt} in your prompt; {n_wanted} for the \
             completion). Please reduce your prompt; or completion length."
        ),
        (_, Some(n_new)) if n_prompt < max_model_len => format!(
            "This model's maximum context length is {max_model_len} tokens. However, you \
             requested {n_total} tokens ({n_prompt} in the {what}, {n_new} in the completion). \
             Please reduce the length of the {what} or completion."
        ),
        _ => format!(
            "This model's maximum context length is {max_model_len} tokens. However, your \
             {what} resulted in {n_prompt} tokens. Please reduce the length of the {what}."
        ),
    };
    Err(ApiError::invalid(param, "context_length_exceeded", message))
}

/// Refuses a prompt of so many tokens that is to be read as a whole.
pub(super) fn check_length(
    state: &AppState,
    input: Input,
    n_prompt: usize,
) -> Result<(), ApiError> {
    let lengths = Lengths {
        n_prompt,
        max_tokens: None,
        n_needed: 0,
    };
    max_new_tokens(state, input, lengths).map(drop)
}

/// The parts of a request that the scheduler is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) n: u32,
    pub(super) max_new_tokens: u32,
    pub(super) logprobs: Option<u8>,
    pub(super) prompt_logprobs: Option<u8>,
    /// First prompt token that is scored.
    pub(super) scored_from: u32,
    pub(super) seed: u64,
}

/// A request for the engine, still without its id.
pub(super) fn request(
    state: &AppState,
    prompt: Vec<u32>,
    sampling: &Sampling,
    plan: Plan,
) -> Result<Request, ApiError> {
    if sampling.min_tokens > plan.max_new_tokens {
        let message = format!(
            "Invalid 'min_tokens': integer above maximum value. Expected a value <= {} (the \
             tokens that may be generated), but got {} instead.",
            plan.max_new_tokens, sampling.min_tokens
        );
        return Err(ApiError::invalid(
            "min_tokens",
            "integer_above_max_value",
            message,
        ));
    }
    let eos_tokens = &state.model.eos_tokens;
    Ok(Request {
        id: RequestId(0),
        prompt: prompt.into(),
        n: plan.n,
        max_new_tokens: plan.max_new_tokens,
        min_new_tokens: sampling.min_tokens,
        stop_tokens: if sampling.ignore_eos {
            [].into()
        } else {
            eos_tokens.clone()
        },
        adapter: state.lease.as_ref().map(|lease| lease.id()),
        kv_root: sampling.serving.kv_root(state.kv_root()),
        sampling: sampling.to_params(plan.seed, plan.logprobs),
        prompt_logprobs: plan.prompt_logprobs,
        scored_from: plan.scored_from,
        pooling: None,
        // The engine knows whether a grammar steers it, and whose it is.
        is_steered: false,
        flow: FlowId::default(),
        priority: sampling.serving.priority(state.allow_priority)?,
    })
}
