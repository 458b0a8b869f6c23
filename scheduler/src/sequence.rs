//! One stream of tokens and the two states it can be in: only [`Running`] owns blocks.

use crate::prefix::Parent;
use crate::store::{BlockTable, Hit};
use crate::{FlowId, Priority, SequenceId, TokenId};

/// A sequence's place in the order of service: by arrival of its request, then by choice. The
/// least is the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) arrival: u64,
    pub(crate) index: u32,
}

#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    /// Prompt and output so far.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) n_prompt: usize,
    /// The sequence ends when it has this many tokens.
    pub(crate) max_tokens: usize,
    /// Tokens at its end that came together: the one drawn last, and those that followed it
    /// without a draw. Never 0.
    pub(crate) n_tail: usize,
    /// Whose service it is charged to.
    pub(crate) flow: FlowId,
    pub(crate) priority: Priority,
    /// No row is begun before the token that it computes is known: what is drawn next depends on
    /// it beyond what the executor sees.
    pub(crate) is_awaited: bool,
}

impl Sequence {
    pub(crate) fn n_generated(&self) -> usize {
        self.tokens.len() - self.n_prompt
    }

    /// Positions that the sequence can come to need. The last token is drawn and never computed.
    pub(crate) fn max_positions(&self) -> usize {
        max_positions(self.n_prompt, self.max_tokens)
    }
}

/// See [`Sequence::max_positions`].
pub(crate) fn max_positions(n_prompt: usize, max_tokens: usize) -> usize {
    n_prompt.max(max_tokens - 1)
}

/// A sequence that holds nothing: not admitted yet, or preempted.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) sequence: Sequence,
    /// Positions that were computed when it was preempted.
    pub(crate) n_lost: usize,
    /// What the prefix index held of it when it was last looked up, from which the next look-up
    /// goes on.
    pub(crate) seen: Hit,
}

/// A sequence that holds the blocks of its computed positions.
///
/// One rule drives it: `n_computed` must catch up with the number of tokens. A prompt, a chunk
/// of it, the token drawn last, and everything again after preemption are all the same.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sequence: Sequence,
    pub(crate) table: BlockTable,
    /// Positions whose keys and values are in the table's blocks.
    pub(crate) n_computed: usize,
    /// Positions that steps in flight compute.
    pub(crate) n_in_flight: usize,
    /// Tokens that steps in flight draw.
    pub(crate) n_pending: usize,
    /// To be ended when a step in flight that it is part of ends.
    pub(crate) cancelled: bool,
}

impl Running {
    /// Positions that are computed, or will be when the steps in flight have ended.
    pub(crate) fn n_begun(&self) -> usize {
        self.n_computed + self.n_in_flight
    }

    /// Tokens, those among them that steps in flight draw.
    pub(crate) fn n_tokens(&self) -> usize {
        self.sequence.tokens.len() + self.n_pending
    }

    /// Tokens that no step has begun to compute, never 0 between steps.
    pub(crate) fn n_missing(&self) -> usize {
        self.n_tokens() - self.n_begun()
    }

    /// Whether there is anything to compute for it, unless a step in flight ends it. Always so
    /// between steps.
    pub(crate) fn has_next(&self) -> bool {
        let ends = self.n_pending > 0 && self.n_tokens() >= self.sequence.max_tokens;
        self.n_missing() > 0 && !ends && !self.cancelled
    }

    /// Whether it draws its next token as soon as what came last is computed.
    pub(crate) fn is_streaming(&self) -> bool {
        self.n_missing() <= self.sequence.n_tail
    }

    /// What computing the next `n_tokens` tokens costs its flow: one for each, and one more for
    /// a token that is drawn. Tokens from the prefix cache cost nothing, and tokens that are
    /// computed again after preemption cost again: the machine's time is what is shared.
    pub(crate) fn cost(&self, n_tokens: usize) -> u64 {
        let draws = self.n_tokens() < self.sequence.max_tokens;
        n_tokens as u64 + u64::from(draws && n_tokens == self.n_missing())
    }

    /// Gives up the blocks and keeps the tokens.
    pub(crate) fn preempt(self, root: Parent) -> (Waiting, BlockTable) {
        let waiting = Waiting {
            sequence: self.sequence,
            n_lost: self.n_computed,
            seen: Hit::none(root),
        };
        (waiting, self.table)
    }
}
