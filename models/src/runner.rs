//! Runs batches of the scheduler on a model.

use kernels::KvType;
use scheduler::{Batch, Executor, ExecutorError, Sampled};

use crate::{LoadError, Model};

/// Memory of a runner, from the memory plan.
#[derive(Clone, Copy, Debug)]
pub struct RunnerOptions {
    pub n_blocks: usize,
    pub block_size: usize,
    pub kv_type: KvType,
    /// Most tokens that one batch brings.
    pub max_batched_tokens: usize,
    /// Longest sequence that will be served (fixes dynamic rope scaling).
    pub max_model_len: usize,
}

/// A model with its KV memory.
#[derive(Debug)]
pub struct ModelRunner {}

impl ModelRunner {
    pub fn new(_model: Model, _options: RunnerOptions) -> Result<Self, LoadError> {
        unimplemented!()
    }
}

impl Executor for ModelRunner {
    fn execute(&mut self, _batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        unimplemented!()
    }
}
