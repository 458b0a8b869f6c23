//! One model on several devices, each of which runs every batch with its part of the weights and
//! of the cache, from a thread of its own. They meet wherever parts are summed; the first one
//! draws.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use scheduler::{Batch, ExecutorError, Sampled};

use super::{LookedUp, ModelRunner, RunnerOptions};
use crate::{LoadError, Model};

impl ModelRunner {
    /// Runs the parts of one model, in the order of the parts. Each reserves its memory.
    ///
    /// # Errors
    /// As for [`Self::new`].
    ///
    /// # Panics
    /// There are no parts.
    pub fn of_parts(parts: Vec<Model>, options: RunnerOptions) -> Result<Self, LoadError> {
        let runners = parts.into_iter().map(|part| Self::new(part, options));
        let mut runners = runners.collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut first = runners.next().expect("a model has parts");
        first.others = runners.collect();
        first.model.join(first.others.iter().map(Self::model));
        Ok(first)
    }

    /// The batch has failed if it has on any device. Which it has first is what is told.
    pub(super) fn execute_together(
        &mut self,
        batch: &Batch,
        stacks: &[LookedUp],
    ) -> Result<Vec<Sampled>, ExecutorError> {
        let mut others = std::mem::take(&mut self.others);
        let done = thread::scope(|scope| {
            let follow = |runner: &mut ModelRunner| runner.part(|own| own.follow(batch, stacks));
            let threads = others
                .iter_mut()
                .map(|runner| scope.spawn(move || follow(runner)));
            let threads: Vec<_> = threads.collect();
            let own = self.part(|own| own.execute_own(batch, stacks));
            let followed = threads.into_iter().map(|thread| thread.join().flatten());
            let followed: thread::Result<Vec<_>> = followed.collect();
            (own, followed)
        });
        self.others = others;
        let (own, followed) = match done {
            (Ok(own), Ok(followed)) => (own, followed),
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        };
        let followed: Result<Vec<()>, ExecutorError> = followed.into_iter().collect();
        followed.and(own)
    }

    /// Computes what others need of this part.
    fn follow(&mut self, batch: &Batch, stacks: &[LookedUp]) -> Result<(), ExecutorError> {
        self.run(batch, stacks)?;
        self.wait()
    }

    /// Does what this device does for a batch. If that panics, no device is to wait for it.
    fn part<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> thread::Result<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        if done.is_err() {
            let device = self.model.device();
            device.leave_group("the program panicked while it started a step on one of them");
        }
        done
    }
}
