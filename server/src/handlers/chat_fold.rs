//! What is generated for a chat, as a chat completion or as its chunks.

use super::flow::{Ending, Fold};
use super::message::{MessageReader, MessageRules, Part, fold};
use super::stored_chats;
use crate::generation::Update;
use crate::openai::{
    ChatChoice, ChatChunk, ChatCompletion, ChatLogprob, ChunkUsage, Head, Said, Storing, Streaming,
    TokenCounts,
};
use crate::sse::{Frame, to_json};
use crate::store::Key;

/// What the answer looks like.
pub(super) struct Shape {
    pub(super) head: Head,
    pub(super) streaming: Streaming,
    pub(super) n: u32,
    /// How the text of a choice becomes a message.
    pub(super) message: MessageRules,
    /// Where the answer is kept, and what with.
    pub(super) storing: Option<(Key, Storing)>,
}

/// Folds all choices of a chat.
pub(super) struct ChatFold {
    shape: Shape,
    readers: Vec<MessageReader>,
    choices: Vec<Collected>,
    counts: TokenCounts,
    /// Tokens that each choice has drawn so far.
    drawn: Vec<u64>,
    /// The answer as JSON, once it is whole.
    whole: String,
}

#[derive(Default)]
struct Collected {
    said: Said,
    logprobs: Vec<ChatLogprob>,
    finish_reason: &'static str,
}

impl ChatFold {
    pub(super) fn new(shape: Shape, n_prompt: usize) -> Self {
        let readers = (0..shape.n).map(|_| MessageReader::new(&shape.message));
        Self {
            readers: readers.collect(),
            choices: (0..shape.n).map(|_| Collected::default()).collect(),
            counts: TokenCounts {
                prompt: n_prompt as u64,
                ..TokenCounts::default()
            },
            drawn: vec![0; shape.n as usize],
            shape,
            whole: String::new(),
        }
    }

    fn completion(&mut self) -> String {
        let must_call = self.shape.message.must_call();
        let choices = (0..).zip(self.choices.drain(..)).map(|(index, choice)| {
            let logprobs = self.shape.message.with_logprobs.then_some(choice.logprobs);
            let said = Said {
                must_call,
                ..choice.said
            };
            ChatChoice::new(index, said, logprobs, choice.finish_reason)
        });
        let head = self.shape.head.clone();
        to_json(&ChatCompletion::new(
            head,
            choices.collect(),
            self.counts.into(),
        ))
    }

    /// What the next chunk says of usage.
    fn usage_now(&self) -> ChunkUsage {
        self.shape
            .streaming
            .usage_now(self.counts, self.drawn.iter().sum())
    }

    /// Parts of choice `index`, sent or kept.
    fn take(&mut self, index: u32, parts: Vec<Part>) -> Vec<Frame> {
        let usage = self.usage_now();
        let chunk = |(part, logprobs)| {
            let head = &self.shape.head;
            Frame::json(&ChatChunk::part(head, usage, index, part, logprobs))
        };
        if self.is_streamed() && self.shape.storing.is_none() {
            return parts.into_iter().map(chunk).collect();
        }
        let frames = if self.is_streamed() {
            parts.iter().cloned().map(chunk).collect()
        } else {
            Vec::new()
        };
        let choice = &mut self.choices[index as usize];
        for (part, logprobs) in parts {
            fold(&mut choice.said, part);
            choice.logprobs.extend(logprobs.unwrap_or_default());
        }
        frames
    }
}

impl Fold for ChatFold {
    fn is_streamed(&self) -> bool {
        self.shape.streaming.enabled
    }

    /// The roles of all choices: SDKs expect the first chunks in the order of choices, whichever
    /// of them draws its first token first.
    fn start(&mut self, i: usize) -> Option<Vec<Frame>> {
        let index = u32::try_from(i)
            .ok()
            .filter(|index| *index < self.shape.n)?;
        let head = &self.shape.head;
        let role = ChatChunk::role(head, self.usage_now(), index);
        Some(vec![Frame::json(&role)])
    }

    fn update(&mut self, _job: usize, update: Update) -> Vec<Frame> {
        match update {
            Update::PromptScored(_) => Vec::new(),
            Update::Text { index, piece } => {
                self.drawn[index as usize] = piece.n_drawn;
                let parts = self.readers[index as usize].push(piece);
                self.take(index, parts)
            }
            Update::Finished {
                index,
                piece,
                reason,
                totals,
                ..
            } => {
                let reader = &mut self.readers[index as usize];
                let parts = reader.push(piece);
                let reason = reader.finish_reason(reason);
                self.counts.completion += totals.n_tokens;
                self.drawn[index as usize] = totals.n_tokens;
                self.counts.cached = totals.n_cached;
                self.counts.reasoning += totals.n_reasoning;
                self.choices[index as usize].finish_reason = reason;
                let mut frames = self.take(index, parts);
                if self.is_streamed() {
                    let head = &self.shape.head;
                    let last = ChatChunk::finish(head, self.usage_now(), index, reason);
                    frames.push(Frame::json(&last));
                }
                frames
            }
        }
    }

    fn end(&mut self) -> Ending {
        let usage = self
            .shape
            .streaming
            .include_usage
            .then(|| Frame::json(&ChatChunk::usage(&self.shape.head, self.counts.into())));
        let mut writes = Vec::new();
        if !self.is_streamed() || self.shape.storing.is_some() {
            self.whole = self.completion();
        }
        if let Some((key, storing)) = self.shape.storing.take() {
            writes.push(stored_chats::write(key, &self.whole, storing));
        }
        Ending {
            writes,
            frames: usage.into_iter().chain([Frame::done()]).collect(),
        }
    }

    fn whole(&mut self) -> String {
        std::mem::take(&mut self.whole)
    }
}
