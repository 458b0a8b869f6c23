//! Choices of a completion: text and log-probabilities, of an echoed prompt as well.

use std::sync::Arc;

use scheduler::TokenLogprobs;

use crate::generation::{ChoiceTotals, Piece};
use crate::openai::CompletionLogprobs;
use crate::text::{Detokenizer, Tokenizer};
use crate::token_text::{TokenText, clamp};

/// One prompt of a request and what its choices begin with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) n_prompt: usize,
    /// Prompt tokens that will be scored; zero unless scores are echoed.
    pub(super) n_to_score: usize,
    /// `None` without `echo`.
    pub(super) echo: Option<Echo>,
    /// The scores, once they are there, for a whole answer.
    pub(super) scored: Vec<TokenLogprobs>,
}

/// One candidate of a whole answer, without what is echoed.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    pub(super) text: String,
    pub(super) logprobs: CompletionLogprobs,
    pub(super) finish_reason: &'static str,
    pub(super) totals: Option<ChoiceTotals>,
}

impl Candidate {
    /// Mean log-probability of its tokens; nothing generated is as good as certain.
    pub(super) fn score(&self) -> f64 {
        let totals = self.totals.filter(|totals| totals.n_tokens > 0);
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        totals.map_or(0.0, |totals| totals.sum_logprob / totals.n_tokens as f64)
    }
}

impl Opening {
    /// Characters that come before what is generated.
    pub(super) fn n_characters(&self) -> usize {
        self.echo.as_ref().map_or(0, |echo| echo.n_characters)
    }

    /// A candidate behind the echoed prompt.
    pub(super) fn begin(
        &self,
        candidate: Candidate,
        token_text: &TokenText,
    ) -> (String, CompletionLogprobs) {
        let Some(echo) = &self.echo else {
            return (candidate.text, candidate.logprobs);
        };
        let mut logprobs = echo.logprobs(token_text, &self.scored);
        logprobs.append(candidate.logprobs);
        (format!("{}{}", echo.text, candidate.text), logprobs)
    }
}

/// A prompt to be repeated at the beginning of each choice.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) text: Arc<str>,
    tokens: Vec<u32>,
    /// Where each token begins in the text, in characters.
    offsets: Vec<usize>,
    /// Characters of the text.
    n_characters: usize,
}

impl Echo {
    /// `text` as the client sent it; `None` for a prompt of token ids.
    pub(super) fn new(tokenizer: &Tokenizer, tokens: Vec<u32>, text: Option<String>) -> Self {
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let mut decoded = String::new();
        let mut offsets = Vec::with_capacity(tokens.len());
        let mut n_characters = 0;
        for token in &tokens {
            offsets.push(n_characters);
            let piece = detokenizer.push(*token);
            n_characters += piece.chars().count();
            decoded.push_str(&piece);
        }
        decoded.push_str(&detokenizer.finish());
        let text = text.unwrap_or(decoded);
        Self {
            n_characters: text.chars().count(),
            text: text.into(),
            tokens,
            offsets,
        }
    }

    /// Log-probabilities of the prompt. `scored` begins with its second token: nothing comes
    /// before the first.
    pub(super) fn logprobs(
        &self,
        token_text: &TokenText,
        scored: &[TokenLogprobs],
    ) -> CompletionLogprobs {
        let mut logprobs = CompletionLogprobs::default();
        for (i, (token, offset)) in self.tokens.iter().zip(&self.offsets).enumerate() {
            let score = i.checked_sub(1).and_then(|before| scored.get(before));
            let top = score.map(|score| token_text.completion_top(score));
            let logprob = score.map(|score| clamp(score.chosen.logprob));
            logprobs.push(token_text.completion(*token), logprob, top, *offset);
        }
        logprobs
    }
}

/// Appends the tokens of a piece. `base`: characters of the choice before its generated text.
pub(super) fn push_tokens(
    logprobs: &mut CompletionLogprobs,
    token_text: &TokenText,
    piece: &Piece,
    base: usize,
) {
    for token in &piece.tokens {
        let chosen = token.logprobs.chosen;
        logprobs.push(
            token_text.completion(chosen.token),
            Some(clamp(chosen.logprob)),
            Some(token_text.completion_top(&token.logprobs)),
            base + token.offset,
        );
    }
}
