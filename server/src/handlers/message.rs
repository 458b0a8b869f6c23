//! One choice of a chat: pieces of text in, parts of a message out.

use std::sync::Arc;

use crate::answer::{AnswerParser, AnswerRules, Delta};
use crate::generation::{ChoiceTotals, Piece};
use crate::identity::Numbers;
use crate::openai::{ChatLogprob, ChunkPart, Said, ToolCall};
use crate::token_text::TokenText;

/// How text becomes a message.
#[derive(Clone, Debug)]
pub(super) struct MessageRules {
    pub(super) answer: AnswerRules,
    pub(super) with_logprobs: bool,
    pub(super) token_text: TokenText,
    /// One tool had to be called.
    pub(super) is_named_call: bool,
    pub(super) ids: Arc<Numbers>,
}

/// Reads a choice, streamed or not.
#[derive(Debug)]
pub(super) struct MessageReader {
    parser: AnswerParser,
    rules: MessageRules,
    /// Log-probabilities of text that the parser holds back.
    held: Vec<ChatLogprob>,
    /// Tokens drawn until the end of the thoughts.
    n_reasoning: u64,
}

/// A part of the message, and the log-probabilities that come with it.
pub(super) type Part = (ChunkPart, Option<Vec<ChatLogprob>>);

impl MessageReader {
    pub(super) fn new(rules: &MessageRules) -> Self {
        Self {
            parser: AnswerParser::new(&rules.answer),
            rules: rules.clone(),
            held: Vec::new(),
            n_reasoning: 0,
        }
    }

    /// More text.
    pub(super) fn push(&mut self, piece: &Piece) -> Vec<Part> {
        let was_thinking = self.parser.is_thinking();
        let deltas = self.parser.push(&piece.text);
        if was_thinking || self.parser.is_thinking() {
            self.n_reasoning = piece.n_drawn;
        }
        self.parts(piece, deltas, false)
    }

    /// The last text.
    pub(super) fn finish(&mut self, piece: &Piece) -> Vec<Part> {
        let mut deltas = self.parser.push(&piece.text);
        deltas.extend(self.parser.finish());
        self.parts(piece, deltas, true)
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
        if reason == "stop" && self.parser.has_calls() && !self.rules.is_named_call {
            "tool_calls"
        } else {
            reason
        }
    }

    /// Log-probabilities go with the first part of their text, or wait for the next.
    fn parts(&mut self, piece: &Piece, deltas: Vec<Delta>, is_last: bool) -> Vec<Part> {
        let with_logprobs = self.rules.with_logprobs;
        if with_logprobs {
            let text = &self.rules.token_text;
            let tokens = piece.tokens.iter();
            self.held.extend(tokens.map(|token| text.chat(token)));
        }
        let mut parts: Vec<Part> = deltas
            .into_iter()
            .map(|delta| {
                let logprobs = with_logprobs.then(|| std::mem::take(&mut self.held));
                (self.part(delta), logprobs)
            })
            .collect();
        // A token that a stop string cuts has no text, and an answer must not lose any.
        let is_cut = piece.text.is_empty() && self.is_plain();
        if !self.held.is_empty() && (is_last || is_cut) {
            parts.push((ChunkPart::Nothing, Some(std::mem::take(&mut self.held))));
        }
        parts
    }

    /// Whether all text is content.
    fn is_plain(&self) -> bool {
        self.rules.answer.is_plain()
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
