//! `begin_ahead`: a step that is begun while the one before is in flight, so that whoever computes
//! has it at hand when that one is done.
//!
//! Planned is what would be planned if every row in flight had drawn a token that ends nothing.
//! What is not so is put right when the step in flight ends: a row of a sequence that has ended is
//! void (see `flight.rs`). So that nothing else has to be, no step is begun ahead that would admit or
//! preempt somebody, that gives the seat of the elder, or that depends on a token that is not known.

use crate::plan::Packing;
use crate::priority::Tier;
use crate::sequence::{Age, Running};
use crate::{Batch, Priority, Scheduler};

impl Scheduler {
    /// As [`begin_step_within`](Self::begin_step_within), while one step is in flight. `None`: the
    /// next step is to be begun when that one has ended, or there is nothing to do.
    ///
    /// # Panics
    /// If not exactly one step is in flight.
    pub fn begin_ahead_within(&mut self, max_tokens: usize) -> Option<Batch> {
        assert_eq!(self.flights.len(), 1, "one step is in flight");
        let mut packing = self.open_packing(max_tokens.max(1));
        if !self.can_begin_ahead(&packing) {
            return None;
        }
        self.step += 1;
        self.counters.n_steps_ahead += 1;
        packing.forbid_changes();
        self.pack(&mut packing);
        Some(self.seal(packing))
    }

    fn can_begin_ahead(&mut self, packing: &Packing) -> bool {
        let mut running = self.running.iter();
        let has_work = self.running.values().any(Running::has_next);
        has_work
            && !running.any(|(&age, r)| r.has_next() && self.needs_results(age, r))
            && self.elder_goes_on()
            && self.have_room(packing)
            && !self.would_admit(packing)
    }

    /// Whether what comes next of a sequence depends on results of the step in flight beside the
    /// place of its token.
    fn needs_results(&self, age: Age, running: &Running) -> bool {
        let sequence = &running.sequence;
        let live = &self.requests[&sequence.id.request];
        let needs_token = running.n_pending > 0 && sequence.is_awaited;
        let needs_sum = running.n_in_flight > 0 && live.n_unpooled(age.index) > 0;
        needs_token || needs_sum
    }

    /// Whether the seat of the elder stays as it is.
    fn elder_goes_on(&self) -> bool {
        match self.elder.age {
            Some(elder) => self.running.get(&elder).is_some_and(Running::has_next),
            None => !self.is_elder_due(self.step + 1),
        }
    }

    /// Whether everybody can have all that is missing without taking blocks from others.
    fn have_room(&self, packing: &Packing) -> bool {
        let needed = self.running.values().filter(|r| r.has_next()).map(|r| {
            let n_positions = r.n_begun() + r.n_missing().min(packing.n_left);
            let n_blocks = self.store.n_blocks_for(n_positions);
            n_blocks.saturating_sub(r.table.end())
        });
        needed.sum::<usize>() <= self.store.pool.n_free()
    }

    /// Whether somebody who waits would be admitted, or can be as soon as the step in flight ends.
    fn would_admit(&mut self, packing: &Packing) -> bool {
        if self.n_held > 0 && self.running.values().any(|r| self.releases_held(r)) {
            return true;
        }
        // Whoever is first and does not fit holds up all others.
        let next = Priority::ALL.iter().find_map(|&p| self.next_waiting(p));
        let Some((_, age)) = next else {
            return false;
        };
        self.running.values().any(|r| !r.has_next()) || self.could_admit(age, packing)
    }

    /// Whether the step in flight computes the prompt that other choices wait for.
    fn releases_held(&self, running: &Running) -> bool {
        let sequence = &running.sequence;
        let live = &self.requests[&sequence.id.request];
        !live.held.is_empty() && running.n_begun() >= sequence.n_prompt
    }
}

impl Packing {
    /// Whoever runs goes on running, and nobody else does.
    fn forbid_changes(&mut self) {
        self.close(Tier::Regular);
        self.may_preempt = false;
    }
}
