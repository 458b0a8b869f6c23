//! The chunks of a streamed chat completion.

use axum::response::Response;

use super::chat::Shape;
use crate::generation::{Generation, Piece, Update};
use crate::openai::{ChatChunk, TokenCounts};
use crate::sse::{self, Frames, frame};

struct ChatFrames {
    shape: Shape,
    counts: TokenCounts,
}

pub(super) fn respond(shape: Shape, generation: Generation) -> Response {
    let counts = TokenCounts {
        prompt: shape.n_prompt as u64,
        ..TokenCounts::default()
    };
    sse::respond(ChatFrames { shape, counts }, generation.into_updates())
}

impl ChatFrames {
    fn include_usage(&self) -> bool {
        self.shape.streaming.include_usage
    }

    fn content(&self, index: u32, piece: Piece) -> Option<String> {
        if piece.is_empty() {
            return None;
        }
        let logprobs = self.shape.logprobs(&piece);
        let head = &self.shape.head;
        let chunk = ChatChunk::content(head, self.include_usage(), index, piece.text, logprobs);
        Some(frame(&chunk))
    }
}

impl Frames for ChatFrames {
    type Update = Update;

    /// The roles of all choices: SDKs expect the first chunks in the order of choices, whichever
    /// of them draws its first token first.
    fn start(&mut self) -> Vec<String> {
        let head = &self.shape.head;
        let role = |index| frame(&ChatChunk::role(head, self.include_usage(), index));
        (0..self.shape.n).map(role).collect()
    }

    fn update(&mut self, update: Update) -> Vec<String> {
        match update {
            Update::PromptScored(_) => Vec::new(),
            Update::Text { index, piece } => self.content(index, piece).into_iter().collect(),
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                self.counts.completion += totals.n_tokens;
                self.counts.cached = totals.n_cached;
                let head = &self.shape.head;
                let last = ChatChunk::finish(head, self.include_usage(), index, reason);
                self.content(index, piece)
                    .into_iter()
                    .chain([frame(&last)])
                    .collect()
            }
        }
    }

    fn end(&mut self) -> Vec<String> {
        if self.include_usage() {
            vec![frame(&ChatChunk::usage(
                &self.shape.head,
                self.counts.into(),
            ))]
        } else {
            Vec::new()
        }
    }
}
