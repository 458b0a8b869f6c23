//! The loop: commands, batch, forward, results, events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use scheduler::{Batch, Event, Executor, RequestId, Sampled, Scheduler, Stats};
use tokio::time::Instant;

use super::constraints::Constraints;
use super::ledger::Ledger;
use super::pace::{Load, Pace};
use super::{Command, EngineError, EngineOptions, StopFlag, Submission, Turns, snapshot};
use crate::metrics::Metrics;

/// Everything the engine thread owns.
pub struct StepLoop {
    scheduler: Scheduler,
    executor: Box<dyn Executor + Send>,
    commands: Receiver<Command>,
    ledger: Ledger,
    constraints: Constraints,
    /// See [`EngineOptions::forces_tokens`](super::EngineOptions::forces_tokens).
    forces_tokens: bool,
    metrics: Arc<Metrics>,
    /// What the counters have been told so far.
    reported: Stats,
    has_work: bool,
    pace: Pace,
    /// Where other engines compute on the same cores.
    turns: Option<Arc<Turns>>,
    flag: StopFlag,
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
            let events = self.fail_step(&error);
            self.constraints.note(&events);
            self.ledger.deliver(events);
            true
        })
    }

    fn fail_step(&mut self, error: &str) -> Vec<Event> {
        self.metrics.failed_steps.increment(1);
        tracing::error!(error, "a step failed");
        self.scheduler.fail_step()
    }

    fn try_step(&mut self) -> bool {
        let budget = self.pace.budget(self.scheduler.crowd());
        let Some(mut batch) = self.scheduler.begin_step_within(budget) else {
            return false;
        };
        self.constraints.fill(&mut batch);
        self.ledger.note_started(&batch);
        let mut events = match self.execute(&batch) {
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

    /// Runs a batch; a panic is an error like any other.
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, String> {
        // Waiting for others is no time of the step, or pacing would learn from it.
        let turn = self.turns.as_deref().map(Turns::take);
        let started = Instant::now();
        let executor = &mut self.executor;
        let result = catch_unwind(AssertUnwindSafe(|| executor.execute(batch)));
        drop(turn);
        let took = started.elapsed();
        self.metrics.step.record(took);
        self.pace.note(Load::of(batch), took);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of tokens is far below 2^52"
        )]
        self.metrics.step_tokens.record(batch.n_tokens() as f64);
        let sampled = match result {
            Ok(Ok(sampled)) => sampled,
            Ok(Err(error)) => {
                // Before anybody hears of the step: whoever asks then must be told.
                if let Some(reason) = self.executor.lost() {
                    self.flag.give_up(reason);
                }
                return Err(error.to_string());
            }
            Err(panic) => {
                self.metrics.count_panic("step");
                return Err(format!("panic: {}", panic_text(panic.as_ref())));
            }
        };
        let is_complete = sampled.len() == batch.rows.len()
            && sampled.iter().zip(&batch.rows).all(|(result, row)| {
                let answers = result.token.is_some() == row.sample.is_some()
                    && result.pooled.is_some() == row.pooling.is_some();
                result.sequence == row.sequence && (answers || result.failed.is_some())
            });
        if is_complete {
            Ok(sampled)
        } else {
            Err("the executor's results do not match the batch".to_owned())
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
        let (request, constraint) = self.ledger.open(submission);
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
        ] {
            counter.increment(now - then);
        }
        self.reported = stats;
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
