//! What the sequences of one unfinished request have in common.

use std::collections::BTreeSet;

use crate::pooling::Pooled;
use crate::prefix::Parent;
use crate::sequence::{Age, Sequence, Waiting};
use crate::store::Hit;
use crate::{FlowId, Pooling, Request, SchedulerConfig, SequenceId};

#[derive(Debug)]
pub(crate) struct LiveRequest {
    pub(crate) request: Request,
    pub(crate) arrival: u64,
    pub(crate) arrival_step: u64,
    /// Whose service its sequences are charged to.
    pub(crate) flow: FlowId,
    /// Whether requests share blocks at all.
    prefix_cache: bool,
    /// Tokens at which its sequences end.
    pub(crate) max_tokens: usize,
    /// The choice that computes (and scores) the prompt.
    pub(crate) leader: u32,
    /// Choices that wait for the leader, so that they can share the prompt's blocks.
    pub(crate) held: BTreeSet<u32>,
    pub(crate) prompt_computed: bool,
    /// Prompt scores that were reported or not asked for.
    pub(crate) n_scored: usize,
    pub(crate) pooled: Pooled,
    /// Prompt tokens found in the prefix cache when the leader was first admitted.
    pub(crate) n_cached: Option<usize>,
    pub(crate) n_unfinished: u32,
}

impl LiveRequest {
    pub(crate) fn new(
        request: Request,
        config: &SchedulerConfig,
        (arrival, arrival_step): (u64, u64),
        max_tokens: usize,
    ) -> Self {
        // First come, first served is the order within one flow.
        let flow = if config.fairness {
            request.flow
        } else {
            FlowId::default()
        };
        Self {
            arrival,
            arrival_step,
            flow,
            prefix_cache: config.prefix_cache,
            max_tokens,
            leader: 0,
            held: (1..request.n).collect(),
            prompt_computed: false,
            n_scored: n_not_scored(&request),
            pooled: Pooled::default(),
            n_cached: None,
            n_unfinished: request.n,
            request,
        }
    }

    pub(crate) fn age(&self, index: u32) -> Age {
        Age {
            arrival: self.arrival,
            index,
        }
    }

    /// Choice `index` as it is before it has run.
    pub(crate) fn open(&self, index: u32) -> Waiting {
        let sequence = Sequence {
            id: SequenceId {
                request: self.request.id,
                index,
            },
            tokens: self.request.prompt.to_vec(),
            n_prompt: self.request.prompt.len(),
            max_tokens: self.max_tokens,
            n_tail: 1,
            flow: self.flow,
            priority: self.request.priority,
            is_awaited: self.request.is_steered || self.request.sampling.needs_history(),
        };
        Waiting {
            sequence,
            n_lost: 0,
            seen: Hit::none(self.root()),
        }
    }

    /// Prompt scores that choice `index` is still to report.
    pub(crate) fn n_unscored(&self, index: u32) -> usize {
        if self.request.prompt_logprobs.is_none() || index != self.leader {
            return 0;
        }
        self.request.prompt.len() - 1 - self.n_scored
    }

    /// Prompt positions whose states are still to go into the prompt's vector by choice `index`.
    pub(crate) fn n_unpooled(&self, index: u32) -> usize {
        if self.request.pooling.is_none() || index != self.leader {
            return 0;
        }
        self.request.prompt.len() - self.pooled.n_positions
    }

    /// Most positions that choice `index`, with `n_tokens` tokens, may take from the prefix
    /// cache: the last must be computed to draw from it, an unscored one to score it, and one
    /// that is not in the prompt's sum yet to add it.
    pub(crate) fn max_cached(&self, index: u32, n_tokens: usize) -> usize {
        let scored = match self.n_unscored(index) {
            0 => n_tokens - 1,
            _ => self.n_scored,
        };
        let sums = self.request.pooling == Some(Pooling::Mean) && self.n_unpooled(index) > 0;
        if sums {
            scored.min(self.pooled.n_positions)
        } else {
            scored
        }
    }

    /// Whether full blocks are registered: for everybody, or for the choices of this request.
    pub(crate) fn registers(&self) -> bool {
        self.prefix_cache || self.request.n > 1
    }

    pub(crate) fn root(&self) -> Parent {
        Parent::Root {
            kv_root: self.request.kv_root,
            scope: (!self.prefix_cache).then_some(self.request.id),
        }
    }
}

/// Scores before the first that is asked for.
fn n_not_scored(request: &Request) -> usize {
    let before = request.scored_from.saturating_sub(1) as usize;
    before.min(request.prompt.len().saturating_sub(1))
}
