//! One choice of a chat: pieces of text in, parts of a message out.

use std::sync::Arc;

use super::chat::Shape;
use crate::answer::{AnswerParser, Delta};
use crate::generation::{ChoiceTotals, Piece};
use crate::identity::Numbers;
use crate::openai::{ChatLogprob, ChunkPart, Said, ToolCall};

/// Reads a choice, streamed or not.
pub(super) struct ChatChoiceReader {
    parser: AnswerParser,
    ids: Arc<Numbers>,
    /// Log-probabilities of text that the parser holds back.
    held: Vec<ChatLogprob>,
    /// Tokens drawn until the end of the thoughts.
    n_reasoning: u64,
    is_named: bool,
}

/// A part of the message, and the log-probabilities that come with it.
pub(super) type Part = (ChunkPart, Option<Vec<ChatLogprob>>);

impl ChatChoiceReader {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            parser: AnswerParser::new(&shape.answer),
            ids: Arc::clone(&shape.ids),
            held: Vec::new(),
            n_reasoning: 0,
            is_named: shape.is_named_call,
        }
    }

    /// More text.
    pub(super) fn push(&mut self, shape: &Shape, piece: &Piece) -> Vec<Part> {
        let was_thinking = self.parser.is_thinking();
        let deltas = self.parser.push(&piece.text);
        if was_thinking || self.parser.is_thinking() {
            self.n_reasoning = piece.n_drawn;
        }
        self.parts(shape, piece, deltas, false)
    }

    /// The last text.
    pub(super) fn finish(&mut self, shape: &Shape, piece: &Piece) -> Vec<Part> {
        let mut deltas = self.parser.push(&piece.text);
        deltas.extend(self.parser.finish());
        self.parts(shape, piece, deltas, true)
    }

    /// Thoughts among the tokens of a finished choice.
    pub(super) fn n_reasoning(&self, totals: &ChoiceTotals) -> u64 {
        if self.parser.is_thinking() {
            totals.n_tokens
        } else {
            self.n_reasoning
        }
    }

    /// What the choice ended by. The hosted API says `stop` of a call that it was told to make.
    pub(super) fn finish_reason(&self, reason: &'static str) -> &'static str {
        if reason == "stop" && self.parser.has_calls() && !self.is_named {
            "tool_calls"
        } else {
            reason
        }
    }

    /// Log-probabilities go with the first part of their text, or wait for the next.
    fn parts(
        &mut self,
        shape: &Shape,
        piece: &Piece,
        deltas: Vec<Delta>,
        is_last: bool,
    ) -> Vec<Part> {
        self.held.extend(shape.logprobs(piece).unwrap_or_default());
        let mut parts: Vec<Part> = deltas
            .into_iter()
            .map(|delta| {
                let logprobs = shape.with_logprobs.then(|| std::mem::take(&mut self.held));
                (self.part(delta), logprobs)
            })
            .collect();
        // A token that a stop string cuts has no text, and an answer must not lose any.
        let is_cut = piece.text.is_empty() && shape.is_plain();
        if !self.held.is_empty() && (is_last || is_cut) {
            parts.push((ChunkPart::Nothing, Some(std::mem::take(&mut self.held))));
        }
        parts
    }

    fn part(&self, delta: Delta) -> ChunkPart {
        match delta {
            Delta::Content(text) => ChunkPart::Content(text),
            Delta::Reasoning(text) => ChunkPart::Reasoning(text),
            Delta::Call { index, name } => ChunkPart::Call {
                index,
                id: self.ids.id("call_"),
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
