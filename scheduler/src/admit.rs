//! `begin_step`: a waiting sequence becomes a running one when all that it needs has room.

use crate::Scheduler;
use crate::plan::Packing;
use crate::priority::{Rank, Tier};
use crate::sequence::{Age, Running};

impl Scheduler {
    /// Admits a waiting sequence with up to `n_tokens` of its tokens, if there is a row for it
    /// and blocks for all that it and those that run already have before them soon. Others give
    /// way where they must: batch work to regular work, and everybody to the elder.
    pub(crate) fn admit(&mut self, age: Age, n_tokens: usize, packing: &mut Packing) -> bool {
        self.look_up(age);
        if !self.could_fit(age, packing) {
            return false;
        }
        while !self.fits(age, packing) {
            let Some(victim) = self.last_to_yield_a_place(age) else {
                return false;
            };
            self.preempt(victim, packing);
        }
        self.start(age, packing);
        let running = &self.running[&age];
        let n_tokens = running.n_missing().min(n_tokens);
        self.plan(age, n_tokens.min(self.n_room(running)), packing);
        true
    }

    /// Continues the look-up of a waiting sequence in the prefix index.
    fn look_up(&mut self, age: Age) {
        let waiting = self
            .waiting
            .get_mut(&age)
            .expect("only who waits is admitted");
        let sequence = &waiting.sequence;
        let live = &self.requests[&sequence.id.request];
        let max_positions = live.max_cached(sequence.id.index, sequence.tokens.len());
        self.store
            .look_up(&mut waiting.seen, &sequence.tokens, max_positions);
    }

    /// Whether a waiting sequence would be admitted, perhaps in the place of others.
    pub(crate) fn could_admit(&mut self, age: Age, packing: &Packing) -> bool {
        self.look_up(age);
        self.could_fit(age, packing)
    }

    fn fits(&self, age: Age, packing: &Packing) -> bool {
        self.running.len() < self.config.max_rows()
            && self.n_blocks_needed(age, packing) <= self.store.pool.n_free()
    }

    /// Whether it would fit if all who give way to it did. Blocks that they share are counted
    /// more than once, so that the answer may be yes too often, but not no.
    fn could_fit(&self, age: Age, packing: &Packing) -> bool {
        let rank = self.rank_of_waiting(age);
        let mut n_rows = self.running.len();
        let mut n_blocks = self.store.pool.n_free();
        if rank.tier() == Tier::Regular {
            for (&other, running) in &self.running {
                if gives_place(self.rank(other, &running.sequence), rank) {
                    n_rows -= 1;
                    n_blocks += running.table.blocks.len();
                }
            }
        }
        n_rows < self.config.max_rows() && self.n_blocks_needed(age, packing) <= n_blocks
    }

    /// Free blocks that must be there to admit a waiting sequence.
    ///
    /// One that was preempted comes back only when it and everybody that runs can grow by one
    /// more block besides: otherwise the next tokens could turn it out again before it has
    /// caught up.
    fn n_blocks_needed(&self, age: Age, packing: &Packing) -> usize {
        let waiting = &self.waiting[&age];
        let seen = &waiting.seen;
        let (n_computed, n_dropped) = (self.store.n_positions(seen), self.store.n_dropped(seen));
        let n_soon = self.n_blocks_soon(&waiting.sequence, n_computed, n_dropped);
        let n_taken = n_soon - self.store.taken(seen).len() + self.store.n_free(seen);
        let rank = self.rank_of_waiting(age);
        if rank.is_elder() {
            return n_taken; // Everybody gives way to it.
        }
        let margin = match self.n_not_yielding(rank) {
            n_others if n_others > 0 && waiting.n_lost > 0 => n_others + 1,
            _ => 0,
        };
        n_taken + margin + packing.n_owed(rank.tier())
    }

    /// Running sequences that do not give their place to a waiting one.
    fn n_not_yielding(&self, rank: Rank) -> usize {
        let ranks = self
            .running
            .iter()
            .map(|(&age, r)| self.rank(age, &r.sequence));
        ranks.filter(|other| !gives_place(*other, rank)).count()
    }

    /// The last in rank of those that give their place to a waiting sequence.
    fn last_to_yield_a_place(&self, age: Age) -> Option<Age> {
        let rank = self.rank_of_waiting(age);
        let ranks = self
            .running
            .iter()
            .map(|(&age, r)| self.rank(age, &r.sequence));
        let last = ranks.filter(|other| gives_place(*other, rank)).max()?;
        Some(last.age)
    }

    /// Makes a waiting sequence, which fits, a running one.
    fn start(&mut self, age: Age, packing: &mut Packing) {
        let waiting = self.dequeue(age).expect("only who waits is admitted");
        let id = waiting.sequence.id;
        let n_hit = self.store.n_positions(&waiting.seen);
        self.counters.n_tokens_lost += waiting.n_lost.saturating_sub(n_hit) as u64;
        let live = self
            .requests
            .get_mut(&id.request)
            .expect("a live sequence has a request");
        if live.n_cached.is_none() {
            live.n_cached = Some(n_hit);
            if self.config.prefix_cache {
                self.counters.n_prefix_query_tokens += live.request.prompt.len() as u64;
                self.counters.n_prefix_hit_tokens += n_hit as u64;
            }
        }
        let running = Running {
            table: self.store.open(waiting.seen, live.registers()),
            n_computed: n_hit,
            n_in_flight: 0,
            n_pending: 0,
            cancelled: false,
            sequence: waiting.sequence,
        };
        let tier = self.rank(age, &running.sequence).tier();
        packing.add_owed(tier, self.n_blocks_owed(&running));
        self.running.insert(age, running);
    }
}

/// Whether a running sequence gives its place to a waiting one: everybody to the elder, and
/// batch work to regular work.
fn gives_place(running: Rank, waiting: Rank) -> bool {
    waiting.is_elder() || (running.tier() == Tier::Batch && waiting.tier() == Tier::Regular)
}
