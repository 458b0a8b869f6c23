//! Chat templates: messages to prompt text.

mod engine;
mod functions;
mod json;
mod messages;
mod sources;
mod strftime;

use std::time::SystemTime;

use models::{Checkpoint, Gguf};
use serde_json::{Map, Value};

use engine::Compiled;
use sources::Sources;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    default: Compiled,
    /// Used instead when the request brings tools.
    tool_use: Option<Compiled>,
}

/// A template that does not compile, raises, loops or fails.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template's own `raise_exception(...)`: the conversation is not one it supports.
    #[error("{0}")]
    Raised(String),
    #[error("{file}: {message}")]
    Failed { file: String, message: String },
}

/// Where `strftime_now` takes the time from.
pub type Clock = fn() -> SystemTime;

/// The texts of a directory's templates: the usual one, and the one for tools.
pub(super) fn texts_of_dir(
    dir: &std::path::Path,
) -> Result<(Option<String>, Option<String>), TemplateError> {
    let sources = sources::of_dir(dir)?;
    Ok((sources.default, sources.tool_use))
}

impl ChatTemplate {
    /// From `chat_template.jinja`, `tokenizer_config.json` or GGUF metadata; `None` where the
    /// model has none (a base model).
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Self>, TemplateError> {
        match (checkpoint.dir(), checkpoint.gguf()) {
            (Some(dir), _) => Self::from_dir(dir, SystemTime::now),
            (None, Some(gguf)) => Self::from_gguf(gguf, SystemTime::now),
            (None, None) => Ok(None),
        }
    }

    /// From a directory in Hugging Face layout, with a clock of the caller's.
    pub fn from_dir(dir: &std::path::Path, clock: Clock) -> Result<Option<Self>, TemplateError> {
        Self::compile(sources::of_dir(dir)?, clock)
    }

    /// From the metadata of a GGUF file, with a clock of the caller's.
    pub fn from_gguf(gguf: &Gguf, clock: Clock) -> Result<Option<Self>, TemplateError> {
        let file = gguf.path().display().to_string();
        Self::compile(sources::of_gguf(&file, &|key| gguf.get(key))?, clock)
    }

    /// From the text of a template. `file` is what errors name; `tokens` are variables such as
    /// `bos_token` and `eos_token`.
    pub fn from_text(
        file: &str,
        text: &str,
        tokens: &Map<String, Value>,
        clock: Clock,
    ) -> Result<Self, TemplateError> {
        Ok(Self {
            default: Compiled::new(file, text, tokens, clock)?,
            tool_use: None,
        })
    }

    fn compile(sources: Sources, clock: Clock) -> Result<Option<Self>, TemplateError> {
        let compile = |text: &str| Compiled::new(&sources.file, text, &sources.tokens, clock);
        let Some(default) = &sources.default else {
            return Ok(None);
        };
        Ok(Some(Self {
            default: compile(default)?,
            tool_use: sources.tool_use.as_deref().map(compile).transpose()?,
        }))
    }

    /// The file that the template is from.
    pub fn file(&self) -> &str {
        self.default.file()
    }

    /// The text of the template that conversations with tools are rendered by.
    pub fn source(&self) -> String {
        self.tool_use.as_ref().unwrap_or(&self.default).source()
    }

    /// Renders a conversation. `messages` is the array of the API; `tools` its tools, if any;
    /// `kwargs` extra variables (`chat_template_kwargs`).
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let tools = tools.filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty()));
        let template = match &self.tool_use {
            Some(tool_use) if tools.is_some() => tool_use,
            _ => &self.default,
        };
        template.render(messages, tools, add_generation_prompt, kwargs)
    }
}

#[cfg(test)]
mod tests;
