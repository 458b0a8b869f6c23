//! A small machine, requests for it, and what came of them.

use scheduler::{
    Batch, Event, Executor, ExecutorError, FinishReason, Request, RequestId, Sampled, Scheduler,
    SchedulerConfig, SequenceId, Ticket, TokenId,
};
use tests::fake::{FakeConfig, FakeExecutor};
use tests::forcing::Forcing;
use tests::oracle;

pub(crate) const N_VOCAB: u32 = 50;

pub(crate) const CONFIG: SchedulerConfig = SchedulerConfig {
    block_size: 4,
    n_blocks: 32,
    max_batched_tokens: 16,
    max_sequences: 8,
    max_model_len: 96,
    window: None,
    prefix_cache: true,
    fairness: true,
    head_start: 0,
    age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
};

pub(crate) const MACHINE: oracle::Machine = oracle::Machine {
    n_vocab: N_VOCAB,
    max_model_len: CONFIG.max_model_len,
    window: None,
    forcing: Forcing::NONE,
};

/// Counts what an executor is given.
pub(crate) struct Counting {
    pub(crate) fake: FakeExecutor,
    pub(crate) n_tokens: usize,
    pub(crate) batches: Vec<Batch>,
}

impl Executor for Counting {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        self.n_tokens += batch.n_tokens();
        self.batches.push(batch.clone());
        self.fake.execute(batch)
    }

    fn n_in_flight(&self) -> usize {
        self.fake.n_in_flight()
    }

    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        self.n_tokens += batch.n_tokens();
        self.batches.push(batch.clone());
        self.fake.start(batch)
    }

    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        self.fake.finish(ticket, batch)
    }
}

/// One that runs two batches at a time.
pub(crate) fn overlapping(config: SchedulerConfig) -> (Scheduler, Counting) {
    let (scheduler, executor) = machine(config);
    let fake = executor.fake.with_two_in_flight();
    (scheduler, Counting { fake, ..executor })
}

pub(crate) fn machine(config: SchedulerConfig) -> (Scheduler, Counting) {
    let fake = FakeExecutor::new(FakeConfig {
        block_size: config.block_size,
        n_blocks: config.n_blocks,
        n_vocab: N_VOCAB,
        window: config.window,
    });
    let executor = Counting {
        fake,
        n_tokens: 0,
        batches: Vec::new(),
    };
    (
        Scheduler::new(config).expect("a possible machine"),
        executor,
    )
}

/// `n_prompt` tokens that begin as those of every other request with the same `stem`.
pub(crate) fn request(id: u64, stem: u32, n_prompt: u32, max_new_tokens: u32) -> Request {
    let prompt = (0..n_prompt).map(|i| (i * 7 + stem) % N_VOCAB);
    Request {
        kv_root: 1,
        ..Request::new(RequestId(id), prompt.collect(), max_new_tokens)
    }
}

pub(crate) fn sequence(id: u64, index: u32) -> SequenceId {
    SequenceId {
        request: RequestId(id),
        index,
    }
}

pub(crate) fn tokens_of(events: &[Event], id: SequenceId) -> Vec<TokenId> {
    let of = |event: &Event| match event {
        Event::Token { sequence, token } if *sequence == id => Some(token.token),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// How a sequence ended, and the cached tokens it reported.
pub(crate) fn end_of(events: &[Event], id: SequenceId) -> (FinishReason, u32) {
    let of = |event: &Event| match event {
        Event::Finished {
            sequence,
            reason,
            n_cached_tokens,
            ..
        } if *sequence == id => Some((*reason, *n_cached_tokens)),
        _ => None,
    };
    let ends: Vec<_> = events.iter().filter_map(of).collect();
    assert_eq!(ends.len(), 1, "{id} ends once");
    ends[0]
}

pub(crate) fn alone(request: &Request, index: u32) -> Vec<TokenId> {
    let expected = oracle::alone(request, index, MACHINE);
    expected.tokens.iter().map(|token| token.token).collect()
}
