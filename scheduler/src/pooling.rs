//! Vectors of whole prompts: what a row is asked for, and what is known of it so far.

use std::sync::Arc;

use crate::TokenId;

/// What a prompt's vector is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The final state of its last position.
    Last,
    /// The sum of the final states of all its positions.
    Mean,
    /// Whatever an encoder makes of it. Each position sees all others, so that nothing can be
    /// computed before the last chunk: the executor then computes the whole prompt.
    Encoded,
}

/// A row that adds to, or completes, the vector of its prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolingSpec {
    pub pooling: Pooling,
    /// All tokens of the prompt. [`Pooling::Encoded`] needs them, since an executor remembers
    /// nothing of earlier chunks.
    pub prompt: Arc<[TokenId]>,
    /// Index into the row's `tokens` of the first one that is not in `sum` yet.
    pub first: u32,
    /// [`Pooling::Mean`]: the sum over all positions before `first`, which the answer continues
    /// position by position. So it does not depend on where chunks begin. Empty: none yet.
    pub sum: Arc<[f64]>,
}

/// How far the vector of an unfinished request has come.
#[derive(Debug, Default)]
pub(crate) struct Pooled {
    pub(crate) n_positions: usize,
    pub(crate) sum: Arc<[f64]>,
}
