//! Bodies of `/tokenize`, `/detokenize` and `/apply-template`.

use serde_json::Value;

use super::fields::{array_too_long, empty_array};
use super::prompts::tokens;
use super::{ApiError, ChatRequest, Fields};

/// Most bytes of a text that is made into tokens.
const MAX_TEXT: usize = 4 << 20;
/// Most tokens that are made into a text.
const MAX_TOKENS: usize = 1 << 20;

/// What is to be made into tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Tokenized {
    /// `add_special_tokens`: with the model's own beginning and end.
    Prompt { text: String, adds_special: bool },
    /// A conversation, as it would be answered.
    Chat(Box<ChatRequest>),
}

/// A request for tokens, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizeRequest {
    pub what: Tokenized,
    /// Whether to tell each token's text.
    pub with_texts: bool,
}

impl TokenizeRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields, vocab_size: usize) -> Result<Self, ApiError> {
        let with_texts = body.bool("return_token_strs")?.unwrap_or(false);
        let adds_special = body.bool("add_special_tokens")?;
        if body.has("messages") && !body.has("prompt") {
            if adds_special == Some(true) {
                let value = "true for 'messages': chat templates write the special tokens";
                return Err(ApiError::unsupported_value("add_special_tokens", value));
            }
            let chat = ChatRequest::parse(body, vocab_size)?;
            return Ok(Self {
                what: Tokenized::Chat(Box::new(chat)),
                with_texts,
            });
        }
        let text = body.required_string("prompt")?;
        if text.len() > MAX_TEXT {
            let message = format!(
                "Invalid 'prompt': string too long. Expected a string of at most {MAX_TEXT} \
                 bytes, but got a string of {} bytes instead.",
                text.len()
            );
            let code = "string_above_max_length";
            return Err(ApiError::invalid("prompt", code, message));
        }
        body.finish()?;
        Ok(Self {
            what: Tokenized::Prompt {
                text,
                adds_special: adds_special.unwrap_or(true),
            },
            with_texts,
        })
    }
}

/// Tokens that are to be made into a text.
pub fn detokenized(mut body: Fields, vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    const EXPECTED: &str = "an array of token ids";
    let ids = match body.require("tokens", EXPECTED)? {
        Value::Array(ids) if ids.is_empty() => return Err(empty_array("tokens")),
        Value::Array(ids) => ids,
        other => return Err(body.wrong_type("tokens", EXPECTED, &other)),
    };
    if ids.len() > MAX_TOKENS {
        return Err(array_too_long("tokens", MAX_TOKENS, ids.len()));
    }
    body.finish()?;
    tokens("tokens", &ids, vocab_size)
}
