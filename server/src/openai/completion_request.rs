//! The body of `POST /v1/completions`.

use serde_json::Value;

use super::chat_request::take_hosted_hints;
use super::fields::{array_too_long, empty_array, type_name};
use super::{ApiError, Fields, Sampling, Streaming};

/// Most prompts of one request.
const MAX_PROMPTS: usize = 2048;
/// Tokens generated unless told otherwise, as the hosted API has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// One prompt: text, or tokens that the client has made itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A completion request, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    pub prompts: Vec<Prompt>,
    pub sampling: Sampling,
    pub streaming: Streaming,
    pub max_tokens: u32,
    /// Whether the client named `max_tokens` (a default may be cut to fit the context).
    pub max_tokens_is_explicit: bool,
    /// Candidates to generate for each prompt; the `n` best of them are returned.
    pub best_of: u32,
    pub echo: bool,
    pub logprobs: Option<u8>,
}

impl CompletionRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields, vocab_size: usize) -> Result<Self, ApiError> {
        let prompts = prompts(&mut body, vocab_size)?;
        let sampling = Sampling::take(&mut body, vocab_size)?;
        let streaming = Streaming::take(&mut body)?;
        let echo = body.bool("echo")?.unwrap_or(false);
        // Without echo, zero tokens would be an answer without content.
        let max_tokens = body.count("max_tokens", u32::from(!echo), u32::MAX)?;
        let best_of = best_of(&mut body, &sampling, streaming)?;
        let logprobs = body.count("logprobs", 0, 5)?;
        take_hosted_hints(&mut body)?;
        body.refuse("suffix")?;
        body.finish()?;
        Ok(Self {
            prompts,
            sampling,
            streaming,
            max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            max_tokens_is_explicit: max_tokens.is_some(),
            best_of,
            echo,
            logprobs: logprobs.map(|k| u8::try_from(k).expect("at most 5")),
        })
    }
}

fn best_of(body: &mut Fields, sampling: &Sampling, streaming: Streaming) -> Result<u32, ApiError> {
    let Some(best_of) = body.count("best_of", 0, 20)? else {
        return Ok(sampling.n);
    };
    if best_of < sampling.n {
        let message = format!(
            "Invalid 'best_of': expected a value >= 'n' ({}), but got {best_of} instead.",
            sampling.n
        );
        return Err(ApiError::invalid(
            "best_of",
            "integer_below_min_value",
            message,
        ));
    }
    if best_of > sampling.n && streaming.enabled {
        let value = "a value greater than 'n' together with 'stream'";
        return Err(ApiError::unsupported_value("best_of", value));
    }
    Ok(best_of)
}

const EXPECTED: &str = "one of a string, an array of strings, an array of token ids or an array of arrays of token ids";

fn prompts(body: &mut Fields, vocab_size: usize) -> Result<Vec<Prompt>, ApiError> {
    let items = match body.require("prompt", EXPECTED)? {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        other => return Err(body.wrong_type("prompt", EXPECTED, &other)),
    };
    match items.first() {
        None => Err(empty_array("prompt")),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(tokens("prompt", &items, vocab_size)?)]),
        Some(_) if items.len() > MAX_PROMPTS => {
            Err(array_too_long("prompt", MAX_PROMPTS, items.len()))
        }
        Some(Value::String(_)) => items.into_iter().enumerate().map(text).collect(),
        Some(_) => {
            let lists = items.iter().enumerate().map(|(i, item)| {
                let path = format!("prompt[{i}]");
                match item {
                    Value::Array(ids) => Ok(Prompt::Tokens(tokens(&path, ids, vocab_size)?)),
                    other => {
                        let expected = "an array of token ids";
                        Err(ApiError::wrong_type(&path, expected, type_name(other)))
                    }
                }
            });
            lists.collect()
        }
    }
}

fn text((i, item): (usize, Value)) -> Result<Prompt, ApiError> {
    match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        other => {
            let path = format!("prompt[{i}]");
            Err(ApiError::wrong_type(&path, "a string", type_name(&other)))
        }
    }
}

fn tokens(path: &str, ids: &[Value], vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    if ids.is_empty() {
        return Err(empty_array(path));
    }
    let ids = ids.iter().enumerate().map(|(i, id)| {
        let path = format!("{path}[{i}]");
        let number = id
            .as_i64()
            .ok_or_else(|| ApiError::wrong_type(&path, "an integer", type_name(id)))?;
        u32::try_from(number)
            .ok()
            .filter(|id| (*id as usize) < vocab_size)
            .ok_or_else(|| {
                let message = format!(
                    "Invalid '{path}': expected a token id of this model, an integer from 0 to \
                     {}, but got {number} instead.",
                    vocab_size.saturating_sub(1)
                );
                ApiError::invalid(&path, "invalid_value", message)
            })
    });
    ids.collect()
}
