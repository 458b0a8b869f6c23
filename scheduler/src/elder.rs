//! The age bound: one seat that goes by age alone.
//!
//! Classes and flows decide who is served next, and alone they could pass somebody over for
//! ever. So the oldest sequence of all, once it is `age_bound_steps` old, may take the seat of
//! the elder. It is admitted at once, whoever has to give way, it is never preempted, and it
//! advances in every step until it ends. The seat is given at most once in `age_bound_steps`,
//! so that an overload, where everybody is old, does not become first come, first served.
//!
//! What follows: let `L` be the most positions of a sequence. The seat is free again
//! `max(L + 1, age_bound_steps)` steps after it was taken, and goes to the oldest. A sequence
//! that has `k` unfinished older ones at its arrival has therefore ended after
//! `age_bound_steps + (k + 1) * (age_bound_steps + L + 1)` steps, whatever arrives later.

use crate::Scheduler;
use crate::sequence::Age;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ElderSeat {
    pub(crate) age: Option<Age>,
    /// The seat is not given before this step.
    not_before: u64,
}

impl Scheduler {
    /// Gives the seat of the elder if it is free and somebody is old enough.
    pub(crate) fn choose_elder(&mut self) {
        if self.elder.age.is_some() || self.step < self.elder.not_before {
            return;
        }
        let Some(oldest) = self.overdue(self.step) else {
            return;
        };
        self.elder = ElderSeat {
            age: Some(oldest),
            not_before: self.step + self.config.age_bound_steps as u64,
        };
        self.counters.n_overdue += 1;
    }

    /// Whether the free seat would be given in `step`.
    pub(crate) fn is_elder_due(&self, step: u64) -> bool {
        step >= self.elder.not_before && self.overdue(step).is_some()
    }

    /// The oldest sequence, if it is old enough in `step`.
    fn overdue(&self, step: u64) -> Option<Age> {
        let waiting = self.waiting.keys().next();
        let running = self.running.keys().next();
        let oldest = *waiting.into_iter().chain(running).min()?;
        let id = self.sequence_at(oldest).id;
        let age = step - self.requests[&id.request].arrival_step;
        (age >= self.config.age_bound_steps as u64).then_some(oldest)
    }

    pub(crate) fn is_elder(&self, age: Age) -> bool {
        self.elder.age == Some(age)
    }
}
