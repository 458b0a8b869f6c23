//! `metadata`: what clients write on objects that are stored.

use serde_json::{Map, Value};

use super::fields::{array_too_long, type_name};
use super::{ApiError, Fields};

const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// Takes `metadata`: at most 16 pairs of short strings.
pub(super) fn take(body: &mut Fields) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(map) = body.object("metadata")? else {
        return Ok(None);
    };
    if map.len() > MAX_PAIRS {
        return Err(array_too_long("metadata", MAX_PAIRS, map.len())
            .with_code("object_above_max_properties"));
    }
    for (key, value) in &map {
        let path = format!("metadata.{key}");
        let Value::String(text) = value else {
            return Err(ApiError::wrong_type(&path, "a string", type_name(value)));
        };
        for (text, max) in [(key, MAX_KEY), (text, MAX_VALUE)] {
            let n_characters = text.chars().count();
            if n_characters > max {
                let message = format!(
                    "Invalid '{path}': string too long. Expected a string with maximum length \
                     {max}, but got a string with length {n_characters} instead."
                );
                let code = "string_above_max_length";
                return Err(ApiError::invalid(&path, code, message));
            }
        }
    }
    Ok(Some(map))
}
