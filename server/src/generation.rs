//! One request's events as an answer: detokenized, parted into thoughts, content and calls, cut at
//! stop strings, with log-probabilities that belong to the text they come with.

mod choice;

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream, StreamExt};
use scheduler::{Event, FinishReason, SampledToken, TokenId, TokenLogprobs};

use crate::answer::AnswerRules;
use crate::engine::TokenStream;
use crate::grammar::CANNOT_GO_ON;
use crate::openai::ApiError;
use crate::text::{StopSet, Tokenizer};

use choice::Choice;
pub use choice::{Piece, ScoredToken};

/// How the tokens of a request become an answer.
#[derive(Clone, Debug)]
pub struct TextRules {
    /// How the answer is parted into thoughts, content and calls.
    pub answer: AnswerRules,
    /// Stop strings; they are sought in content alone, and are never part of it.
    pub stop: StopSet,
    /// Tokens that end a choice and have no text.
    pub stop_tokens: Arc<[TokenId]>,
    /// Stop strings count from this many tokens on.
    pub min_tokens: u32,
    /// Control tokens that are spelled in the text: marks of calls and thoughts.
    pub spelled: Arc<[TokenId]>,
    /// The text goes on from a prompt of the same text, so a leading space stays.
    pub continues_prompt: bool,
}

/// Something to tell the client.
#[derive(Debug)]
pub enum Update {
    /// Scores of the prompt's tokens, from the second on, in one piece.
    PromptScored(Vec<TokenLogprobs>),
    /// More of a choice; tokens that a stop string cuts may come without text.
    Text { index: u32, piece: Piece },
    /// A choice has ended. `piece` is the last of it, possibly empty.
    Finished {
        index: u32,
        piece: Piece,
        /// `stop` or `length`.
        reason: &'static str,
        /// The stop string that ended it.
        stop_string: Option<String>,
        totals: ChoiceTotals,
    },
}

/// What a finished choice amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChoiceTotals {
    /// Tokens drawn, end tokens included.
    pub n_tokens: u64,
    /// Those drawn until the end of the thoughts.
    pub n_reasoning: u64,
    /// Prompt tokens of the request that came from the prefix cache.
    pub n_cached: u64,
    /// Sum of the log-probabilities of its tokens, where they were asked for.
    pub sum_logprob: f64,
}

/// A request being generated.
#[derive(Debug)]
pub struct Generation {
    events: TokenStream,
    choices: Vec<Choice>,
    /// Prompt scores so far, and how many there will be.
    scored: Vec<TokenLogprobs>,
    n_to_score: usize,
}

impl Generation {
    /// `n_to_score`: prompt tokens whose scores were asked for.
    pub fn new(
        events: TokenStream,
        n: u32,
        n_to_score: usize,
        tokenizer: &Tokenizer,
        rules: &TextRules,
    ) -> Self {
        let choices = (0..n).map(|_| Choice::new(tokenizer, rules)).collect();
        Self {
            events,
            choices,
            scored: Vec::new(),
            n_to_score,
        }
    }

    /// All updates as a stream. Dropping it cancels the request.
    pub fn into_updates(self) -> BoxStream<'static, Result<Update, ApiError>> {
        stream::unfold(self, |mut generation| async {
            let update = generation.next().await?;
            Some((update, generation))
        })
        .boxed()
    }

    /// The next update; `None` after the last choice has ended.
    pub async fn next(&mut self) -> Option<Result<Update, ApiError>> {
        loop {
            let event = match self.events.next().await? {
                Ok(event) => event,
                Err(error) => return Some(Err(error.into())),
            };
            if let Some(update) = self.apply(event).transpose() {
                return Some(update);
            }
        }
    }

    fn apply(&mut self, event: Event) -> Result<Option<Update>, ApiError> {
        match event {
            Event::PromptScored { logprobs, .. } => {
                self.scored.extend(logprobs);
                let is_whole = self.scored.len() == self.n_to_score;
                Ok(is_whole.then(|| Update::PromptScored(std::mem::take(&mut self.scored))))
            }
            // Nobody who generates text asks for one.
            Event::Pooled { .. } => Ok(None),
            Event::Token { sequence, token } => Ok(self.push(sequence.index, &token)),
            Event::Finished {
                sequence,
                reason,
                n_cached_tokens,
                failure,
            } => {
                let index = sequence.index;
                let choice = &mut self.choices[index as usize];
                let reason = match reason {
                    _ if choice.is_stopped() => "stop",
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                    FinishReason::Failed | FinishReason::Cancelled => {
                        return Err(broken_off(reason, failure.as_deref()));
                    }
                };
                let piece = choice.finish();
                // Text that was held back can complete a stop string at the very end.
                let reason = if choice.is_stopped() { "stop" } else { reason };
                let totals = choice.totals(u64::from(n_cached_tokens));
                Ok(Some(Update::Finished {
                    index,
                    piece,
                    reason,
                    stop_string: choice.stop_string(),
                    totals,
                }))
            }
        }
    }

    fn push(&mut self, index: u32, token: &SampledToken) -> Option<Update> {
        let choice = &mut self.choices[index as usize];
        // Tokens of steps that began before the cancellation took effect.
        if choice.is_stopped() {
            return None;
        }
        let began = self
            .events
            .timeline()
            .map(|timeline| (timeline, Instant::now()));
        let piece = choice.push(token);
        if let Some((timeline, began)) = began {
            timeline.note_detokenized(began.elapsed());
        }
        if choice.is_stopped() {
            self.events.cancel_sequence(index);
        }
        (!piece.is_empty()).then_some(Update::Text { index, piece })
    }
}

/// The error of a sequence that was ended before its time. `failure`: what its row said.
pub(crate) fn broken_off(reason: FinishReason, failure: Option<&str>) -> ApiError {
    if reason == FinishReason::Cancelled {
        return ApiError::shutting_down();
    }
    if let Some(reason) = failure.and_then(|failure| failure.strip_prefix(CANNOT_GO_ON)) {
        return ApiError::grammar_failed(reason);
    }
    if let Some(failure) = failure {
        tracing::error!(%failure, "a row failed");
    }
    ApiError::internal(
        "The server had an error while processing your request. The request can be retried.",
    )
}
