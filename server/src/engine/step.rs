//! The loop: commands, batch, forward, results, events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use scheduler::{Batch, Executor, Sampled, Scheduler, Stats};

use super::ledger::Ledger;
use super::{Command, EngineError, Submission};
use crate::metrics::Metrics;

/// Everything the engine thread owns.
pub(super) struct StepLoop {
    scheduler: Scheduler,
    executor: Box<dyn Executor + Send>,
    commands: Receiver<Command>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    /// What the counters have been told so far.
    reported: Stats,
}

impl StepLoop {
    pub(super) fn new(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        commands: Receiver<Command>,
        ledger: Ledger,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            scheduler,
            executor,
            commands,
            ledger,
            metrics,
            reported: Stats::default(),
        }
    }

    /// Runs until told to stop, or until nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        self.publish();
        let mut has_work = false;
        while self.take_commands(has_work) {
            has_work = self.step();
            self.publish();
        }
    }

    /// One step; false when there was nothing to do.
    fn step(&mut self) -> bool {
        let Some(batch) = self.scheduler.begin_step() else {
            return false;
        };
        self.ledger.note_started(&batch);
        let events = match self.execute(&batch) {
            Ok(sampled) => self.scheduler.end_step(sampled),
            Err(error) => {
                self.metrics.failed_steps.increment(1);
                tracing::error!(rows = batch.rows.len(), %error, "a step failed");
                self.scheduler.fail_step()
            }
        };
        self.ledger.deliver(events);
        true
    }

    /// Runs a batch; a panic is an error like any other.
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, String> {
        let started = Instant::now();
        let executor = &mut self.executor;
        let result = catch_unwind(AssertUnwindSafe(|| executor.execute(batch)));
        self.metrics.step.record(started.elapsed());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of tokens is far below 2^52"
        )]
        self.metrics.step_tokens.record(batch.n_tokens() as f64);
        let sampled = match result {
            Ok(Ok(sampled)) => sampled,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(panic) => return Err(format!("panic: {}", panic_text(panic.as_ref()))),
        };
        let is_complete = sampled.len() == batch.rows.len()
            && sampled.iter().zip(&batch.rows).all(|(result, row)| {
                result.sequence == row.sequence && result.token.is_some() == row.sample.is_some()
            });
        if is_complete {
            Ok(sampled)
        } else {
            Err("the executor's results do not match the batch".to_owned())
        }
    }

    /// Applies all commands that have come. Without work it waits for the first; false: stop.
    fn take_commands(&mut self, has_work: bool) -> bool {
        if !has_work {
            self.check();
            let Ok(command) = self.commands.recv() else {
                return false;
            };
            if !self.apply(command) {
                return false;
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            if !self.apply(command) {
                return false;
            }
        }
        true
    }

    fn apply(&mut self, command: Command) -> bool {
        match command {
            Command::Submit(submission) => self.submit(submission),
            Command::Cancel(request) => {
                // Nobody listens any more.
                drop(self.scheduler.cancel(request));
                self.ledger.forget(request);
            }
            Command::CancelSequence(sequence) => {
                let event = self.scheduler.cancel_sequence(sequence);
                self.ledger.deliver(event.into_iter().collect());
            }
            Command::CancelAll => {
                for request in self.ledger.ids() {
                    let events = self.scheduler.cancel(request);
                    self.ledger.deliver(events);
                }
            }
            Command::Stop => return false,
        }
        true
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            request,
            events,
            submitted,
        } = submission;
        self.ledger.open(&request, events.clone(), submitted);
        let id = request.id;
        if let Err(error) = self.scheduler.submit(request) {
            self.ledger.forget(id);
            if events
                .send(Err(EngineError::Refused(error.to_string())))
                .is_err()
            {
                tracing::debug!(request = %id, "a refused request is gone already");
            }
        }
    }

    /// Recomputes every invariant; called when idle, where it costs nobody anything.
    fn check(&self) {
        if let Err(error) = self.scheduler.check() {
            tracing::error!(%error, "the scheduler's books are wrong");
        }
        if !self.ledger.is_empty() {
            tracing::error!("idle with unfinished requests");
        }
    }

    /// Brings gauges and counters up to date.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn publish(&mut self) {
        let stats = self.scheduler.stats();
        let metrics = &self.metrics;
        metrics.running_sequences.set(stats.n_running as f64);
        metrics.waiting_sequences.set(stats.n_waiting as f64);
        metrics.queued_requests.set(self.ledger.n_queued() as f64);
        metrics.kv_blocks.set(stats.n_blocks as f64);
        metrics.kv_blocks_in_use.set(stats.n_blocks_in_use as f64);
        metrics.kv_blocks_cached.set(stats.n_blocks_cached as f64);
        let before = self.reported;
        metrics
            .preemptions
            .increment(stats.n_preemptions - before.n_preemptions);
        metrics
            .cached_prompt_tokens
            .increment(stats.n_prefix_hit_tokens - before.n_prefix_hit_tokens);
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
