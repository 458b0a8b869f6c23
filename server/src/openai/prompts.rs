//! Lists of texts or tokens, as completions and embeddings take them.

use serde_json::Value;

use super::fields::{array_too_long, empty_array, type_name, whole};
use super::{ApiError, Fields};

/// Most prompts of one request.
const MAX_PROMPTS: usize = 2048;

/// One prompt: text, or tokens that the client has made itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

const EXPECTED: &str = "one of a string, an array of strings, an array of token ids or an array of arrays of token ids";

/// Takes field `name`. Lists must not be empty.
pub(super) fn take_prompts(
    body: &mut Fields,
    name: &str,
    vocab_size: usize,
) -> Result<Vec<Prompt>, ApiError> {
    let items = match body.require(name, EXPECTED)? {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        other => return Err(body.wrong_type(name, EXPECTED, &other)),
    };
    match items.first() {
        None => Err(empty_array(name)),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(tokens(name, &items, vocab_size)?)]),
        Some(_) if items.len() > MAX_PROMPTS => Err(array_too_long(name, MAX_PROMPTS, items.len())),
        Some(Value::String(_)) => items
            .into_iter()
            .enumerate()
            .map(|item| text(name, item))
            .collect(),
        Some(_) => {
            let lists = items.iter().enumerate().map(|(i, item)| {
                let path = format!("{name}[{i}]");
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

fn text(name: &str, (i, item): (usize, Value)) -> Result<Prompt, ApiError> {
    match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        other => {
            let path = format!("{name}[{i}]");
            Err(ApiError::wrong_type(&path, "a string", type_name(&other)))
        }
    }
}

pub(super) fn tokens(path: &str, ids: &[Value], vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    if ids.is_empty() {
        return Err(empty_array(path));
    }
    let ids = ids.iter().enumerate().map(|(i, id)| {
        let path = format!("{path}[{i}]");
        let number =
            whole(id).ok_or_else(|| ApiError::wrong_type(&path, "an integer", type_name(id)))?;
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
