//! Chat templates: messages to prompt text.

use models::Checkpoint;
use serde_json::{Map, Value};

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {}

/// A template that does not compile, raises, loops or fails.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template's own `raise_exception(...)`: the conversation is not one it supports.
    #[error("{0}")]
    Raised(String),
    #[error("{file}: {message}")]
    Failed { file: String, message: String },
}

impl ChatTemplate {
    /// From `chat_template.jinja`, `tokenizer_config.json` or GGUF metadata; `None` where the
    /// model has none (a base model).
    pub fn load(_checkpoint: &Checkpoint) -> Result<Option<Self>, TemplateError> {
        unimplemented!()
    }

    /// Renders a conversation. `messages` is the array of the API; `tools` its tools, if any;
    /// `kwargs` extra variables (`chat_template_kwargs`).
    pub fn render(
        &self,
        _messages: &Value,
        _tools: Option<&Value>,
        _add_generation_prompt: bool,
        _kwargs: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        unimplemented!()
    }
}
