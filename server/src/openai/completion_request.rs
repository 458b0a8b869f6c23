//! The body of `POST /v1/completions`.

use super::chat_request::take_hosted_hints;
use super::prompts::{Prompt, take_prompts};
use super::{ApiError, Fields, Sampling, Streaming};

/// Tokens generated unless told otherwise, as the hosted API has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

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
        let prompts = take_prompts(&mut body, "prompt", vocab_size)?;
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
