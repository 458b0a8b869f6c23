//! The chunks of a streamed completion.

use std::sync::Arc;

use axum::response::Response;
use futures::stream::{StreamExt, select_all};
use scheduler::TokenLogprobs;

use super::completion_choices::{Opening, push_tokens};
use super::completions::Shape;
use crate::generation::{Generation, Piece, Update};
use crate::openai::{Completion, CompletionChoice, CompletionLogprobs, TokenCounts};
use crate::sse::{self, Frames, frame};

struct CompletionFrames {
    shape: Shape,
    openings: Vec<Opening>,
    counts: TokenCounts,
}

pub(super) fn respond(
    shape: Shape,
    openings: Vec<Opening>,
    generations: Vec<Generation>,
) -> Response {
    let counts = TokenCounts {
        prompt: openings.iter().map(|opening| opening.n_prompt as u64).sum(),
        ..TokenCounts::default()
    };
    let updates = generations.into_iter().enumerate().map(|(i, generation)| {
        let updates = generation.into_updates();
        updates
            .map(move |update| update.map(|update| (i, update)))
            .boxed()
    });
    let frames = CompletionFrames {
        shape,
        openings,
        counts,
    };
    sse::respond(frames, select_all(updates).boxed())
}

impl CompletionFrames {
    fn choice(&self, choice: CompletionChoice) -> String {
        let include_usage = self.shape.streaming.include_usage;
        frame(&Completion::chunk(&self.shape.head, include_usage, choice))
    }

    /// The echoed prompt of one choice.
    fn echo(&self, prompt: usize, index: u32, scored: &[TokenLogprobs]) -> Option<String> {
        let echo = self.openings[prompt].echo.as_ref()?;
        let logprobs = self
            .shape
            .with_logprobs
            .then(|| echo.logprobs(&self.shape.token_text, scored));
        Some(self.choice(CompletionChoice {
            text: Arc::clone(&echo.text),
            index: self.shape.choice_index(prompt, index),
            logprobs,
            finish_reason: None,
        }))
    }

    fn text(&self, prompt: usize, index: u32, piece: Piece) -> Option<String> {
        if piece.is_empty() {
            return None;
        }
        let base = self.openings[prompt]
            .echo
            .as_ref()
            .map_or(0, |echo| echo.n_characters);
        let logprobs = self.shape.with_logprobs.then(|| {
            let mut logprobs = CompletionLogprobs::default();
            push_tokens(&mut logprobs, &self.shape.token_text, &piece, base);
            logprobs
        });
        Some(self.choice(CompletionChoice {
            text: piece.text.into(),
            index: self.shape.choice_index(prompt, index),
            logprobs,
            finish_reason: None,
        }))
    }
}

impl Frames for CompletionFrames {
    type Update = (usize, Update);

    fn start(&mut self, i: usize) -> Option<Vec<String>> {
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

    fn update(&mut self, (prompt, update): Self::Update) -> Vec<String> {
        match update {
            Update::PromptScored(scored) => (0..self.shape.n)
                .filter_map(|index| self.echo(prompt, index, &scored))
                .collect(),
            Update::Text { index, piece } => self.text(prompt, index, piece).into_iter().collect(),
            Update::Finished {
                index,
                piece,
                reason,
                totals,
            } => {
                self.counts.completion += totals.n_tokens;
                if index == 0 {
                    self.counts.cached += totals.n_cached;
                }
                let last = self.choice(CompletionChoice {
                    text: "".into(),
                    index: self.shape.choice_index(prompt, index),
                    logprobs: None,
                    finish_reason: Some(reason),
                });
                self.text(prompt, index, piece)
                    .into_iter()
                    .chain([last])
                    .collect()
            }
        }
    }

    fn end(&mut self) -> Vec<String> {
        if self.shape.streaming.include_usage {
            vec![frame(&Completion::usage(
                &self.shape.head,
                self.counts.into(),
            ))]
        } else {
            Vec::new()
        }
    }
}
