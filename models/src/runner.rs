//! Runs batches of the scheduler on a model.

mod ahead;
mod logits;
mod sample;
mod together;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use kernels::{KvCache, KvError, KvShape, KvType};
use scheduler::{AdapterId, Batch, BatchRow, Executor, ExecutorError, Sampled, Ticket};

use crate::activations::Activations;
use crate::adapter::{AdapterStack, StepAdapters};
use crate::attention::AttentionStep;
use crate::decoder::TokenRows;
use crate::pooling::pool;
use crate::step::{Limits, Step};
use crate::{AdapterTable, LoadError, Model, ModelConfig, Rope};
use ahead::Noted;
use sample::{Samplers, fail};

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

/// What a row's adapter stands for, if it has one and that is known.
type LookedUp = Option<Result<Arc<AdapterStack>, AdapterId>>;

/// A model with its KV memory.
#[derive(Debug)]
pub struct ModelRunner {
    model: Model,
    kv: KvCache,
    ropes: Vec<Rope>,
    limits: Limits,
    activations: Activations,
    step: Step,
    samplers: Samplers,
    adapters: AdapterTable,
    step_adapters: StepAdapters,
    /// Batches that were started, the oldest first.
    noted: VecDeque<Noted>,
    /// For each row of the batch that was started last, its answer on the device.
    drawn: Vec<Option<u32>>,
    /// The other parts of the model, on devices of their own.
    others: Vec<ModelRunner>,
}

impl ModelRunner {
    /// Reserves all memory that steps will need.
    ///
    /// # Errors
    /// A size is zero, slots do not fit 32 bits, or the memory for keys and values cannot be had.
    pub fn new(model: Model, options: RunnerOptions) -> Result<Self, LoadError> {
        let fail = |message: String| LoadError::new(Path::new("memory plan"), message);
        let sizes = [
            options.n_blocks,
            options.block_size,
            options.max_batched_tokens,
            options.max_model_len,
        ];
        if sizes.contains(&0) {
            return Err(fail(format!("a size is zero: {options:?}")));
        }
        let n_slots = options.n_blocks.checked_mul(options.block_size);
        if n_slots.is_none_or(|n| n > u32::MAX as usize) {
            return Err(fail(format!(
                "{} blocks of {} positions are more than can be numbered",
                options.n_blocks, options.block_size
            )));
        }
        let config = model.config();
        let offset = config.embedding.positions_offset;
        if offset.is_some() && options.max_model_len > config.max_positions {
            return Err(fail(format!(
                "{} positions, but the model has learned {} only",
                options.max_model_len, config.max_positions
            )));
        }
        let shape = KvShape {
            n_layers: config.n_layers,
            n_blocks: options.n_blocks,
            block_size: options.block_size,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
        };
        let kv = KvCache::new(model.device(), shape, options.kv_type).map_err(|error| {
            let n_bytes = options.n_blocks as u128 * shape.bytes_per_block(options.kv_type) as u128;
            match error {
                KvError::OutOfMemory(error) => {
                    fail(format!("no {n_bytes} bytes for keys and values: {error}"))
                }
                KvError::Unsupported(why) => fail(why),
            }
        })?;
        let runner = Self {
            kv,
            ropes: config
                .ropes
                .iter()
                .map(|rope| Rope::new(rope, options.max_model_len))
                .collect(),
            limits: Limits {
                n_blocks: options.n_blocks,
                block_size: options.block_size,
                max_batched_tokens: options.max_batched_tokens,
                max_model_len: options.max_model_len,
                vocab_size: config.vocab_size,
                window: config.kv_window(),
            },
            activations: Activations::new(model.device(), config, options.max_batched_tokens),
            step: Step::with_offset(offset.unwrap_or(0)),
            samplers: Samplers::default(),
            adapters: AdapterTable::default(),
            step_adapters: StepAdapters::new(model.device()),
            noted: VecDeque::new(),
            drawn: Vec::new(),
            others: Vec::new(),
            model,
        };
        let checked = runner.model.device().check_memory();
        checked.map_err(|error| fail(format!("no memory for a step: {error}")))?;
        Ok(runner)
    }

    /// Bytes that steps of up to `max_batched_tokens` tokens work in, beside weights, keys and
    /// values.
    pub fn step_bytes(config: &ModelConfig, max_batched_tokens: usize) -> u64 {
        crate::activations::n_bytes(config, max_batched_tokens)
    }

    /// The model that this runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The table that ids of adapters in batches are looked up in. Clone it to load and unload
    /// beside the running engine.
    pub fn adapters(&self) -> &AdapterTable {
        &self.adapters
    }

