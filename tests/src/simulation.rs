//! Deterministic simulation of the scheduler: one seed draws a machine, traffic and faults, and
//! everything must come out as if each request had been served alone.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use scheduler::{
    Batch, Event, Executor, FlowId, Request, RequestId, Scheduler, SequenceId, Stats, SubmitError,
    Ticket,
};

use crate::duel;
use crate::fake::{FakeConfig, FakeExecutor};
use crate::forcing::Follower;
use crate::guests;
use crate::promises::Promises;
use crate::record::{Records, ensure};
use crate::rng::Rng;
use crate::traffic::{self, Traffic};

/// What a simulation has exercised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub n_steps: u64,
    pub n_failed_steps: u64,
    pub n_failed_rows: u64,
    /// Times that the age bound decided.
    pub n_overdue: u64,
    pub n_tokens: u64,
    pub n_requests: u64,
    pub n_refused: u64,
    pub n_cancelled: u64,
    pub n_preemptions: u64,
    pub n_tokens_lost: u64,
    pub n_hit_tokens: u64,
    pub n_scores: u64,
    pub n_vectors: u64,
    /// Blocks behind a window that rows went without, summed over all rows.
    pub n_blocks_dropped: u64,
    /// Tokens that followed without a draw.
    pub n_forced: u64,
    /// Steps that were begun while another was in flight.
    pub n_ahead: u64,
    /// Their rows that nobody waited for in the end.
    pub n_void: u64,
    /// Rows that had to be computed again for that.
    pub n_postponed: u64,
}

impl Report {
    /// Adds the figures of another simulation.
    pub fn add(&mut self, other: &Report) {
        self.n_steps += other.n_steps;
        self.n_failed_steps += other.n_failed_steps;
        self.n_failed_rows += other.n_failed_rows;
        self.n_overdue += other.n_overdue;
        self.n_tokens += other.n_tokens;
        self.n_requests += other.n_requests;
        self.n_refused += other.n_refused;
        self.n_cancelled += other.n_cancelled;
        self.n_preemptions += other.n_preemptions;
        self.n_tokens_lost += other.n_tokens_lost;
        self.n_hit_tokens += other.n_hit_tokens;
        self.n_scores += other.n_scores;
        self.n_vectors += other.n_vectors;
        self.n_blocks_dropped += other.n_blocks_dropped;
        self.n_forced += other.n_forced;
        self.n_ahead += other.n_ahead;
        self.n_void += other.n_void;
        self.n_postponed += other.n_postponed;
    }
}

/// A seed under which something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, message } = self;
        write!(
            f,
            "seed {seed}: {message} (replay: cargo xtask simulate --seed {seed})"
        )
    }
}

impl std::error::Error for Failure {}

/// One step, for whoever watches.
#[derive(Clone, Debug)]
pub struct StepLine {
    pub step: u64,
    pub n_rows: usize,
    pub n_tokens: usize,
    pub n_events: usize,
    pub failed: bool,
    /// Tokens in the batch of each flow, by flow.
    pub flows: Vec<(FlowId, usize)>,
    /// As the step ends.
    pub stats: Stats,
}

/// Runs the simulation of one seed.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_watched(seed, &mut |_| ())
}

/// Runs the simulation of one seed and shows each of its steps. One seed in ten is a duel of
/// flows, and one compares traffic with and without batch work.
///
/// # Errors
/// A promise was broken, or something panicked.
pub fn run_watched(seed: u64, watch: &mut dyn FnMut(&StepLine)) -> Result<Report, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| match seed % 10 {
        8 => duel::run(seed, watch),
        9 => guests::run(seed, watch),
        _ => Simulation::new(seed)?.run(watch),
    }));
    let message = match outcome {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(message)) => message,
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => format!("panicked: {message}"),
            Err(panic) => match panic.downcast::<&str>() {
                Ok(message) => format!("panicked: {message}"),
                Err(_) => "panicked".to_owned(),
            },
        },
    };
    Err(Failure { seed, message })
}

struct Simulation {
    rng: Rng,
    traffic: Traffic,
    arrivals: VecDeque<(u64, Request)>,
    scheduler: Scheduler,
    executor: FakeExecutor,
    /// Batches that were started, the oldest first.
    flying: VecDeque<(Batch, Ticket)>,
    records: Records,
    promises: Promises,
    follower: Follower,
    report: Report,
    step: u64,
    /// The time of the traffic. Most steps take one tick.
    tick: u64,
    /// Steps in a row that told nobody anything.
    n_quiet: usize,
}

