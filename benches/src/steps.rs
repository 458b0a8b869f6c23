//! A runner without a server, rows for its steps, and answers where there is none.

use std::sync::Arc;

use anyhow::Result;
use kernels::{CpuOptions, Device, KvType, Numerics};
use models::{Checkpoint, Model, ModelRunner, RunnerOptions};
use scheduler::{
    Batch, BatchRow, BlockId, RequestId, SampleSpec, Sampled, SamplingParams, SequenceId,
};
use understudy::source::{self, SourceSettings};

pub(crate) const BLOCK_SIZE: usize = 16;

/// What a runner has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) n_blocks: usize,
    pub(crate) max_batched_tokens: usize,
    pub(crate) max_model_len: usize,
}

/// The model on the CPU, with keys and values in bf16.
pub(crate) fn runner(
    model: Option<&str>,
    n_threads: Option<usize>,
    room: Room,
) -> Result<ModelRunner> {
    let found = source::resolve(model, &SourceSettings::from_env()?)?;
    let device = Device::cpu(CpuOptions {
        n_threads,
        isa: None,
    });
    let checkpoint = Checkpoint::open(&found.path)?;
    let model = Model::load(&checkpoint, &device, Numerics::Native, None)?;
    let options = RunnerOptions {
        n_blocks: room.n_blocks,
        block_size: BLOCK_SIZE,
        kv_type: KvType::Bf16,
        max_batched_tokens: room.max_batched_tokens,
        max_model_len: room.max_model_len,
    };
    Ok(ModelRunner::new(model, options)?)
}

/// The next tokens of sequence `i`, which has `n_blocks` blocks of its own, with a greedy draw
/// after them. Keys before them are whatever was there: they cost what others do.
pub(crate) fn row(i: usize, tokens: Vec<u32>, start: usize, n_blocks: usize) -> BatchRow {
    let first = (i * n_blocks) as u32;
    BatchRow {
        sequence: SequenceId {
            request: RequestId(i as u64),
            index: 0,
        },
        tokens,
        pending: None,
        start: start as u32,
        first_block: 0,
        blocks: (first..first + n_blocks as u32).map(BlockId).collect(),
        adapter: None,
        sample: Some(SampleSpec {
            params: Arc::new(SamplingParams {
                temperature: 0.0,
                ..SamplingParams::default()
            }),
            n_generated: 0,
            history: Vec::new(),
            n_prompt: start as u32,
            banned: Arc::new([]),
            allowed: None,
            is_awaited: false,
        }),
        scoring: None,
        pooling: None,
    }
}

/// What a model might draw after these rows: which tokens does not matter, but prompts that differ
/// go on differently.
pub(crate) fn made_up(batch: &Batch) -> Vec<Sampled> {
    let rows = batch.rows.iter();
    rows.map(|row| Sampled::drawn(row, row.start % 1_000))
        .collect()
}
