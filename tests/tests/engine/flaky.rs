//! The fake executor with bad days: errors, panics, and rows that fail alone.

use scheduler::{Batch, Executor, ExecutorError, Sampled};
use tests::fake::{FakeConfig, FakeExecutor};
use tests::rng::Rng;

/// Of 1000 steps, how many go wrong and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) errors: usize,
    pub(crate) panics: usize,
    pub(crate) rows: usize,
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
    pub(crate) fn new(config: FakeConfig, faults: Faults, rng: Rng) -> Self {
        Self {
            fake: FakeExecutor::new(config),
            faults,
            rng,
        }
    }
}

impl Executor for Flaky {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        if self.rng.chance(self.faults.panics) {
            // As a panic, but without the noise of the hook.
            std::panic::resume_unwind(Box::new("a planted panic"));
        }
        if self.rng.chance(self.faults.errors) {
            self.fake.fail_next();
        }
        if self.rng.chance(self.faults.rows) {
            let row = self.rng.pick(&batch.rows);
            self.fake.fail_row_next(row.sequence);
        }
        let mut sampled = self.fake.execute(batch)?;
        if self.rng.chance(self.faults.lies) {
            sampled.pop();
        }
        Ok(sampled)
    }
}
