//! `begin_step`: the rows of running sequences, and who gives way when blocks run out.

use crate::row::RowParts;
use crate::scheduler::FlightRow;
use crate::sequence::Age;
use crate::{Batch, BatchRow, Scheduler};

/// A batch being packed.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    /// Tokens that may still be added.
    n_left: usize,
    /// Running sequences not packed yet that miss one token only, each of which has one token
    /// of `n_left` set aside.
    n_single: usize,
    rows: Vec<(BatchRow, FlightRow)>,
    /// Set when a sequence has lost its blocks: nobody is admitted in such a step, so that it
    /// does not come back to lose them again.
    preempted: bool,
}

impl Packing {
    /// How many of its `n_missing` tokens a sequence may compute in this step.
    ///
    /// Never 0 for the oldest: every other that misses one token had a row in the step before,
    /// next to the oldest's own, so together they fit the budget.
    fn grant(&mut self, n_missing: usize) -> usize {
        if n_missing == 1 {
            self.n_single = self.n_single.saturating_sub(1);
            return self.n_left.min(1);
        }
        n_missing.min(self.n_spare())
    }

    /// Tokens that are not set aside.
    pub(crate) fn n_spare(&self) -> usize {
        self.n_left.saturating_sub(self.n_single)
    }

    pub(crate) fn push(&mut self, row: BatchRow, flight: FlightRow) {
        self.n_left -= row.tokens.len();
        self.rows.push((row, flight));
    }
}

impl Scheduler {
    /// What to execute next; `None` when there is nothing to do. Whenever there is work, the
    /// oldest running sequence is in the batch.
    ///
    /// Rows that compute one token come first, then chunks of prompts, both oldest first.
    ///
    /// # Panics
    /// If the step before has not been ended.
    pub fn begin_step(&mut self) -> Option<Batch> {
        assert!(self.flight.is_none(), "a step is in flight");
        if self.is_idle() {
            return None;
        }
        let mut packing = Packing {
            n_left: self.config.max_batched_tokens,
            n_single: self.running.values().filter(|r| r.n_missing() == 1).count(),
            ..Packing::default()
        };
        self.pack_running(&mut packing);
        if !packing.preempted {
            self.admit_waiting(&mut packing);
        }
        assert!(!packing.rows.is_empty(), "there is work but no row");
        packing.rows.sort_by_key(|(row, _)| row.tokens.len() > 1);
        let (rows, flight) = packing.rows.into_iter().unzip();
        self.flight = Some(flight);
        Some(Batch { rows })
    }

    fn pack_running(&mut self, packing: &mut Packing) {
        let ages: Vec<Age> = self.running.keys().copied().collect();
        for age in ages {
            let Some(running) = self.running.get(&age) else {
                break; // It was preempted in this step, and so were all the younger ones.
            };
            let n_wanted = packing.grant(running.n_missing());
            let n_tokens = self.find_room(age, n_wanted, packing);
            if n_tokens > 0 {
                self.pack_row(age, n_tokens, packing);
            }
        }
    }

    /// How many of the next `n_wanted` tokens of a running sequence have room. When not even
    /// one has, the youngest running sequence gives up its blocks, until there is room or the
    /// youngest was the sequence itself.
    fn find_room(&mut self, age: Age, n_wanted: usize, packing: &mut Packing) -> usize {
        if n_wanted == 0 {
            return 0;
        }
        while let Some(running) = self.running.get(&age) {
            let n_blocks = running.table.blocks.len() + self.store.pool.n_free();
            let n_room = n_blocks * self.store.block_size - running.n_computed;
            if n_room > 0 {
                return n_wanted.min(n_room);
            }
            self.preempt_youngest(age, packing);
        }
        0
    }

    fn preempt_youngest(&mut self, on_behalf_of: Age, packing: &mut Packing) {
        let Some((youngest, running)) = self.running.pop_last() else {
            return;
        };
        if youngest != on_behalf_of && running.n_missing() == 1 {
            packing.n_single = packing.n_single.saturating_sub(1);
        }
        let (waiting, table) = running.preempt();
        self.store.release(table);
        self.waiting.insert(youngest, waiting);
        self.counters.n_preemptions += 1;
        packing.preempted = true;
    }

    /// Adds the row of the next `n_tokens` tokens of a running sequence, for which there is room.
    pub(crate) fn pack_row(&mut self, age: Age, n_tokens: usize, packing: &mut Packing) {
        let running = self
            .running
            .get_mut(&age)
            .expect("only running sequences are packed");
        let live = &self.requests[&running.sequence.id.request];
        let end = running.n_computed + n_tokens;
        self.store.grow(&mut running.table, end);
        running.n_in_flight = n_tokens;
        let parts = RowParts {
            live,
            running,
            no_tokens: &self.no_tokens,
        };
        let row = parts.row();
        let flight = FlightRow {
            age,
            samples: row.sample.is_some(),
            n_scored: row.scoring.as_ref().map_or(0, |s| s.targets.len()),
        };
        packing.push(row, flight);
    }
}
