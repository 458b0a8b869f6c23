//! Who must be in a batch, whatever the blocks and the budget.

use std::collections::{BTreeMap, BTreeSet};

use scheduler::{Batch, Event, SchedulerConfig, SequenceId};

use crate::record::ensure;

/// Follows a simulation's batches. Requests arrive in the order of their ids, so that the order
/// of sequence ids is the order of service.
#[derive(Debug)]
pub(crate) struct Fairness {
    config: SchedulerConfig,
    /// Unfinished sequences that have been in a batch, and the position that they have reached.
    begun: BTreeMap<SequenceId, u32>,
    /// Those of them that run for certain.
    running: BTreeSet<SequenceId>,
    /// Those that drew a token in the last step and go on: each misses one token now.
    drew: BTreeSet<SequenceId>,
    n_preemptions: u64,
}

impl Fairness {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            config,
            begun: BTreeMap::new(),
            running: BTreeSet::new(),
            drew: BTreeSet::new(),
            n_preemptions: 0,
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Token { sequence, .. } => {
                self.drew.insert(*sequence);
            }
            Event::Finished { sequence, .. } => {
                self.drew.remove(sequence);
                self.begun.remove(sequence);
                self.running.remove(sequence);
            }
            Event::PromptScored { .. } => (),
        }
    }

    pub(crate) fn check_batch(&mut self, batch: &Batch, n_preemptions: u64) -> Result<(), String> {
        let preempts = n_preemptions > self.n_preemptions;
        self.n_preemptions = n_preemptions;
        let rows: BTreeSet<SequenceId> = batch.rows.iter().map(|row| row.sequence).collect();

        // Only an older one can take the blocks of a sequence, so the oldest moves on.
        if let Some(oldest) = self.running.first() {
            ensure!(
                rows.contains(oldest),
                "{oldest}, the oldest, is not in the batch"
            );
        }
        if preempts {
            self.running.clear(); // The batch does not tell who had to give way.
            for row in &batch.rows {
                let goes_on = self.begun.get(&row.sequence) == Some(&row.start);
                ensure!(
                    goes_on,
                    "{} is admitted in a step that preempts",
                    row.sequence
                );
            }
        } else if self.config.max_batched_tokens > self.config.max_sequences {
            // There is a token for everybody: prompts take what the others leave.
            let left_out = self.drew.iter().find(|id| !rows.contains(id));
            ensure!(
                left_out.is_none(),
                "{left_out:?} has to wait for its next token"
            );
        }
        self.drew.clear();
        let ends = batch
            .rows
            .iter()
            .map(|row| (row.sequence, row.start + row.tokens.len() as u32));
        self.begun.extend(ends);
        self.running.extend(rows);
        Ok(())
    }
}
