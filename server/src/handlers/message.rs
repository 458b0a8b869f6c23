//! One choice of a chat: deltas in, parts of a message out.

use std::sync::Arc;

use crate::answer::Delta;
use crate::generation::Piece;
use crate::identity::Numbers;
use crate::openai::{ChatLogprob, ChunkPart, Said, ToolCall, ToolChoice};
use crate::token_text::TokenText;

/// How deltas become a message.
#[derive(Clone, Debug)]
pub(super) struct MessageRules {
    pub(super) with_logprobs: bool,
    pub(super) token_text: TokenText,
    pub(super) tool_choice: ToolChoice,
    pub(super) ids: Arc<Numbers>,
}

impl MessageRules {
    /// Whether the answer had to be calls, so that it has no text.
    pub(super) fn must_call(&self) -> bool {
        matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named)
    }
}

/// Reads a choice, streamed or not.
#[derive(Debug)]
pub(super) struct MessageReader {
    rules: MessageRules,
    has_calls: bool,
}

/// A part of the message, and the log-probabilities that come with it.
pub(super) type Part = (ChunkPart, Option<Vec<ChatLogprob>>);

impl MessageReader {
    pub(super) fn new(rules: &MessageRules) -> Self {
        Self {
            rules: rules.clone(),
            has_calls: false,
        }
    }

    /// What the choice ended by. The hosted API says `stop` of a call that it was told to make.
    pub(super) fn finish_reason(&self, reason: &'static str) -> &'static str {
        let is_named = self.rules.tool_choice == ToolChoice::Named;
        if reason == "stop" && self.has_calls && !is_named {
            "tool_calls"
        } else {
            reason
        }
    }

    /// More of the choice. Log-probabilities go with the first part of what they came with.
    pub(super) fn push(&mut self, piece: Piece) -> Vec<Part> {
        let with_logprobs = self.rules.with_logprobs;
        let text = &self.rules.token_text;
        let tokens = piece.tokens.iter().filter(|_| with_logprobs);
        let mut logprobs: Vec<ChatLogprob> = tokens.map(|token| text.chat(token)).collect();
        let mut parts = Vec::with_capacity(piece.deltas.len());
        for delta in piece.deltas {
            self.has_calls |= matches!(delta, Delta::Call { .. });
            let logprobs = with_logprobs.then(|| std::mem::take(&mut logprobs));
            parts.push((self.part(delta), logprobs));
        }
        // A token that a stop string cuts has no text, and an answer must not lose any.
        if !logprobs.is_empty() {
            parts.push((ChunkPart::Nothing, Some(logprobs)));
        }
        parts
    }

    fn part(&self, delta: Delta) -> ChunkPart {
        match delta {
            Delta::Content(text) => ChunkPart::Content(text),
            Delta::Reasoning(text) => ChunkPart::Reasoning(text),
            Delta::Call { index, name } => ChunkPart::Call {
                index,
                id: self.rules.ids.id("call_"),
                name,
            },
            Delta::Arguments { index, json } => ChunkPart::Arguments { index, json },
        }
    }
}

/// Folds a part into the message that a client is told at once.
pub(super) fn fold(said: &mut Said, part: ChunkPart) {
    match part {
        ChunkPart::Nothing => {}
        ChunkPart::Content(text) => said.content.push_str(&text),
        ChunkPart::Reasoning(text) => said.reasoning.push_str(&text),
        ChunkPart::Call { id, name, .. } => {
            said.calls.push(ToolCall::new(id, name, String::new()));
        }
        ChunkPart::Arguments { json, .. } => {
            if let Some(call) = said.calls.last_mut() {
                call.function.arguments.push_str(&json);
            }
        }
    }
}
