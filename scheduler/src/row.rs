//! What the executor is told about one sequence's share of a step.

use std::sync::Arc;

use crate::live::LiveRequest;
use crate::sequence::Running;
use crate::{BatchRow, Pooling, PoolingSpec, PromptScoring, SampleSpec, TokenId};

/// What a row is made from. The running sequence's table has grown already, its counts have not.
#[derive(Debug)]
pub(crate) struct RowParts<'a> {
    pub(crate) live: &'a LiveRequest,
    pub(crate) running: &'a Running,
    /// Tokens that the row computes.
    pub(crate) n_tokens: usize,
    /// The row of the batch in flight that draws its last token.
    pub(crate) drawn_by: Option<u32>,
    pub(crate) no_tokens: &'a Arc<[TokenId]>,
}

impl RowParts<'_> {
    pub(crate) fn row(&self) -> BatchRow {
        let sequence = &self.running.sequence;
        let start = self.running.n_begun();
        let end = start + self.n_tokens;
        let ends_sequence = end == self.running.n_tokens();
        let draws = self.running.n_tokens() < sequence.max_tokens;
        let is_pending = end > sequence.tokens.len();
        BatchRow {
            sequence: sequence.id,
            tokens: match is_pending {
                true => vec![0; self.n_tokens],
                false => sequence.tokens[start..end].to_vec(),
            },
            pending: self.drawn_by.filter(|_| is_pending),
            start: start as u32,
            first_block: self.running.table.n_dropped as u32,
            blocks: self.running.table.blocks.clone(),
            adapter: self.live.request.adapter,
            sample: (ends_sequence && draws).then(|| self.sample()),
            scoring: self.scoring(start, end),
            pooling: self.pooling(start, end),
        }
    }

    fn sample(&self) -> SampleSpec {
        let sequence = &self.running.sequence;
        let request = &self.live.request;
        let n_generated = (self.running.n_tokens() - sequence.n_prompt) as u32;
        let history = if request.sampling.needs_history() {
            sequence.tokens.clone()
        } else {
            Vec::new()
        };
        let may_stop = n_generated >= request.min_new_tokens;
        SampleSpec {
            params: request.sampling.clone(),
            n_generated,
            history,
            n_prompt: sequence.n_prompt as u32,
            banned: if may_stop {
                self.no_tokens.clone()
            } else {
                request.stop_tokens.clone()
            },
            allowed: None,
            is_awaited: sequence.is_awaited,
        }
    }

    /// Score `i` of the prompt is that of token `i + 1` and comes from position `i`. Scores
    /// reported before a preemption are not asked for again.
    fn scoring(&self, start: usize, end: usize) -> Option<PromptScoring> {
        let sequence = &self.running.sequence;
        let n_top = self.live.request.prompt_logprobs?;
        if self.live.n_unscored(sequence.id.index) == 0 {
            return None;
        }
        let first = start.max(self.live.n_scored);
        let last = end.min(sequence.n_prompt - 1);
        (first < last).then(|| PromptScoring {
            first: (first - start) as u32,
            targets: sequence.tokens[first + 1..=last].to_vec(),
            n_top,
        })
    }

    /// States that are in the sum already are not asked for again.
    fn pooling(&self, start: usize, end: usize) -> Option<PoolingSpec> {
        let sequence = &self.running.sequence;
        let pooling = self.live.request.pooling?;
        if self.live.n_unpooled(sequence.id.index) == 0 {
            return None;
        }
        let first = match pooling {
            Pooling::Mean => start.max(self.live.pooled.n_positions),
            Pooling::Last | Pooling::Encoded if end < sequence.n_prompt => return None,
            Pooling::Last | Pooling::Encoded => end - 1,
        };
        (first < end).then(|| PoolingSpec {
            pooling,
            prompt: self.live.request.prompt.clone(),
            first: (first - start) as u32,
            sum: self.live.pooled.sum.clone(),
        })
    }
}
