//! Steps that were started and have not ended: one, or two where the executor computes beside its
//! caller, so that whatever is done between steps (results, events, commands, the next batch and its
//! masks) is done while a step runs.
//!
//! Steps end in the order in which they were started, and what is not known yet of one is in no
//! other's plan. So answers are those of one step at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use scheduler::{Batch, ExecutorError, Sampled, Ticket};
use tokio::time::Instant;

use super::StepLoop;
use super::pace::Load;
use super::step::panic_text;

/// A step on its way.
pub(super) struct Flight {
    batch: Batch,
    /// An error where it could not be started: it fails when its turn to end comes.
    ticket: Result<Ticket, Failure>,
    started: Instant,
}

/// Why a step gave nothing.
enum Failure {
    Error(ExecutorError),
    Panic(String),
}

impl StepLoop {
    /// Whether two steps may be in flight at all. Engines that take turns each have the machine for
    /// one.
    fn overlaps(&self) -> bool {
        self.overlaps_steps && self.turns.is_none() && self.executor.n_in_flight() > 1
    }

    /// Whether the next step may be started while one is in flight.
    pub(super) fn can_overlap(&self) -> bool {
        let follows = |flight: &Flight| {
            let ticket = flight.ticket.as_ref();
            ticket.is_ok_and(Ticket::can_be_followed)
        };
        self.overlaps() && self.flights.len() == 1 && self.flights.iter().all(follows)
    }

    /// Starts a batch.
    pub(super) fn start(&mut self, mut batch: Batch) {
        self.constraints.fill(&mut batch);
        self.ledger.note_started(&batch);
        let started = Instant::now();
        let overlaps = self.overlaps();
        let executor = &mut self.executor;
        let ticket = catch_unwind(AssertUnwindSafe(|| match overlaps {
            true => executor.start(&batch),
            false => executor.execute(&batch).map(Ticket::done),
        }));
        self.flights.push_back(Flight {
            ticket: self.caught(ticket),
            batch,
            started,
        });
    }

    /// Waits for the oldest step in flight.
    pub(super) fn finish(&mut self) -> Result<Vec<Sampled>, String> {
        let flight = self.flights.pop_front().ok_or("no step is in flight")?;
        let Flight {
            batch,
            ticket,
            started,
        } = flight;
        let result = ticket.and_then(|ticket| {
            let executor = &mut self.executor;
            let result = catch_unwind(AssertUnwindSafe(|| executor.finish(ticket, &batch)));
            self.caught(result)
        });
        self.note_end(&batch, started);
        let sampled = result.map_err(|failure| match failure {
            Failure::Error(error) => {
                // Before anybody hears of the step: whoever asks then must be told.
                if let Some(reason) = self.executor.lost() {
                    self.flag.give_up(reason);
                }
                error.to_string()
            }
            Failure::Panic(text) => text,
        })?;
        if answers(&batch, &sampled) {
            Ok(sampled)
        } else {
            Err("the executor's results do not match the batch".to_owned())
        }
    }

    /// A panic is an error like any other.
    fn caught<T>(
        &self,
        result: std::thread::Result<Result<T, ExecutorError>>,
    ) -> Result<T, Failure> {
        match result {
            Ok(result) => result.map_err(Failure::Error),
            Err(panic) => {
                self.metrics.count_panic("step");
                let text = panic_text(panic.as_ref());
                Err(Failure::Panic(format!("panic: {text}")))
            }
        }
    }

    /// A step's time is what passed since it was started and the one before had ended.
    fn note_end(&mut self, batch: &Batch, started: Instant) {
        let now = Instant::now();
        let begin = self.last_end.map_or(started, |end| end.max(started));
        self.last_end = Some(now);
        let took = now.duration_since(begin);
        self.metrics.step.record(took);
        self.pace.note(Load::of(batch), took);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of tokens is far below 2^52"
        )]
        self.metrics.step_tokens.record(batch.n_tokens() as f64);
    }

    /// Waits for all steps in flight, whose results nobody wants any more: what they work on is to
    /// be given back.
    pub(super) fn abandon_flights(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            let Ok(ticket) = flight.ticket else {
                continue;
            };
            let (executor, batch) = (&mut self.executor, &flight.batch);
            let finished = catch_unwind(AssertUnwindSafe(|| executor.finish(ticket, batch)));
            if !matches!(finished, Ok(Ok(_))) {
                tracing::debug!("a step that nobody waits for has failed");
            }
        }
    }
}

/// Whether there is one result a row, with what the row asks for.
fn answers(batch: &Batch, sampled: &[Sampled]) -> bool {
    let rows = sampled.iter().zip(&batch.rows);
    let mut rows = rows.map(|(result, row)| {
        let answers = result.token.is_some() == row.sample.is_some()
            && result.pooled.is_some() == row.pooling.is_some();
        let has_none = result.failed.is_some() || result.postponed;
        result.sequence == row.sequence && (answers || has_none)
    });
    sampled.len() == batch.rows.len() && rows.all(|is_right| is_right)
}
