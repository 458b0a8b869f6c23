//! Where the texts of chat templates are.

use std::path::Path;

use models::GgufValue;
use serde_json::{Map, Value};

use super::TemplateError;
use crate::text::tokenizer::{read_json, token_text};

/// The template texts of a model and the special tokens that they use as variables.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) file: String,
    pub(super) default: Option<String>,
    pub(super) tool_use: Option<String>,
    pub(super) tokens: Map<String, Value>,
}

const TOKENS: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// Hugging Face layout: `chat_template.jinja`, else `chat_template.json`, else `chat_template` of
/// tokenizer_config.json, which is a text or a list of named ones.
pub(super) fn of_dir(dir: &Path) -> Result<Sources, TemplateError> {
    let config_path = dir.join("tokenizer_config.json");
    let config = json_or_null(&config_path)?;
    let mut sources = Sources {
        file: config_path.display().to_string(),
        default: None,
        tool_use: None,
        tokens: tokens_of(
            &config,
            &json_or_null(&dir.join("special_tokens_map.json"))?,
        ),
    };
    let text_path = dir.join("chat_template.jinja");
    let json_path = dir.join("chat_template.json");
    if text_path.exists() {
        sources.file = text_path.display().to_string();
        sources.default = Some(text_of(&text_path)?);
        let tool_use = dir.join("additional_chat_templates").join("tool_use.jinja");
        if tool_use.exists() {
            sources.tool_use = Some(text_of(&tool_use)?);
        }
    } else if json_path.exists() {
        sources.file = json_path.display().to_string();
        sources.set(&json_or_null(&json_path)?["chat_template"])?;
    } else {
        sources.set(&config["chat_template"])?;
    }
    Ok(sources)
}

/// GGUF: `tokenizer.chat_template` and `tokenizer.chat_template.tool_use`; tokens by their ids.
pub(super) fn of_gguf<'a>(
    file: &str,
    get: &dyn Fn(&str) -> Option<&'a GgufValue>,
) -> Result<Sources, TemplateError> {
    let text = |key: &str| match get(key) {
        None => Ok(None),
        Some(GgufValue::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(failed(file, format!("metadata {key} is not a string"))),
    };
    let mut tokens = Map::new();
    for (name, key) in [
        ("bos_token", "tokenizer.ggml.bos_token_id"),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
    ] {
        let id = match get(key) {
            Some(GgufValue::Unsigned(id)) => usize::try_from(*id).ok(),
            Some(GgufValue::Signed(id)) => usize::try_from(*id).ok(),
            _ => None,
        };
        let Some(GgufValue::Array(all)) = get("tokenizer.ggml.tokens") else {
            continue;
        };
        if let Some(GgufValue::String(token)) = id.and_then(|id| all.get(id)) {
            tokens.insert(name.to_string(), Value::String(token.clone()));
        }
    }
    Ok(Sources {
        file: file.to_string(),
        default: text("tokenizer.chat_template")?,
        tool_use: text("tokenizer.chat_template.tool_use")?,
        tokens,
    })
}

impl Sources {
    /// Takes a text or a list of `{name, template}`.
    fn set(&mut self, template: &Value) -> Result<(), TemplateError> {
        match template {
            Value::Null => {}
            Value::String(text) => self.default = Some(text.clone()),
            Value::Array(named) => {
                for entry in named {
                    let text = entry["template"].as_str().map(str::to_string);
                    match entry["name"].as_str() {
                        Some("default") => self.default = text,
                        Some("tool_use") => self.tool_use = text,
                        // Other names (`rag`, ...) are for callers that ask for them.
                        _ => {}
                    }
                }
                if self.default.is_none() {
                    self.default = self.tool_use.clone();
                }
            }
            _ => {
                let message = "chat_template is neither a text nor a list of named texts";
                return Err(failed(&self.file, message.into()));
            }
        }
        Ok(())
    }
}

fn tokens_of(config: &Value, map: &Value) -> Map<String, Value> {
    let mut tokens = Map::new();
    for name in TOKENS {
        if let Some(text) = token_text(&config[name]).or_else(|| token_text(&map[name])) {
            tokens.insert(name.to_string(), Value::String(text));
        }
    }
    tokens
}

fn json_or_null(path: &Path) -> Result<Value, TemplateError> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    read_json(path).map_err(|error| failed(&error.file, error.message))
}

fn text_of(path: &Path) -> Result<String, TemplateError> {
    std::fs::read_to_string(path)
        .map_err(|error| failed(&path.display().to_string(), error.to_string()))
}

fn failed(file: &str, message: String) -> TemplateError {
    TemplateError::Failed {
        file: file.to_string(),
        message,
    }
}
