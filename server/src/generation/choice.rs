//! One choice: tokens in, parts of an answer out.

use std::collections::VecDeque;
use std::sync::Arc;

use scheduler::{SampledToken, TokenId, TokenLogprobs};

use super::{ChoiceTotals, TextRules};
use crate::answer::{AnswerParser, Delta};
use crate::text::{Detokenizer, StopStrings, Tokenizer};

/// Parts of the answer that may be sent, with the tokens that they consist of (if they are scored).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub deltas: Vec<Delta>,
    pub tokens: Vec<ScoredToken>,
    /// Tokens that the choice has drawn so far.
    pub n_drawn: u64,
}

impl Piece {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.tokens.is_empty()
    }

    /// The text of an answer that is nothing but content.
    pub fn content(&self) -> String {
        let content = self.deltas.iter().map(|delta| match delta {
            Delta::Content(text) => text.as_str(),
            _ => "",
        });
        content.collect()
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
    parser: AnswerParser,
    stops: StopStrings,
    spelled: Arc<[TokenId]>,
    stop_tokens: Arc<[TokenId]>,
    min_tokens: u32,
    n_tokens: u64,
    n_reasoning: u64,
    sum_logprob: f64,
    /// Characters that the detokenizer has produced.
    n_characters: usize,
    /// Bytes of content that the parser has told.
    n_content: usize,
    /// Bytes of content that have been given out.
    n_emitted: usize,
    is_stopped: bool,
    /// Scored tokens whose text is still held back.
    held: VecDeque<Held>,
}

/// A scored token and which part of the content came of it, in bytes. Of a token of a mark, of
/// thoughts or of a call that is none.
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
            parser: AnswerParser::new(&rules.answer),
            spelled: Arc::clone(&rules.spelled),
            stops: StopStrings::new(rules.stop.clone()),
            stop_tokens: Arc::clone(&rules.stop_tokens),
            min_tokens: rules.min_tokens,
            n_tokens: 0,
            n_reasoning: 0,
            sum_logprob: 0.0,
            n_characters: 0,
            n_content: 0,
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
        let start = self.n_content;
        let offset = self.n_characters;
        self.n_characters += text.chars().count();
        let deltas = self.parse(&text);
        let n_content: usize = deltas.iter().map(content_len).sum();
        self.n_content += n_content;
        if let Some(logprobs) = &token.logprobs {
            self.held.push_back(Held {
                start,
                end: self.n_content,
                token: ScoredToken {
                    logprobs: logprobs.clone(),
                    offset,
                },
            });
        }
        let deltas = self.pass_stops(deltas);
        self.piece(deltas)
    }

    fn parse(&mut self, text: &str) -> Vec<Delta> {
        let was_thinking = self.parser.is_thinking();
        let deltas = self.parser.push(text);
        if was_thinking || self.parser.is_thinking() {
            self.n_reasoning = self.n_tokens;
        }
        deltas
    }

    fn text_of(&mut self, token: TokenId) -> String {
        if !self.spelled.contains(&token) {
            return self.detokenizer.push(token);
        }
        // Half a character before a mark never becomes whole.
        let rest = self.detokenizer.finish();
        rest + &self.tokenizer.token_spelling(token).unwrap_or_default()
    }

    /// What stop strings let through. They are sought in content alone: not in thoughts, and not
    /// in how a model writes calls, which its client never sees.
    fn pass_stops(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        if self.n_tokens <= u64::from(self.min_tokens) {
            return deltas;
        }
        let mut passed = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let Delta::Content(text) = delta else {
                // What comes in between ends a text.
                self.release(&mut passed);
                passed.push(delta);
                continue;
            };
            let found = self.stops.push(&text);
            if !found.text.is_empty() {
                passed.push(Delta::Content(found.text));
            }
            if found.stopped {
                self.is_stopped = true;
                break;
            }
        }
        passed
    }

    /// Content that was the beginning of no stop string.
    fn release(&mut self, deltas: &mut Vec<Delta>) {
        let text = self.stops.finish();
        if !text.is_empty() {
            deltas.push(Delta::Content(text));
        }
    }

    /// What is left when the choice ends by itself.
    pub(super) fn finish(&mut self) -> Piece {
        if self.is_stopped {
            return Piece::default();
        }
        let rest = self.detokenizer.finish();
        let mut deltas = self.parse(&rest);
        deltas.extend(self.parser.finish());
        let mut deltas = self.pass_stops(deltas);
        if !self.is_stopped {
            self.release(&mut deltas);
        }
        let mut piece = self.piece(deltas);
        if !self.is_stopped {
            piece
                .tokens
                .extend(self.held.drain(..).map(|held| held.token));
        }
        piece
    }

    /// `deltas` with the tokens that they complete. Tokens wait for something to come with.
    fn piece(&mut self, deltas: Vec<Delta>) -> Piece {
        self.n_emitted += deltas.iter().map(content_len).sum::<usize>();
        let mut tokens = Vec::new();
        while let Some(first) = self.held.front() {
            // Of a token that a stop string cuts, what is before the cut was sent.
            let is_out = if self.is_stopped {
                first.start < self.n_emitted
            } else {
                !deltas.is_empty() && first.end <= self.n_emitted
            };
            if !is_out {
                break;
            }
            tokens.extend(self.held.pop_front().map(|held| held.token));
        }
        Piece {
            deltas,
            tokens,
            n_drawn: self.n_tokens,
        }
    }

    pub(super) fn totals(&self, n_cached: u64) -> ChoiceTotals {
        ChoiceTotals {
            n_tokens: self.n_tokens,
            n_reasoning: if self.parser.is_thinking() {
                self.n_tokens
            } else {
                self.n_reasoning
            },
            n_cached,
            sum_logprob: self.sum_logprob,
        }
    }
}

fn content_len(delta: &Delta) -> usize {
    match delta {
        Delta::Content(text) => text.len(),
        _ => 0,
    }
}
