//! Batches that are being executed, and what becomes of their rows when sequences end meanwhile.
//!
//! A step may be begun while the one before is in flight (see `ahead.rs`). A sequence that then ends
//! has a row too much: nobody waits for its result, but it is computed all the same, so that whatever
//! blocks it reads and writes stay taken until its step ends.

use std::collections::BTreeMap;

use crate::sequence::Age;
use crate::store::GivenUp;
use crate::{BatchRow, Scheduler, SequenceId};

/// What is expected of one row of a batch in flight.
#[derive(Debug)]
pub(crate) struct FlightRow {
    pub(crate) age: Age,
    pub(crate) id: SequenceId,
    pub(crate) n_tokens: usize,
    pub(crate) samples: bool,
    pub(crate) pools: bool,
    pub(crate) n_scored: usize,
    /// Nobody waits for its result: the sequence has ended, or computes this again.
    pub(crate) is_void: bool,
    /// Blocks that its sequence gave up since the step was begun: free when it ends.
    pub(crate) kept: Vec<GivenUp>,
}

impl FlightRow {
    pub(crate) fn new(age: Age, row: &BatchRow) -> Self {
        Self {
            age,
            id: row.sequence,
            n_tokens: row.tokens.len(),
            samples: row.sample.is_some(),
            pools: row.pooling.is_some(),
            n_scored: row.scoring.as_ref().map_or(0, |s| s.targets.len()),
            is_void: false,
            kept: Vec::new(),
        }
    }
}

impl Scheduler {
    /// Steps that were begun and have not ended.
    pub fn n_in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Rows of the last batch in flight that draw, by their sequences.
    pub(crate) fn drawing(&self) -> BTreeMap<Age, u32> {
        let rows = (0..).zip(self.flights.back().into_iter().flatten());
        let drawing = rows.filter(|(_, row)| row.samples && !row.is_void);
        drawing.map(|(i, row)| (row.age, i)).collect()
    }

    /// The last row in flight of a sequence.
    pub(crate) fn flight_row(&mut self, age: Age) -> Option<&mut FlightRow> {
        let rows = self.flights.iter_mut().rev().flatten();
        rows.into_iter().find(|row| row.age == age)
    }

    /// Frees blocks, or keeps them until the step ends in which their sequence has a row.
    pub(crate) fn give_back(&mut self, age: Age, blocks: Vec<GivenUp>) {
        if blocks.is_empty() {
            return;
        }
        match self.flight_row(age) {
            Some(row) => row.kept.extend(blocks),
            None => self.store.free(blocks),
        }
    }

    /// Nobody waits for rows in flight of a sequence any more.
    pub(crate) fn make_void(&mut self, age: Age) {
        for row in self.flights.iter_mut().flatten() {
            if row.age == age && !row.is_void {
                row.is_void = true;
                self.counters.n_rows_void += 1;
            }
        }
    }
}
