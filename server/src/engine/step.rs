//! The loop: commands, batch, forward, results, events.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use scheduler::{Event, Executor, RequestId, Scheduler, Stats};
use tokio::time::Instant;

use super::constraints::Constraints;
use super::flight::Flight;
use super::ledger::Ledger;
use super::pace::Pace;
use super::{Command, EngineError, EngineOptions, StopFlag, Submission, Turns, snapshot};
use crate::metrics::Metrics;

/// Everything the engine thread owns.
pub struct StepLoop {
    pub(super) scheduler: Scheduler,
    pub(super) executor: Box<dyn Executor + Send>,
    commands: Receiver<Command>,
    pub(super) ledger: Ledger,
    pub(super) constraints: Constraints,
    /// Steps that were started, the oldest first: at most two.
    pub(super) flights: VecDeque<Flight>,
    /// When the last one ended.
    pub(super) last_end: Option<Instant>,
    /// See [`EngineOptions::overlaps_steps`](super::EngineOptions::overlaps_steps).
    pub(super) overlaps_steps: bool,
    /// See [`EngineOptions::forces_tokens`](super::EngineOptions::forces_tokens).
    forces_tokens: bool,
    pub(super) metrics: Arc<Metrics>,
    /// What the counters have been told so far.
    reported: Stats,
    has_work: bool,
    pub(super) pace: Pace,
    /// Where other engines compute on the same cores.
    pub(super) turns: Option<Arc<Turns>>,
    pub(super) flag: StopFlag,
}

impl fmt::Debug for StepLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepLoop")
            .field("scheduler", &self.scheduler)
            .finish_non_exhaustive()
    }
}

impl StepLoop {
    pub(super) fn new(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        commands: Receiver<Command>,
        ledger: Ledger,
        metrics: Arc<Metrics>,
        options: EngineOptions,
        flag: StopFlag,
    ) -> Self {
        let mut step_loop = Self {
            scheduler,
            executor,
            commands,
            ledger,
            constraints: Constraints::default(),
            flights: VecDeque::new(),
            last_end: None,
            overlaps_steps: options.overlaps_steps,
            forces_tokens: options.forces_tokens,
            metrics,
            reported: Stats::default(),
            has_work: false,
            pace: Pace::new(options.stretch),
            turns: None,
            flag,
        };
        step_loop.publish();
        step_loop
    }

    pub(super) fn in_turns(self, turns: Arc<Turns>) -> Self {
        Self {
            turns: Some(turns),
            ..self
        }
    }