    fn forward(&mut self) {
        let step = &self.step;
        let rows = step.attention_rows();
        let style = self.model.config().attention.rope_style;
        let attention = AttentionStep {
            angles: &step.angles(style),
            slots: &step.slots,
            rows: &rows,
            adapters: self.step_adapters.rows(),
        };
        let tokens = TokenRows {
            given: &step.tokens,
            drawn: &step.drawn,
            positions: &step.positions,
        };
        self.model
            .forward(tokens, attention, &mut self.kv, &mut self.activations);
    }

    /// The result of a row before it is computed. A row whose adapter is gone fails alone.
    fn open(&mut self, row: &BatchRow, stack: LookedUp) -> Sampled {
        let failed = match stack.transpose() {
            Ok(stack) => self.adapt(stack.as_ref(), row.tokens.len()).err(),
            Err(id) => Some(format!("adapter {} is not loaded", id.0)),
        };
        Sampled {
            sequence: row.sequence,
            token: None,
            scored: Vec::new(),
            pooled: None,
            failed,
            postponed: false,
        }
    }

    /// The stacks of a batch's rows, looked up once for all parts of the model.
    fn look_up(&self, batch: &Batch) -> Vec<LookedUp> {
        let stack = |row: &BatchRow| row.adapter.map(|id| self.adapters.get(id).ok_or(id));
        batch.rows.iter().map(stack).collect()
    }

    /// Vectors of prompts, of the rows that are asked for them.
    fn pool(&self, batch: &Batch, results: &mut [Sampled]) {
        let width = self.model.config().hidden_size;
        // Rows that have failed already were not computed.
        let computed = batch.rows.iter().zip(results);
        let computed = computed.filter(|(_, result)| result.failed.is_none());
        let mut first = 0;
        for (row, result) in computed {
            let states = first * width..(first + row.tokens.len()) * width;
            first += row.tokens.len();
            let Some(spec) = &row.pooling else {
                continue;
            };
            match pool(spec, &self.activations.normed.read(states), width) {
                Ok(vector) => result.pooled = Some(vector),
                Err(error) => fail(result, &ExecutorError(error)),
            }
        }
    }

    /// The step's next rows use this stack, which must be one for this model.
    fn adapt(&mut self, stack: Option<&Arc<AdapterStack>>, n_rows: usize) -> Result<(), String> {
        let target = self.model.adapter_target();
        let part = self.model.device().part().index;
        let stack = stack.map(|stack| stack.for_part(part));
        let stack = stack.as_ref();
        if stack.is_some_and(|stack| !stack.target().is_same(target)) {
            return Err("the adapter belongs to another model".to_string());
        }
        self.step_adapters.push(stack, n_rows);
        Ok(())
    }
}

impl ModelRunner {
    /// Lays out a batch and runs it up to the states of all rows.
    fn run(&mut self, batch: &Batch, stacks: &[LookedUp]) -> Result<Vec<Sampled>, ExecutorError> {
        self.step_adapters.clear();
        let rows = batch.rows.iter().zip(stacks);
        let results = rows.map(|(row, stack)| self.open(row, stack.clone()));
        let results: Vec<Sampled> = results.collect();
        self.step_adapters.finish();
        let drawn = std::mem::take(&mut self.drawn);
        self.step
            .fill(batch, &results, &drawn, &self.ropes, &self.limits)?;
        if !self.step.tokens.is_empty() {
            self.forward();
        }
        Ok(results)
    }

    /// Waits for the device.
    fn wait(&self) -> Result<(), ExecutorError> {
        let finished = self.model.device().finish();
        finished.map_err(|error| ExecutorError(error.to_string()))
    }

    fn execute_own(
        &mut self,
        batch: &Batch,
        stacks: &[LookedUp],
    ) -> Result<Vec<Sampled>, ExecutorError> {
        let mut results = self.run(batch, stacks)?;
        self.pool(batch, &mut results);
        self.sample(batch, &mut results);
        self.wait()?;
        Ok(results)
    }
}

impl Executor for ModelRunner {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        let stacks = self.look_up(batch);
        if self.others.is_empty() {
            return self.execute_own(batch, &stacks);
        }
        self.execute_together(batch, &stacks)
    }

    fn n_in_flight(&self) -> usize {
        if self.runs_beside() { 2 } else { 1 }
    }

    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        if self.can_run_beside(batch) {
            self.begin(batch)
        } else {
            self.execute(batch).map(Ticket::done)
        }
    }

    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        match ticket.into_done() {
            Some(results) => Ok(results),
            None => self.end(batch),
        }
    }

    fn lost(&self) -> Option<String> {
        let others = self.others.iter().find_map(Executor::lost);
        self.model.device().lost().or(others)
    }
}
