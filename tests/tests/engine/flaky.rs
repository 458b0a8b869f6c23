//! The fake executor with bad days: errors, panics, and rows that fail alone.

use scheduler::{Batch, Executor, ExecutorError, Sampled, Ticket};
use tests::fake::{FakeConfig, FakeExecutor};
use tests::rng::Rng;

/// Of 1000 steps, how many go wrong and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) errors: usize,
    pub(crate) panics: usize,
    pub(crate) rows: usize,
    /// Tokens that can be drawn only behind nothing.
    pub(crate) postponed: usize,
    /// Results that do not match the batch.
    pub(crate) lies: usize,
}

impl Faults {
    pub(crate) fn are_none(self) -> bool {
        self.errors + self.panics + self.rows + self.lies == 0
    }
}

pub(crate) struct Flaky {
    fake: FakeExecutor,
    faults: Faults,
    rng: Rng,
}

impl Flaky {
    pub(crate) fn new(config: FakeConfig, faults: Faults, mut rng: Rng) -> Self {
        let fake = FakeExecutor::new(config);
        let overlaps = rng.chance(700);
        Self {
            fake: if overlaps {
                fake.with_two_in_flight()
            } else {
                fake
            },
            faults,
            rng,
        }
    }
}

impl Flaky {
    fn panic_at_times(&mut self) {
        if self.rng.chance(self.faults.panics) {
            // As a panic, but without the noise of the hook.
            std::panic::resume_unwind(Box::new("a planted panic"));
        }
    }

    /// Decides what becomes of the batch that is computed next.
    fn plant(&mut self, batch: &Batch) {
        if self.rng.chance(self.faults.errors) {
            self.fake.fail_next();
        }
        let row = self.rng.pick(&batch.rows).sequence;
        if self.rng.chance(self.faults.rows) {
            self.fake.fail_row_next(row);
        } else if self.rng.chance(self.faults.postponed) {
            self.fake.postpone_row_next(row);
        }
    }

    fn lie_at_times(&mut self, sampled: &mut Vec<Sampled>) {
        if self.rng.chance(self.faults.lies) {
            sampled.pop();
        }
    }
}

impl Executor for Flaky {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        self.panic_at_times();
        self.plant(batch);
        let mut sampled = self.fake.execute(batch)?;
        self.lie_at_times(&mut sampled);
        Ok(sampled)
    }

    fn n_in_flight(&self) -> usize {
        self.fake.n_in_flight()
    }

    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        if self.fake.n_in_flight() == 1 {
            return self.execute(batch).map(Ticket::done);
        }
        self.panic_at_times();
        self.fake.start(batch)
    }

    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        if self.fake.n_in_flight() == 1 {
            return self.fake.finish(ticket, batch);
        }
        self.plant(batch);
        let mut sampled = self.fake.finish(ticket, batch)?;
        self.panic_at_times();
        self.lie_at_times(&mut sampled);
        Ok(sampled)
    }
}
