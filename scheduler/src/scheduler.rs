//! The scheduler's state, and what comes in: requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::elder::ElderSeat;
use crate::flight::FlightRow;
use crate::flow::FlowTable;
use crate::live::LiveRequest;
use crate::sequence::{Age, Running, Sequence, Waiting, max_positions};
use crate::stats::Counters;
use crate::store::BlockStore;
use crate::{
    ConfigError, Priority, Request, RequestId, SchedulerConfig, SequenceId, Stats, TokenId,
};

/// Decides what runs in each step, and in which blocks.
///
/// The loop of an engine is: [`submit`](Self::submit) and [`cancel`](Self::cancel) whatever has
/// come in, [`begin_step`](Self::begin_step), execute the batch, [`end_step`](Self::end_step) or
/// [`fail_step`](Self::fail_step), deliver the events. Requests may be submitted and cancelled
/// while a step is in flight.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) store: BlockStore,
    pub(crate) requests: BTreeMap<RequestId, LiveRequest>,
    /// Sequences that may be admitted. Choices that wait for their leader are in
    /// [`LiveRequest::held`] instead.
    pub(crate) waiting: BTreeMap<Age, Waiting>,
    pub(crate) running: BTreeMap<Age, Running>,
    /// Whose turn it is to be admitted, by class.
    pub(crate) flows: [FlowTable; Priority::ALL.len()],
    pub(crate) elder: ElderSeat,
    /// Steps begun so far: the only time that is known here.
    pub(crate) step: u64,
    /// Choices that are held, over all requests.
    pub(crate) n_held: usize,
    /// Tokens of waiting sequences, and of held choices.
    pub(crate) n_tokens_queued: usize,
    /// The rows of the batches that are being executed, the oldest first: at most two.
    pub(crate) flights: VecDeque<Vec<FlightRow>>,
    pub(crate) counters: Counters,
    pub(crate) no_tokens: Arc<[TokenId]>,
    next_arrival: u64,
}

/// Where an unfinished sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceState {
    /// It waits for another choice of its request to compute the prompt.
    Held,
    /// It holds no blocks: it has not been admitted yet, or was preempted.
    Waiting,
    Running,
}

/// A request that cannot be served, whatever else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("request {0} is being served already")]
    DuplicateId(RequestId),
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("a request needs at least one choice, but n is 0")]
    NoChoices,
    /// A prompt that leaves no room for one new token counts as too long if any are asked for.
    #[error(
        "the prompt has {n_prompt} tokens and {n_new} must follow at least, \
         but a sequence holds at most {max_model_len}"
    )]
    TooLong {
        n_prompt: usize,
        n_new: usize,
        max_model_len: usize,
    },
    #[error(
        "the request can come to need {n_needed} blocks of {block_size} tokens, \
         but the cache has only {n_blocks}"
    )]
    NeverFits {
        n_needed: usize,
        n_blocks: usize,
        block_size: usize,
    },
}

impl Scheduler {
    /// An idle scheduler. Errors when a size in `config` is impossible.
    pub fn new(config: SchedulerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            store: BlockStore::new(config.n_blocks, config.block_size, config.window),
            requests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            flows: std::array::from_fn(|_| FlowTable::new(config.head_start)),
            elder: ElderSeat::default(),
            step: 0,
            n_held: 0,
            n_tokens_queued: 0,
            flights: VecDeque::new(),
            counters: Counters::default(),
            no_tokens: Arc::from([]),
            next_arrival: 0,
        })
    }

    /// Takes a request in, behind all those before it. Its sequences end at `max_new_tokens` or
    /// at the maximum length, whichever is less.
    pub fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        let max_tokens = self.max_tokens(&request)?;
        let arrival = (self.next_arrival, self.step);
        let live = LiveRequest::new(request, &self.config, arrival, max_tokens);
        self.next_arrival += 1;
        self.n_held += live.held.len();
        self.n_tokens_queued += live.held.len() * live.request.prompt.len();
        self.enqueue(live.age(0), live.open(0));
        self.requests.insert(live.request.id, live);
        Ok(())
    }

    /// Whether there is nothing to run, and nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.flights.is_empty()
    }

    /// What an unfinished sequence is doing.
    pub fn state(&self, id: SequenceId) -> Option<SequenceState> {
        let live = self.requests.get(&id.request)?;
        let age = live.age(id.index);
        if live.held.contains(&id.index) {
            Some(SequenceState::Held)
        } else if self.waiting.contains_key(&age) {
            Some(SequenceState::Waiting)
        } else {
            self.running
                .contains_key(&age)
                .then_some(SequenceState::Running)
        }
    }

    /// Current state and totals since the start. Takes time in proportion to the running
    /// sequences, not to the waiting ones.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let n_free = self.store.pool.n_free();
        Stats {
            n_waiting: self.waiting.len() + self.n_held,
            n_running: self.running.len(),
            n_tokens_waiting: self.n_tokens_queued,
            n_tokens_running: self.running.values().map(|r| r.sequence.tokens.len()).sum(),
            n_blocks: self.store.pool.n_blocks(),
            n_blocks_in_use: self.store.pool.n_blocks() - n_free,
            n_blocks_free: n_free - self.store.n_cached,
            n_blocks_cached: self.store.n_cached,
            n_preemptions: counters.n_preemptions,
            n_tokens_lost: counters.n_tokens_lost,
            n_prefix_query_tokens: counters.n_prefix_query_tokens,
            n_prefix_hit_tokens: counters.n_prefix_hit_tokens,
            n_steps: counters.n_steps,
            n_failed_steps: counters.n_failed_steps,
            n_failed_rows: counters.n_failed_rows,
            n_overdue: counters.n_overdue,
            n_tokens_computed: counters.n_tokens_computed,
            n_tokens_forced: counters.n_tokens_forced,
            n_steps_ahead: counters.n_steps_ahead,
            n_rows_void: counters.n_rows_void,
        }
    }

    /// The unfinished sequence of an age, which is not held.
    pub(crate) fn sequence_at(&self, age: Age) -> &Sequence {
        match self.running.get(&age) {
            Some(running) => &running.sequence,
            None => &self.waiting[&age].sequence,
        }
    }

    /// Tokens at which the sequences of `request` end, if it can be served at all.
    fn max_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        if self.requests.contains_key(&request.id) {
            return Err(SubmitError::DuplicateId(request.id));
        }
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.n == 0 {
            return Err(SubmitError::NoChoices);
        }
        let max_model_len = self.config.max_model_len;
        let n_prompt = request.prompt.len();
        let n_new = request.max_new_tokens.min(1) as usize;
        if n_prompt + n_new > max_model_len {
            return Err(SubmitError::TooLong {
                n_prompt,
                n_new,
                max_model_len,
            });
        }
        let max_tokens = max_model_len.min(n_prompt + request.max_new_tokens as usize);
        let n_positions = max_positions(n_prompt, max_tokens);
        let n_needed = self.store.n_blocks_least(n_positions);
        if n_needed > self.config.n_blocks {
            return Err(SubmitError::NeverFits {
                n_needed,
                n_blocks: self.config.n_blocks,
                block_size: self.config.block_size,
            });
        }
        Ok(max_tokens)
    }
}