impl Simulation {
    fn new(seed: u64) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let mut traffic = traffic::draw(&mut rng);
        let arrivals = std::mem::take(&mut traffic.arrivals);
        let config = traffic.config;
        let n_forced = match traffic.forcing.chance {
            0 => 0,
            _ => traffic.forcing.n_most,
        };
        Ok(Self {
            scheduler: Scheduler::new(config).map_err(|error| error.to_string())?,
            executor: FakeExecutor::new(FakeConfig {
                block_size: config.block_size,
                n_blocks: config.n_blocks,
                n_vocab: traffic.n_vocab,
                window: config.window,
            })
            .with_two_in_flight(),
            flying: VecDeque::new(),
            arrivals: arrivals.into(),
            records: Records::default(),
            promises: Promises::new(config, n_forced),
            follower: Follower::new(traffic.forcing),
            report: Report::default(),
            step: 0,
            tick: 0,
            n_quiet: 0,
            rng,
            traffic,
        })
    }

    fn run(mut self, watch: &mut dyn FnMut(&StepLine)) -> Result<Report, String> {
        // Each step moves the oldest running sequence on, so this is generous.
        let n_most = 200_000;
        while !(self.arrivals.is_empty() && self.scheduler.is_idle()) {
            ensure!(self.step < n_most, "not done after {n_most} steps");
            self.submit_arrived()?;
            self.cancel_some()?;
            self.run_step(watch)
                .map_err(|broken| format!("step {}: {broken}", self.step))?;
            self.step += 1;
            self.tick += 1;
            if self.rng.chance(self.traffic.slow) {
                self.tick += self.rng.range(1, 50) as u64;
            }
        }
        let idle = self.scheduler.stats();
        ensure!(idle.n_blocks_in_use == 0, "idle, but blocks are in use");
        ensure!(
            idle.n_waiting + idle.n_running == 0,
            "idle, but sequences are left"
        );
        let config = &self.traffic.config;
        self.records.check_all(config, self.traffic.forcing)?;
        self.report.n_steps = self.step;
        self.report.n_failed_steps = idle.n_failed_steps;
        self.report.n_failed_rows = idle.n_failed_rows;
        self.report.n_overdue = idle.n_overdue;
        self.report.n_preemptions = idle.n_preemptions;
        self.report.n_tokens_lost = idle.n_tokens_lost;
        self.report.n_hit_tokens = idle.n_prefix_hit_tokens;
        self.report.n_forced = idle.n_tokens_forced;
        self.report.n_ahead = idle.n_steps_ahead;
        self.report.n_void = idle.n_rows_void;
        Ok(self.report)
    }

    fn run_step(&mut self, watch: &mut dyn FnMut(&StepLine)) -> Result<(), String> {
        self.scheduler.check()?;
        if self.flying.is_empty() && !self.begin()? {
            ensure!(self.scheduler.is_idle(), "there is work but no batch");
            return Ok(());
        }
        self.meddle()?;
        if self.flying.len() == 1 && self.rng.chance(self.traffic.ahead) && self.begin_ahead()? {
            self.meddle()?;
        }
        let failed = self.rng.chance(self.traffic.failures);
        let (batch, ticket) = self.flying.pop_front().ok_or("nothing is in flight")?;
        let events = self.finish(&batch, ticket, failed)?;
        let events = self.follower.force(events, &mut self.scheduler);
        let n_events = events.len();
        self.check_rows(&batch, &events)?;
        for event in events {
            self.apply(event)?;
        }
        if self.flying.is_empty() {
            self.records.check_ended()?;
        }
        self.scheduler.check()?;
        self.check_progress(n_events)?;
        watch(&StepLine {
            step: self.step,
            n_rows: batch.rows.len(),
            n_tokens: batch.n_tokens(),
            n_events,
            failed,
            flows: self.flows(&batch),
            stats: self.scheduler.stats(),
        });
        Ok(())
    }

    /// Begins a step; false: there is nothing to do.
    fn begin(&mut self) -> Result<bool, String> {
        let n_budget = self.draw_budget();
        self.promises.note_before(&self.scheduler, n_budget);
        let Some(batch) = self.scheduler.begin_step_within(n_budget) else {
            return Ok(false);
        };
        self.check_limits(&batch, n_budget)?;
        let dropped = batch.rows.iter().map(|row| u64::from(row.first_block));
        self.report.n_blocks_dropped += dropped.sum::<u64>();
        self.promises
            .check_batch(&batch, &self.scheduler, &self.records)?;
        self.start(batch)?;
        Ok(true)
    }

    /// Begins a step behind the one in flight; false: it has to wait for that.
    fn begin_ahead(&mut self) -> Result<bool, String> {
        let n_budget = self.draw_budget();
        self.promises.note_before(&self.scheduler, n_budget);
        let Some(batch) = self.scheduler.begin_ahead_within(n_budget) else {
            return Ok(false);
        };
        self.check_limits(&batch, n_budget)?;
        // Who has to compute again what is in flight may have to wait for that.
        let spoilt = self.executor.spoilt();
        let rows = self.flying[0].0.rows.iter();
        let drawing = rows.filter(|row| row.sample.is_some() && !spoilt.contains(&row.sequence));
        let drawing: Vec<SequenceId> = drawing.map(|row| row.sequence).collect();
        self.promises
            .check_ahead(&drawing, &batch, &self.scheduler, &self.records)?;
        self.start(batch)?;
        Ok(true)
    }

    fn start(&mut self, batch: Batch) -> Result<(), String> {
        let ticket = self.executor.start(&batch);
        let ticket = ticket.map_err(|error| error.to_string())?;
        self.flying.push_back((batch, ticket));
        self.scheduler.check()
    }

    /// Whatever clients do while a step is in flight.
    fn meddle(&mut self) -> Result<(), String> {
        if self.rng.chance(100) {
            self.submit_arrived()?;
        }
        self.cancel_some()
    }

    /// Tokens of the next step: an engine that keeps streams smooth holds some below the budget,
    /// but never below one for each running sequence and one more.
    fn draw_budget(&mut self) -> usize {
        let n_most = self.traffic.config.max_batched_tokens;
        let n_least = self.scheduler.stats().n_running + 1;
        if n_least < n_most && self.rng.chance(self.traffic.paced) {
            self.rng.range(n_least, n_most)
        } else {
            n_most
        }
    }

    /// Draws what goes wrong with the oldest batch in flight, and ends its step.
    fn finish(
        &mut self,
        batch: &Batch,
        ticket: Ticket,
        failed: bool,
    ) -> Result<Vec<Event>, String> {
        let spoilt = self.executor.spoilt();
        if failed {
            self.executor.fail_next();
        }
        for row in &batch.rows {
            let id = row.sequence;
            if spoilt.contains(&id) {
                continue;
            }
            if failed {
                self.records.note_failed(id);
            } else if self.rng.chance(self.traffic.row_failures) {
                self.executor.fail_row_next(id);
                self.records.note_row_failed(id);
            } else if self.rng.chance(self.traffic.postponed) {
                self.executor.postpone_row_next(id);
            }
        }
        match self.executor.finish(ticket, batch) {
            Ok(sampled) => {
                self.report.n_tokens += batch.n_tokens() as u64;
                let postponed = sampled.iter().filter(|result| result.postponed);
                self.report.n_postponed += postponed.count() as u64;
                Ok(self.scheduler.end_step(sampled))
            }
            Err(_) => Ok(self.scheduler.fail_step()),
        }
    }

    fn flows(&self, batch: &Batch) -> Vec<(FlowId, usize)> {
        let mut flows = BTreeMap::new();
        for row in &batch.rows {
            let flow = self.records.request(row.sequence.request).flow;
            *flows.entry(flow).or_default() += row.tokens.len();
        }
        flows.into_iter().collect()
    }

    fn check_limits(&self, batch: &Batch, n_budget: usize) -> Result<(), String> {
        let config = &self.traffic.config;
        let n_tokens = batch.n_tokens();
        ensure!(
            n_tokens <= n_budget,
            "{n_tokens} tokens in a batch of {n_budget}"
        );
        ensure!(
            batch.rows.len() <= config.max_sequences,
            "{} rows in a batch of {}",
            batch.rows.len(),
            config.max_sequences
        );
        let single_first = batch.rows.is_sorted_by_key(|row| row.tokens.len() > 1);
        ensure!(single_first, "a chunk comes before a single token");
        Ok(())
    }

    /// A step tells only of what was in it.
    fn check_rows(&self, batch: &Batch, events: &[Event]) -> Result<(), String> {
        for event in events {
            let known = match event {
                Event::PromptScored { request, .. } | Event::Pooled { request, .. } => batch
                    .rows
                    .iter()
                    .any(|row| row.sequence.request == *request),
                Event::Token { sequence, .. } | Event::Finished { sequence, .. } => {
                    batch.rows.iter().any(|row| row.sequence == *sequence)
                }
            };
            ensure!(known, "{event:?} of a step that it was not part of");
        }
        Ok(())
    }

    /// Whoever goes first in rank computes at least one token a step, so somebody hears
    /// something at least every time it has come to its end. Others may take its place.
    fn check_progress(&mut self, n_events: usize) -> Result<(), String> {
        self.n_quiet = if n_events > 0 { 0 } else { self.n_quiet + 1 };
        let n_most = 4 * self.traffic.config.max_model_len + 16;
        ensure!(
            self.n_quiet <= n_most,
            "{} steps without an event",
            self.n_quiet
        );
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        self.promises.apply(&event)?;
        if let Event::PromptScored { logprobs, .. } = &event {
            self.report.n_scores += logprobs.len() as u64;
        }
        self.report.n_vectors += u64::from(matches!(event, Event::Pooled { .. }));
        self.records.apply(event)
    }

    fn submit_arrived(&mut self) -> Result<(), String> {
        while self
            .arrivals
            .front()
            .is_some_and(|(at, _)| *at <= self.tick)
        {
            let Some((_, request)) = self.arrivals.pop_front() else {
                break;
            };
            self.submit_broken(&request)?;
            let id = request.id;
            let answer = self.scheduler.submit(request.clone());
            let expected = self.refusal(&request);
            ensure!(
                answer == expected,
                "{id}: {answer:?} instead of {expected:?}"
            );
            self.report.n_requests += 1;
            if answer.is_err() {
                self.report.n_refused += 1;
                continue;
            }
            let again = self.scheduler.submit(request.clone());
            ensure!(
                again == Err(SubmitError::DuplicateId(id)),
                "{id} was taken twice"
            );
            self.promises.note_arrival(&request);
            self.follower.open(&request);
            self.records.open(request);
        }
        Ok(())
    }

    /// Requests that nobody should send are refused, and leave nothing behind.
    fn submit_broken(&mut self, request: &Request) -> Result<(), String> {
        let empty = Request {
            prompt: [].into(),
            ..request.clone()
        };
        let answer = self.scheduler.submit(empty);
        ensure!(answer == Err(SubmitError::EmptyPrompt), "{answer:?}");
        let none = Request {
            n: 0,
            ..request.clone()
        };
        let answer = self.scheduler.submit(none);
        ensure!(answer == Err(SubmitError::NoChoices), "{answer:?}");
        Ok(())
    }

    /// What must become of a request, computed apart from the scheduler.
    fn refusal(&self, request: &Request) -> Result<(), SubmitError> {
        let config = &self.traffic.config;
        let n_prompt = request.prompt.len();
        let n_new = request.max_new_tokens as usize;
        if n_prompt > config.max_model_len || (n_new > 0 && n_prompt == config.max_model_len) {
            return Err(SubmitError::TooLong {
                n_prompt,
                n_new: n_new.min(1),
                max_model_len: config.max_model_len,
            });
        }
        let n_last = (n_prompt + n_new).min(config.max_model_len);
        let n_positions = if n_new == 0 { n_prompt } else { n_last - 1 };
        // A window that begins in the last position of a block touches the most.
        let in_window = |window: usize| 1 + (window - 1).div_ceil(config.block_size);
        let n_needed = n_positions
            .div_ceil(config.block_size)
            .min(config.window.map_or(usize::MAX, in_window));
        if n_needed > config.n_blocks {
            return Err(SubmitError::NeverFits {
                n_needed,
                n_blocks: config.n_blocks,
                block_size: config.block_size,
            });
        }
        Ok(())
    }

    fn cancel_some(&mut self) -> Result<(), String> {
        if !self.rng.chance(self.traffic.cancels) {
            return Ok(());
        }
        self.cancel_unknown()?;
        let unfinished = self.records.unfinished();
        if unfinished.is_empty() {
            return Ok(());
        }
        let victim = *self.rng.pick(&unfinished);
        let events: Vec<Event> = if self.rng.chance(500) {
            for id in unfinished.iter().filter(|id| id.request == victim.request) {
                self.records.note_cancelled(*id);
            }
            self.scheduler.cancel(victim.request)
        } else {
            self.records.note_cancelled(victim);
            self.scheduler.cancel_sequence(victim).into_iter().collect()
        };
        self.report.n_cancelled += 1;
        for event in events {
            self.apply(event)?;
        }
        if self.flying.is_empty() {
            self.records.check_ended()?;
        }
        self.scheduler.check()
    }

    fn cancel_unknown(&mut self) -> Result<(), String> {
        let request = RequestId(u64::MAX);
        let sequence = SequenceId { request, index: 0 };
        ensure!(
            self.scheduler.cancel(request).is_empty(),
            "cancelled nobody"
        );
        ensure!(
            self.scheduler.cancel_sequence(sequence).is_none(),
            "cancelled nobody"
        );
        Ok(())
    }
}
