//! A scheduler and a model runner, driven to the end of some requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kernels::{CpuOptions, Device, KvType, Numerics};
use models::{Adapter, AdapterStack, AdapterTarget, Checkpoint, Model, ModelRunner, RunnerOptions};
use scheduler::{
    AdapterId, Event, Executor, FinishReason, Request, RequestId, SampledToken, SamplingParams,
    Scheduler, SchedulerConfig, TokenLogprobs,
};

use crate::expected::fixtures;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) numerics: Numerics,
    pub(crate) kv_type: KvType,
    pub(crate) block_size: usize,
    pub(crate) n_blocks: usize,
    pub(crate) max_batched_tokens: usize,
    pub(crate) max_sequences: usize,
    pub(crate) max_model_len: usize,
}

impl Machine {
    /// Room for everything, and exact arithmetic.
    pub(crate) const EXACT: Self = Self {
        numerics: Numerics::F32,
        kv_type: KvType::F32,
        block_size: 16,
        n_blocks: 128,
        max_batched_tokens: 1024,
        max_sequences: 8,
        max_model_len: 256,
    };

    /// What is served by default.
    pub(crate) const NATIVE: Self = Self {
        numerics: Numerics::Native,
        kv_type: KvType::Bf16,
        ..Self::EXACT
    };
}

/// What came of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// From position 1.
    pub(crate) prompt: Vec<TokenLogprobs>,
    pub(crate) tokens: Vec<SampledToken>,
    pub(crate) reason: Option<FinishReason>,
    /// Of the prompt, if it was asked for.
    pub(crate) vector: Option<Arc<[f64]>>,
}

/// What came of all requests.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) n_preemptions: u64,
    pub(crate) n_steps: u64,
}

/// A loaded model on a machine.
#[derive(Debug)]
pub(crate) struct Server {
    machine: Machine,
    runner: ModelRunner,
}

impl Server {
    pub(crate) fn start(path: &Path, machine: Machine) -> Self {
        let device = Device::cpu(CpuOptions::default());
        let checkpoint = Checkpoint::open(path).expect("the checkpoint opens");
        let model = Model::load(&checkpoint, &device, machine.numerics, None).expect("it loads");
        let options = RunnerOptions {
            n_blocks: machine.n_blocks,
            block_size: machine.block_size,
            kv_type: machine.kv_type,
            max_batched_tokens: machine.max_batched_tokens,
            max_model_len: machine.max_model_len,
        };
        let runner = ModelRunner::new(model, options).expect("memory for a small cache");
        Self { machine, runner }
    }

    pub(crate) fn adapter_target(&self) -> &AdapterTarget {
        self.runner.model().adapter_target()
    }

    /// Loads an adapter of the fixtures.
    pub(crate) fn adapter(&self, name: &str) -> Arc<Adapter> {
        let path = fixtures().join("adapters").join(name);
        Arc::new(
            Adapter::load(&path, self.adapter_target()).unwrap_or_else(|error| panic!("{error}")),
        )
    }

    /// Makes a stack known under a number.
    pub(crate) fn insert(&self, id: u32, parts: Vec<(Arc<Adapter>, f32)>) {
        let stack = AdapterStack::new(parts).expect("adapters of one model");
        self.runner.adapters().insert(AdapterId(id), stack);
    }

    /// Serves all requests at once with a fresh scheduler. Request `i` gets outcome `i`.
    pub(crate) fn serve(&mut self, requests: &[Request]) -> Served {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            block_size: self.machine.block_size,
            n_blocks: self.machine.n_blocks,
            max_batched_tokens: self.machine.max_batched_tokens,
            max_sequences: self.machine.max_sequences,
            max_model_len: self.machine.max_model_len,
            window: self.window(),
            prefix_cache: false,
            fairness: true,
            head_start: SchedulerConfig::HEAD_START,
            age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
        })
        .expect("a machine that can be");
        for (i, request) in requests.iter().enumerate() {
            let id = RequestId(i as u64);
            let request = Request {
                id,
                ..request.clone()
            };
            scheduler.submit(request).expect("room for the request");
        }
        let mut outcomes = BTreeMap::new();
        while let Some(batch) = scheduler.begin_step() {
            let sampled = self.runner.execute(&batch).expect("the step is computed");
            for event in scheduler.end_step(sampled) {
                record(&mut outcomes, event);
            }
        }
        assert_eq!(scheduler.stats().n_blocks_in_use, 0);
        assert_eq!(outcomes.len(), requests.len());
        Served {
            outcomes: outcomes.into_values().collect(),
            n_preemptions: scheduler.stats().n_preemptions,
            n_steps: scheduler.stats().n_steps,
        }
    }

    /// Serves one request.
    /// Positions that a query sees in any layer, if no layer sees all.
    pub(crate) fn window(&self) -> Option<usize> {
        self.runner.model().config().kv_window()
    }

    pub(crate) fn serve_alone(&mut self, request: &Request) -> Outcome {
        self.serve(std::slice::from_ref(request)).outcomes.remove(0)
    }
}

fn record(outcomes: &mut BTreeMap<RequestId, Outcome>, event: Event) {
    match event {
        Event::PromptScored { request, logprobs } => {
            outcomes.entry(request).or_default().prompt.extend(logprobs);
        }
        Event::Pooled { request, vector } => {
            outcomes.entry(request).or_default().vector = Some(vector);
        }
        Event::Token { sequence, token } => {
            let outcome = outcomes.entry(sequence.request).or_default();
            outcome.tokens.push(token);
        }
        Event::Finished {
            sequence, reason, ..
        } => outcomes.entry(sequence.request).or_default().reason = Some(reason),
    }
}

/// A greedy request that reports all it can, the best `n_top` at each position.
pub(crate) fn greedy(prompt: &[u32], max_new_tokens: u32, n_top: u8) -> Request {
    Request {
        sampling: Arc::new(SamplingParams {
            temperature: 0.0,
            logprobs: Some(n_top),
            ..SamplingParams::default()
        }),
        prompt_logprobs: Some(n_top),
        ..Request::new(RequestId(0), prompt.into(), max_new_tokens)
    }
}
