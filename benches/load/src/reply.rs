//! Reading answers, whole ones and pieces of streams, without an SDK.

use serde::Deserialize;

use crate::outcome::Usage;

/// The members that matter, of whole answers and of chunks alike.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Reply {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counts>,
    pub(crate) error: Option<serde_json::Value>,
    /// Of embeddings.
    #[serde(default)]
    data: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    delta: Option<Message>,
    message: Option<Message>,
    finish_reason: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<String>,
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Counts {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

impl Reply {
    /// Usage, and the total that it claims.
    pub(crate) fn usage(&self) -> Option<(Usage, u64)> {
        let counts = self.usage?;
        let cached = counts.prompt_tokens_details.and_then(|d| d.cached_tokens);
        let usage = Usage {
            n_prompt: counts.prompt_tokens,
            n_output: counts.completion_tokens,
            n_cached: cached.unwrap_or_default(),
        };
        Some((usage, counts.total_tokens))
    }

    /// Whether it brings something of the answer; its text goes to `text`.
    pub(crate) fn take_text(&self, text: &mut String) -> bool {
        let mut has_some = false;
        for choice in &self.choices {
            let message = choice.delta.as_ref().or(choice.message.as_ref());
            let content = message.and_then(|message| message.content.as_deref());
            let said = choice.text.as_deref().or(content).unwrap_or_default();
            text.push_str(said);
            let thought = message.and_then(|message| message.reasoning_content.as_deref());
            let has_calls = message.and_then(|message| message.tool_calls.as_ref());
            has_some |= !said.is_empty()
                || thought.is_some_and(|thought| !thought.is_empty())
                || has_calls.is_some_and(|calls| !calls.is_empty());
        }
        has_some
    }

    /// Whether it says why the answer ended.
    pub(crate) fn has_finished(&self) -> bool {
        self.choices
            .iter()
            .any(|choice| choice.finish_reason.is_some())
    }

    /// Whether there is anything in a whole answer.
    pub(crate) fn is_answer(&self) -> bool {
        !self.choices.is_empty() || !self.data.is_empty()
    }
}
