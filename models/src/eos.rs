//! Tokens that end a generation.

use std::path::Path;

use serde_json::Value;

use crate::config::Fields;
use crate::{Gguf, LoadError};

/// generation_config.json overrules config.json: it is what its authors generate with, and
/// chat models list their end-of-turn tokens there.
pub(crate) fn from_directory(
    dir: &Path,
    config_path: &Path,
    config_text: &str,
) -> Result<Vec<u32>, LoadError> {
    let path = dir.join("generation_config.json");
    if path.is_file() {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| LoadError::new(&path, format!("cannot be read: {error}")))?;
        let tokens = read(&path, &text)?;
        if !tokens.is_empty() {
            return Ok(tokens);
        }
    }
    read(config_path, config_text)
}

fn read(file: &Path, text: &str) -> Result<Vec<u32>, LoadError> {
    let json: Value = serde_json::from_str(text)
        .map_err(|error| LoadError::new(file, format!("not valid JSON: {error}")))?;
    Fields::of_root(file, &json)?.tokens("eos_token_id")
}

/// End of sequence, of turn and of message, as far as the file names them.
pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Vec<u32>, LoadError> {
    let mut tokens = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(value) = gguf.get(&key) else {
            continue;
        };
        let token = value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| {
                LoadError::new(
                    gguf.path(),
                    format!(
                        "metadata `{key}`: expected a token id, found {}",
                        value.describe()
                    ),
                )
            })?;
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}
