//! The chunks of a streamed chat completion.

use axum::response::Response;

use super::chat::Shape;
use super::chat_choice::{ChatChoiceReader, Part};
use crate::generation::{Generation, Update};
use crate::openai::{ChatChunk, TokenCounts};
use crate::sse::{self, Frames, frame};

struct ChatFrames {
    readers: Vec<ChatChoiceReader>,
    shape: Shape,
    counts: TokenCounts,
}

pub(super) fn respond(shape: Shape, generation: Generation) -> Response {
    let counts = TokenCounts {
        prompt: shape.n_prompt as u64,
        ..TokenCounts::default()
    };
    let readers = (0..shape.n)
        .map(|_| ChatChoiceReader::new(&shape))
        .collect();
    let frames = ChatFrames {
        readers,
        shape,
        counts,
    };
    sse::respond(frames, generation.into_updates())
}

impl ChatFrames {
    fn include_usage(&self) -> bool {
        self.shape.streaming.include_usage
    }

    fn chunks(&self, index: u32, parts: Vec<Part>) -> Vec<String> {
        let head = &self.shape.head;
        let chunk = |(part, logprobs)| {
            frame(&ChatChunk::part(
                head,
                self.include_usage(),
                index,
                part,
                logprobs,
            ))
        };
        parts.into_iter().map(chunk).collect()
    }
}

impl Frames for ChatFrames {
    type Update = Update;

    /// The roles of all choices: SDKs expect the first chunks in the order of choices, whichever
    /// of them draws its first token first.
    fn start(&mut self, i: usize) -> Option<Vec<String>> {
        let index = u32::try_from(i)
            .ok()
            .filter(|index| *index < self.shape.n)?;
        let head = &self.shape.head;
        let role = ChatChunk::role(head, self.include_usage(), index);
        Some(vec![frame(&role)])
    }

    fn update(&mut self, update: Update) -> Vec<String> {
        match update {
            Update::PromptScored(_) => Vec::new(),
            Update::Text { index, piece } => {
                let parts = self.readers[index as usize].push(&self.shape, &piece);
                self.chunks(index, parts)
            }
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                let reader = &mut self.readers[index as usize];
                let parts = reader.finish(&self.shape, &piece);
                let reason = reader.finish_reason(reason);
                self.counts.completion += totals.n_tokens;
                self.counts.cached = totals.n_cached;
                self.counts.reasoning += reader.n_reasoning(&totals);
                let mut frames = self.chunks(index, parts);
                let head = &self.shape.head;
                let last = ChatChunk::finish(head, self.include_usage(), index, reason);
                frames.push(frame(&last));
                frames
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
