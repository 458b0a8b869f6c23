//! The contract between scheduler and models: one [`Batch`] in, one [`Sampled`] a row out.
//!
//! An [executor](crate::Executor) keeps no state of its own but the KV memory: whatever a row needs
//! travels in it, but for a token that it is drawing itself.

use std::sync::Arc;

use crate::{AdapterId, Allowed, BlockId, PoolingSpec, SamplingParams, SequenceId, TokenId};

/// Work for one step. Rows are independent: the result of one never depends on the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub rows: Vec<BatchRow>,
}

impl Batch {
    /// Tokens to compute in this step, over all rows.
    pub fn n_tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len()).sum()
    }
}

/// The next tokens of one sequence: a chunk of prompt, or the token sampled last.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRow {
    pub sequence: SequenceId,
    /// Tokens to compute, never empty. Token `i` has position `start + i`.
    pub tokens: Vec<TokenId>,
    /// The row's only token is not known yet: it is what row `i` of the batch started before this
    /// one draws. `tokens` holds a 0 in its place.
    pub pending: Option<u32>,
    /// Position of `tokens[0]`; keys and values of all earlier positions that it sees are in
    /// `blocks`.
    pub start: u32,
    /// Blocks of the sequence that are not there any more: all layers have windows, and no query
    /// from `start` on sees them.
    pub first_block: u32,
    /// Position `p` lives in `blocks[p / block_size - first_block]`, slot `p % block_size`.
    /// Reaches to `start + tokens.len()` positions.
    pub blocks: Vec<BlockId>,
    pub adapter: Option<AdapterId>,
    /// Set when `tokens` ends the sequence so far: draw its next token.
    pub sample: Option<SampleSpec>,
    /// Set when positions of this chunk are to be scored against the prompt itself.
    pub scoring: Option<PromptScoring>,
    /// Set when states of this chunk belong to the vector of the prompt.
    pub pooling: Option<PoolingSpec>,
}

/// How to draw the token that follows a row.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSpec {
    pub params: Arc<SamplingParams>,
    /// Number of tokens generated before this one.
    pub n_generated: u32,
    /// All tokens of the sequence so far, prompt first; empty unless
    /// [`SamplingParams::needs_history`].
    pub history: Vec<TokenId>,
    /// How many of `history` are prompt.
    pub n_prompt: u32,
    /// Tokens that must not be drawn yet (end tokens before `min_new_tokens`).
    pub banned: Arc<[TokenId]>,
    /// The only tokens that may be drawn; `None`: all may. The scheduler leaves it open; whoever
    /// runs the engine fills it in for answers that must match a grammar. It may be found only
    /// when somebody looks, which takes time: an executor looks when it has the row's logits.
    pub allowed: Option<Allowed>,
    /// Nothing is started behind this row before its token is known.
    pub is_awaited: bool,
}

/// Log-probabilities of given tokens: entry `i` asks how probable `targets[i]` was after the
/// row's token `first + i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptScoring {
    /// Index into the row's `tokens`.
    pub first: u32,
    pub targets: Vec<TokenId>,
    /// Report this many best alternatives at each position.
    pub n_top: u8,
}

/// What came of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub sequence: SequenceId,
    /// Present exactly when the row had a [`SampleSpec`] and has neither failed nor been postponed.
    pub token: Option<SampledToken>,
    /// One entry for each target of the row's [`PromptScoring`], unless it has failed.
    pub scored: Vec<TokenLogprobs>,
    /// Present exactly when the row had a [`PoolingSpec`] and has not failed: the vector, or for
    /// [`Pooling::Mean`](crate::Pooling::Mean) the sum up to the end of the row.
    pub pooled: Option<Vec<f64>>,
    /// Why this row alone could not be computed (say, its logits are not numbers). It then has
    /// neither token nor scores nor vector; its sequence ends, and no other is touched.
    pub failed: Option<String>,
    /// The row has to be computed again, because its token can be drawn only where nothing is
    /// started before it is known. It then has nothing of the above.
    pub postponed: bool,
}

impl Sampled {
    /// Of a row that draws `token` if it is to draw one, and is asked for nothing else.
    pub fn drawn(row: &BatchRow, token: TokenId) -> Self {
        Self {
            sequence: row.sequence,
            token: row.sample.as_ref().map(|_| SampledToken {
                token,
                logprobs: None,
            }),
            scored: Vec::new(),
            pooled: None,
            failed: None,
            postponed: false,
        }
    }
}

/// A drawn token, with log-probabilities if they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    pub token: TokenId,
    pub logprobs: Option<TokenLogprobs>,
}

/// A token's natural-log probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: TokenId,
    pub logprob: f32,
}

/// The chosen token and the best ones, most probable first (lowest id first on a tie).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub chosen: TokenLogprob,
    pub top: Vec<TokenLogprob>,
}