    /// Runs until told to stop, or until nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        while self.wait() && self.turn() {}
        self.abandon_flights();
    }

    /// Without work, waits for the first command; false: stop.
    fn wait(&mut self) -> bool {
        if self.has_work {
            return true;
        }
        self.check();
        match self.commands.recv() {
            Ok(command) => self.apply(command),
            Err(_) => false,
        }
    }

    /// Applies all commands that have come, gives up what is overdue, and takes a step if there
    /// is anything to do. False: it was told to stop, or nothing can be computed any more.
    pub fn turn(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            if !self.apply(command) {
                return false;
            }
        }
        self.give_up_overdue();
        self.has_work = self.step();
        self.publish();
        !self.flag.has_given_up()
    }

    /// Whether the last turn took a step.
    pub fn has_work(&self) -> bool {
        self.has_work
    }

    /// An error if nothing runs and something is still in the books, or if the books are wrong.
    pub fn check_idle(&self) -> Result<(), String> {
        self.scheduler.check().map_err(|error| error.to_string())?;
        let stats = self.scheduler.stats();
        if !self.scheduler.is_idle() || stats.n_blocks_in_use > 0 {
            return Err(format!("not idle: {stats:?}"));
        }
        if !self.ledger.is_empty() || !self.constraints.is_empty() {
            return Err("idle with unfinished requests".to_owned());
        }
        Ok(())
    }

    /// Requests that have waited or run for too long end here.
    fn give_up_overdue(&mut self) {
        for (request, error) in self.ledger.overdue(Instant::now()) {
            self.remove(request);
            self.ledger.fail(request, error);
        }
    }

    /// Takes a request out of the scheduler; nobody hears of it.
    fn remove(&mut self, request: RequestId) {
        drop(self.scheduler.cancel(request));
        self.constraints.forget(request);
    }

    /// One step; false when there was nothing to do. Should the books not stand it, it fails
    /// like one that cannot be computed. If they do not stand that either, the engine ends.
    fn step(&mut self) -> bool {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.try_step()));
        stepped.unwrap_or_else(|panic| {
            self.metrics.count_panic("step");
            let error = format!("panic: {}", panic_text(panic.as_ref()));
            self.abandon_flights();
            loop {
                let events = self.fail_step(&error);
                self.constraints.note(&events);
                self.ledger.deliver(events);
                if self.scheduler.n_in_flight() == 0 {
                    return true;
                }
            }
        })
    }

    fn fail_step(&mut self, error: &str) -> Vec<Event> {
        self.metrics.failed_steps.increment(1);
        tracing::error!(error, "a step failed");
        self.scheduler.fail_step()
    }

    /// Sees to it that a step is in flight, and where it can be another behind it, and ends the
    /// first.
    fn try_step(&mut self) -> bool {
        let turns = self.turns.clone();
        let mut turn = None;
        if self.flights.is_empty() {
            let budget = self.pace.budget(self.scheduler.crowd());
            let Some(batch) = self.scheduler.begin_step_within(budget) else {
                return false;
            };
            // Waiting for others is no time of the step, or pacing would learn from it.
            turn = turns.as_deref().map(Turns::take);
            self.start(batch);
        }
        if self.can_overlap() {
            let budget = self.pace.budget(self.scheduler.crowd());
            if let Some(batch) = self.scheduler.begin_ahead_within(budget) {
                self.start(batch);
            }
        }
        let result = self.finish();
        drop(turn);
        let mut events = match result {
            Ok(mut sampled) => {
                self.constraints.advance(&mut sampled);
                self.scheduler.end_step(sampled)
            }
            Err(error) => self.fail_step(&error),
        };
        self.constraints.note(&events);
        self.force(&mut events);
        self.ledger.deliver(events);
        true
    }

    /// Should it panic, what came of the step is told all the same.
    fn force(&mut self, events: &mut Vec<Event>) {
        if !self.forces_tokens {
            return;
        }
        let forcing = || self.constraints.force(&mut self.scheduler, events);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(forcing)) {
            self.metrics.count_panic("step");
            let error = panic_text(panic.as_ref());
            tracing::error!(error, "forcing tokens panicked");
        }
    }

    fn apply(&mut self, command: Command) -> bool {
        match command {
            Command::Submit(submission) => self.submit(*submission),
            Command::Cancel(request) => {
                self.remove(request);
                self.ledger.forget(request);
            }
            Command::CancelSequence(sequence) => {
                let events: Vec<_> = self
                    .scheduler
                    .cancel_sequence(sequence)
                    .into_iter()
                    .collect();
                self.constraints.note(&events);
                self.ledger.deliver(events);
            }
            Command::CancelAll => {
                for request in self.ledger.ids() {
                    self.constraints.forget(request);
                    let events = self.scheduler.cancel(request);
                    self.ledger.deliver(events);
                }
            }
            // Nobody waits any more, if it cannot be sent.
            Command::Snapshot(to) => drop(to.send(snapshot::take(&self.scheduler, &self.ledger))),
            Command::Stop => return false,
        }
        true
    }

    fn submit(&mut self, submission: Submission) {
        let (mut request, constraint) = self.ledger.open(submission);
        request.is_steered = constraint.is_some();
        let id = request.id;
        if let Some(constraint) = &constraint {
            self.constraints.open(&request, constraint);
        }
        if let Err(error) = self.scheduler.submit(request) {
            self.constraints.forget(id);
            self.ledger
                .fail(id, EngineError::Refused(error.to_string()));
        }
    }

    /// Recomputes every invariant; called when idle, where it costs nobody anything.
    fn check(&self) {
        if let Err(error) = self.check_idle() {
            tracing::error!(%error, "the books are wrong");
        }
    }

    /// Brings gauges and counters up to date.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn publish(&mut self) {
        let stats = self.scheduler.stats();
        let metrics = &self.metrics;
        metrics.running_sequences.set(stats.n_running as f64);
        metrics.waiting_sequences.set(stats.n_waiting as f64);
        metrics.kv_blocks.set(stats.n_blocks as f64);
        metrics.kv_blocks_in_use.set(stats.n_blocks_in_use as f64);
        metrics.kv_blocks_cached.set(stats.n_blocks_cached as f64);
        let n_blocks = stats.n_blocks.max(1) as f64;
        metrics
            .kv_usage
            .set(stats.n_blocks_in_use as f64 / n_blocks);
        metrics.running_tokens.set(stats.n_tokens_running as f64);
        let before = self.reported;
        for (counter, now, then) in [
            (
                &metrics.preemptions,
                stats.n_preemptions,
                before.n_preemptions,
            ),
            (
                &metrics.lost_tokens,
                stats.n_tokens_lost,
                before.n_tokens_lost,
            ),
            (
                &metrics.queried_prompt_tokens,
                stats.n_prefix_query_tokens,
                before.n_prefix_query_tokens,
            ),
            (
                &metrics.cached_prompt_tokens,
                stats.n_prefix_hit_tokens,
                before.n_prefix_hit_tokens,
            ),
            (
                &metrics.failed_rows,
                stats.n_failed_rows,
                before.n_failed_rows,
            ),
            (&metrics.overdue_turns, stats.n_overdue, before.n_overdue),
            (
                &metrics.forced_tokens,
                stats.n_tokens_forced,
                before.n_tokens_forced,
            ),
            (
                &metrics.steps_ahead,
                stats.n_steps_ahead,
                before.n_steps_ahead,
            ),
            (
                &metrics.discarded_rows,
                stats.n_rows_void,
                before.n_rows_void,
            ),
        ] {
            counter.increment(now - then);
        }
        self.reported = stats;
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
