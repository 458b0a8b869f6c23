//! What is asked of the scheduler, and what it reports back.

use std::sync::Arc;

use crate::{
    AdapterId, FlowId, Pooling, Priority, RequestId, SampledToken, SamplingParams, SequenceId,
    TokenId, TokenLogprobs,
};

/// One request: a prompt and `n` sequences that continue it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub id: RequestId,
    /// Never empty.
    pub prompt: Arc<[TokenId]>,
    /// Number of sequences, at least 1. They share the prompt's full blocks.
    pub n: u32,
    /// `0` computes (and scores) the prompt and draws nothing.
    pub max_new_tokens: u32,
    /// `stop_tokens` cannot be drawn before this many tokens.
    pub min_new_tokens: u32,
    /// A sequence ends after drawing one of these. Empty: it runs to its length.
    pub stop_tokens: Arc<[TokenId]>,
    pub adapter: Option<AdapterId>,
    /// Root of the prefix-cache key: digests of weights, adapter and scale, and any salt.
    /// Requests share blocks only under equal roots. Content, never a name.
    pub kv_root: u64,
    pub sampling: Arc<SamplingParams>,
    /// `Some(k)`: report log-probabilities of the prompt's tokens, with the `k` best at each.
    pub prompt_logprobs: Option<u8>,
    /// The first prompt token that is scored; what is before it may come from the prefix cache.
    /// 0 and 1: all are (the first has no predecessor).
    pub scored_from: u32,
    /// Report a vector of the prompt.
    pub pooling: Option<Pooling>,
    /// Whoever runs the engine has to see each token before it can say what may be drawn next (a
    /// grammar).
    pub is_steered: bool,
    /// Whose work this is. Flows of one class share the machine alike.
    pub flow: FlowId,
    pub priority: Priority,
}

impl Request {
    /// One sequence drawn with default parameters until its length, of the model alone. What a
    /// request asks beyond that is set by struct update.
    pub fn new(id: RequestId, prompt: Arc<[TokenId]>, max_new_tokens: u32) -> Self {
        Self {
            id,
            prompt,
            n: 1,
            max_new_tokens,
            min_new_tokens: 0,
            stop_tokens: [].into(),
            adapter: None,
            kv_root: 0,
            sampling: Arc::default(),
            prompt_logprobs: None,
            scored_from: 0,
            pooling: None,
            is_steered: false,
            flow: FlowId::default(),
            priority: Priority::Normal,
        }
    }
}

/// Something that happened to a request in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More of the prompt was scored; entries continue from token 1 (the first of a prompt has no
    /// predecessor and no score), or from `scored_from`. Reported once a request, whatever its `n`.
    PromptScored {
        request: RequestId,
        logprobs: Vec<TokenLogprobs>,
    },
    /// The prompt is computed, and this is its vector. Reported once a request, whatever its `n`.
    Pooled {
        request: RequestId,
        vector: Arc<[f64]>,
    },
    /// A token was drawn. A stop token is reported here as well, before `Finished`.
    Token {
        sequence: SequenceId,
        token: SampledToken,
    },
    /// The sequence has ended and owns nothing any more.
    Finished {
        sequence: SequenceId,
        reason: FinishReason,
        /// Prompt tokens of the request that the prefix cache held when it was first run, the
        /// same for all its sequences. What choices share among themselves does not count.
        n_cached_tokens: u32,
        /// What the executor said of the row, when it failed alone.
        failure: Option<String>,
    },
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// It drew one of its stop tokens.
    Stop,
    /// It reached `max_new_tokens`, or the scheduler's maximum length.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The step that it was part of failed, or its own row in it.
    Failed,
}
