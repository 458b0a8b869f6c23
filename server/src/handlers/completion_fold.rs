//! What is generated for prompts, as a text completion or as its chunks.

use std::sync::Arc;

use scheduler::TokenLogprobs;

use super::completion_parts::{Candidate, Opening, push_tokens};
use super::flow::{Ending, Fold};
use crate::generation::{Piece, Update};
use crate::openai::{
    Completion, CompletionChoice, CompletionLogprobs, Head, Streaming, TokenCounts,
};
use crate::sse::{Frame, to_json};
use crate::token_text::TokenText;

/// What the answer looks like.
pub(super) struct Shape {
    pub(super) head: Head,
    pub(super) streaming: Streaming,
    /// Choices returned for each prompt, and candidates generated.
    pub(super) n: u32,
    pub(super) best_of: u32,
    pub(super) with_logprobs: bool,
    pub(super) token_text: TokenText,
}

impl Shape {
    /// Choices are numbered prompt by prompt.
    fn choice_index(&self, prompt: usize, index: u32) -> u32 {
        u32::try_from(prompt).expect("at most 2048 prompts") * self.n + index
    }
}

/// Folds all choices of all prompts.
pub(super) struct CompletionFold {
    shape: Shape,
    openings: Vec<Opening>,
    /// By prompt.
    candidates: Vec<Vec<Candidate>>,
    counts: TokenCounts,
    /// Tokens drawn so far, by prompt and candidate.
    drawn: Vec<Vec<u64>>,
}

impl CompletionFold {
    pub(super) fn new(shape: Shape, openings: Vec<Opening>) -> Self {
        let candidates = openings
            .iter()
            .map(|_| (0..shape.best_of).map(|_| Candidate::default()).collect());
        Self {
            candidates: candidates.collect(),
            drawn: vec![vec![0; shape.best_of as usize]; openings.len()],
            counts: TokenCounts {
                prompt: openings.iter().map(|opening| opening.n_prompt as u64).sum(),
                ..TokenCounts::default()
            },
            shape,
            openings,
        }
    }

    fn chunk(&self, choice: CompletionChoice) -> Frame {
        let usage = self
            .shape
            .streaming
            .usage_now(self.counts, self.drawn.iter().flatten().sum());
        Frame::json(&Completion::chunk(&self.shape.head, usage, choice))
    }

    /// The echoed prompt of one choice.
    fn echo(&self, prompt: usize, index: u32, scored: &[TokenLogprobs]) -> Option<Frame> {
        let echo = self.openings[prompt].echo.as_ref()?;
        let logprobs = self
            .shape
            .with_logprobs
            .then(|| echo.logprobs(&self.shape.token_text, scored));
        Some(self.chunk(CompletionChoice {
            text: Arc::clone(&echo.text),
            index: self.shape.choice_index(prompt, index),
            logprobs,
            finish_reason: None,
        }))
    }

    fn text(&self, prompt: usize, index: u32, piece: Piece) -> Option<Frame> {
        if piece.is_empty() {
            return None;
        }
        let logprobs = self.shape.with_logprobs.then(|| {
            let mut logprobs = CompletionLogprobs::default();
            let base = self.openings[prompt].n_characters();
            push_tokens(&mut logprobs, &self.shape.token_text, &piece, base);
            logprobs
        });
        Some(self.chunk(CompletionChoice {
            text: piece.content().into(),
            index: self.shape.choice_index(prompt, index),
            logprobs,
            finish_reason: None,
        }))
    }

    /// Keeps a piece for the whole answer.
    fn keep(&mut self, prompt: usize, index: u32, piece: &Piece) {
        let candidate = &mut self.candidates[prompt][index as usize];
        candidate.text.push_str(&piece.content());
        let base = self.openings[prompt].n_characters();
        push_tokens(&mut candidate.logprobs, &self.shape.token_text, piece, base);
    }

    /// The scores of a prompt, which begin all of its choices.
    fn scored(&mut self, prompt: usize, scored: &[TokenLogprobs]) -> Vec<Frame> {
        if self.is_streamed() {
            return (0..self.shape.n)
                .filter_map(|index| self.echo(prompt, index, scored))
                .collect();
        }
        self.openings[prompt].scored = scored.to_vec();
        Vec::new()
    }

    fn piece(&mut self, prompt: usize, index: u32, piece: Piece) -> Vec<Frame> {
        if self.is_streamed() {
            return self.text(prompt, index, piece).into_iter().collect();
        }
        self.keep(prompt, index, &piece);
        Vec::new()
    }
}

impl Fold for CompletionFold {
    fn is_streamed(&self) -> bool {
        self.shape.streaming.enabled
    }

    fn start(&mut self, i: usize) -> Option<Vec<Frame>> {
        let n = self.shape.n as usize;
        let (prompt, index) = (i / n, i % n);
        let opening = self.openings.get(prompt)?;
        // Where scores are to come, the echo waits for them.
        if opening.n_to_score > 0 {
            return Some(Vec::new());
        }
        let index = u32::try_from(index).expect("less than n");
        Some(self.echo(prompt, index, &[]).into_iter().collect())
    }

    fn update(&mut self, prompt: usize, update: Update) -> Vec<Frame> {
        match update {
            Update::PromptScored(scored) => self.scored(prompt, &scored),
            Update::Text { index, piece } => {
                self.drawn[prompt][index as usize] = piece.n_drawn;
                self.piece(prompt, index, piece)
            }
            Update::Finished {
                index,
                piece,
                reason,
                totals,
                ..
            } => {
                self.counts.completion += totals.n_tokens;
                self.drawn[prompt][index as usize] = totals.n_tokens;
                if index == 0 {
                    self.counts.cached += totals.n_cached;
                }
                let candidate = &mut self.candidates[prompt][index as usize];
                candidate.finish_reason = reason;
                candidate.totals = Some(totals);
                let mut frames = self.piece(prompt, index, piece);
                if self.is_streamed() {
                    frames.push(self.chunk(CompletionChoice {
                        text: "".into(),
                        index: self.shape.choice_index(prompt, index),
                        logprobs: None,
                        finish_reason: Some(reason),
                    }));
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
            .then(|| Frame::json(&Completion::usage(&self.shape.head, self.counts.into())));
        Ending::sent(usage.into_iter().chain([Frame::done()]).collect())
    }

    fn whole(&mut self) -> String {
        let shape = &self.shape;
        let mut choices = Vec::new();
        let prompts = self.openings.iter().zip(self.candidates.drain(..));
        for (prompt, (opening, mut candidates)) in prompts.enumerate() {
            if shape.best_of > shape.n {
                candidates.sort_by(|a, b| b.score().total_cmp(&a.score()));
            }
            candidates.truncate(shape.n as usize);
            for (index, candidate) in (0..).zip(candidates) {
                let finish_reason = Some(candidate.finish_reason);
                let (text, logprobs) = opening.begin(candidate, &shape.token_text);
                choices.push(CompletionChoice {
                    text: text.into(),
                    index: shape.choice_index(prompt, index),
                    logprobs: shape.with_logprobs.then_some(logprobs),
                    finish_reason,
                });
            }
        }
        to_json(&Completion::whole(&shape.head, choices, self.counts.into()))
    }
}
