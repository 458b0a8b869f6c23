//! One choice: tokens in, text out.

use std::collections::VecDeque;
use std::sync::Arc;

use scheduler::{SampledToken, TokenId, TokenLogprobs};

use super::{ChoiceTotals, TextRules};
use crate::text::{Detokenizer, StopStrings, Tokenizer};

/// Text that may be sent, with the tokens that it consists of (if they are scored).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    pub tokens: Vec<ScoredToken>,
    /// Tokens that the choice has drawn so far.
    pub n_drawn: u64,
}

impl Piece {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// A generated token with its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredToken {
    pub logprobs: TokenLogprobs,
    /// Characters of generated text before this token's.
    pub offset: usize,
}

#[derive(Debug)]
pub(super) struct Choice {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stops: StopStrings,
    spelled: Arc<[TokenId]>,
    stop_tokens: Arc<[TokenId]>,
    min_tokens: u32,
    n_tokens: u64,
    sum_logprob: f64,
    /// Bytes and characters that the detokenizer has produced.
    n_produced: usize,
    n_characters: usize,
    /// Bytes that have been given out.
    n_emitted: usize,
    is_stopped: bool,
    /// Scored tokens whose text is still held back.
    held: VecDeque<Held>,
}

/// A scored token and where its text lies, in bytes of the produced text.
#[derive(Debug)]
struct Held {
    start: usize,
    end: usize,
    token: ScoredToken,
}

impl Choice {
    pub(super) fn new(tokenizer: &Tokenizer, rules: &TextRules) -> Self {
        let detokenizer = if rules.continues_prompt {
            Detokenizer::continuing(tokenizer.clone())
        } else {
            Detokenizer::new(tokenizer.clone())
        };
        Self {
            tokenizer: tokenizer.clone(),
            detokenizer,
            spelled: Arc::clone(&rules.spelled),
            stops: StopStrings::new(rules.stop.clone()),
            stop_tokens: Arc::clone(&rules.stop_tokens),
            min_tokens: rules.min_tokens,
            n_tokens: 0,
            sum_logprob: 0.0,
            n_produced: 0,
            n_characters: 0,
            n_emitted: 0,
            is_stopped: false,
            held: VecDeque::new(),
        }
    }

    /// Whether a stop string was completed.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The stop string that ended it.
    pub(super) fn stop_string(&self) -> Option<String> {
        self.stops.matched().map(str::to_owned)
    }

    /// Takes a token; what it allows to be sent is often nothing.
    pub(super) fn push(&mut self, token: &SampledToken) -> Piece {
        self.n_tokens += 1;
        if let Some(logprobs) = &token.logprobs {
            self.sum_logprob += f64::from(logprobs.chosen.logprob);
        }
        if self.stop_tokens.contains(&token.token) {
            return Piece::default();
        }
        let text = self.text_of(token.token);
        let start = self.n_produced;
        let offset = self.n_characters;
        self.n_produced += text.len();
        self.n_characters += text.chars().count();
        if let Some(logprobs) = &token.logprobs {
            self.held.push_back(Held {
                start,
                end: self.n_produced,
                token: ScoredToken {
                    logprobs: logprobs.clone(),
                    offset,
                },
            });
        }
        let text = self.pass_stops(text);
        self.piece(text)
    }

    fn text_of(&mut self, token: TokenId) -> String {
        if !self.spelled.contains(&token) {
            return self.detokenizer.push(token);
        }
        // Half a character before a mark never becomes whole.
        let rest = self.detokenizer.finish();
        rest + &self.tokenizer.token_spelling(token).unwrap_or_default()
    }

    /// The text that stop strings let through.
    fn pass_stops(&mut self, text: String) -> String {
        if self.n_tokens <= u64::from(self.min_tokens) {
            return text;
        }
        let found = self.stops.push(&text);
        self.is_stopped = found.stopped;
        found.text
    }

    /// What is left when the choice ends by itself.
    pub(super) fn finish(&mut self) -> Piece {
        if self.is_stopped {
            return Piece::default();
        }
        let rest = self.detokenizer.finish();
        self.n_produced += rest.len();
        let mut text = self.pass_stops(rest);
        if !self.is_stopped {
            text.push_str(&self.stops.finish());
        }
        let mut piece = self.piece(text);
        if !self.is_stopped {
            piece
                .tokens
                .extend(self.held.drain(..).map(|held| held.token));
        }
        piece
    }

    /// `text` with the tokens that it completes. Tokens wait for text to come with.
    fn piece(&mut self, text: String) -> Piece {
        self.n_emitted += text.len();
        let mut tokens = Vec::new();
        while let Some(first) = self.held.front() {
            // Of a token that a stop string cuts, what is before the cut was sent.
            let is_out = if self.is_stopped {
                first.start < self.n_emitted
            } else {
                !text.is_empty() && first.end <= self.n_emitted
            };
            if !is_out {
                break;
            }
            tokens.extend(self.held.pop_front().map(|held| held.token));
        }
        Piece {
            text,
            tokens,
            n_drawn: self.n_tokens,
        }
    }

    pub(super) fn totals(&self, n_cached: u64) -> ChoiceTotals {
        ChoiceTotals {
            n_tokens: self.n_tokens,
            n_cached,
            sum_logprob: self.sum_logprob,
        }
    }
}
