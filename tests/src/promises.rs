//! What a scheduler promises about who is in a batch, checked from outside step by step: classes
//! and age decide who is admitted and who gives way, nobody idles, nobody waits for ever.

use std::collections::BTreeMap;

use scheduler::{
    Batch, Event, FlowId, Priority, Request, Scheduler, SchedulerConfig, SequenceId, SequenceState,
};

use crate::record::{Records, ensure};

/// Follows a simulation's batches. Requests arrive in the order of their ids, so that the order
/// of sequence ids is the order of age.
#[derive(Debug)]
pub(crate) struct Promises {
    config: SchedulerConfig,
    /// Most tokens of the step that is to begin.
    n_budget: usize,
    /// Steps begun.
    step: u64,
    unfinished: BTreeMap<SequenceId, Known>,
    /// Who must be in every batch, by the rule of the age bound.
    elder: Option<SequenceId>,
    elder_not_before: u64,
    /// Before this step no regular sequence is preempted: everybody had room to grow when the
    /// last one was admitted.
    calm_until: u64,
    n_preemptions: u64,
    /// Most tokens that come to a sequence in a step.
    n_growth: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    priority: Priority,
    flow: FlowId,
    arrival: u64,
    /// The step at which it must have ended.
    deadline: u64,
    drew: bool,
    before: SequenceState,
    after: SequenceState,
    has_run: bool,
}

impl Known {
    fn is_admitted(&self) -> bool {
        self.before == SequenceState::Waiting && self.after == SequenceState::Running
    }

    fn is_preempted(&self) -> bool {
        self.before == SequenceState::Running && self.after == SequenceState::Waiting
    }
}

impl Promises {
    /// `n_forced`: most tokens that follow a drawn one.
    pub(crate) fn new(config: SchedulerConfig, n_forced: usize) -> Self {
        Self {
            config,
            n_budget: config.max_batched_tokens,
            step: 0,
            unfinished: BTreeMap::new(),
            elder: None,
            elder_not_before: 0,
            calm_until: 0,
            n_preemptions: 0,
            n_growth: n_forced as u64 + 1,
        }
    }

    /// Everybody ends within a number of steps that depends on those before it only: the seat
    /// of the elder goes to the oldest, and is free again after the age bound or the length of
    /// a sequence, whichever is more.
    pub(crate) fn note_arrival(&mut self, request: &Request) {
        for index in 0..request.n {
            let id = SequenceId {
                request: request.id,
                index,
            };
            let n_turns = self.unfinished.len() as u64 + 1;
            let bound = self.config.age_bound_steps as u64;
            let longest = self.config.max_model_len as u64;
            let known = Known {
                priority: request.priority,
                flow: request.flow,
                arrival: self.step,
                deadline: self.step + bound + n_turns * (bound + longest + 1),
                drew: false,
                before: SequenceState::Held,
                after: SequenceState::Held,
                has_run: false,
            };
            self.unfinished.insert(id, known);
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Token { sequence, .. } => {
                if let Some(known) = self.unfinished.get_mut(sequence) {
                    known.drew = true;
                }
            }
            Event::Finished { sequence, .. } => {
                let known = self.unfinished.remove(sequence).ok_or("ended twice")?;
                ensure!(
                    self.step <= known.deadline,
                    "{sequence} ended in step {}, its bound was {}",
                    self.step,
                    known.deadline
                );
                self.elder = self.elder.filter(|elder| elder != sequence);
            }
            Event::PromptScored { .. } | Event::Pooled { .. } => (),
        }
        Ok(())
    }

    /// As a step of at most `n_budget` tokens is to begin.
    pub(crate) fn note_before(&mut self, scheduler: &Scheduler, n_budget: usize) {
        self.n_budget = n_budget;
        for (id, known) in &mut self.unfinished {
            known.before = scheduler.state(*id).unwrap_or(SequenceState::Held);
        }
    }

    pub(crate) fn check_batch(
        &mut self,
        batch: &Batch,
        scheduler: &Scheduler,
        records: &Records,
    ) -> Result<(), String> {
        self.step += 1;
        for (id, known) in &mut self.unfinished {
            let state = scheduler.state(*id);
            known.after = state.ok_or_else(|| format!("{id} is gone without an event"))?;
        }
        self.check_elder(batch)?;
        self.check_admitted()?;
        self.check_preempted()?;
        self.note_calm();
        let n_preemptions = scheduler.stats().n_preemptions;
        let preempts = n_preemptions > self.n_preemptions;
        self.n_preemptions = n_preemptions;
        self.check_work(batch, scheduler, records, preempts)?;
        for row in &batch.rows {
            if let Some(known) = self.unfinished.get_mut(&row.sequence) {
                known.has_run = true;
            }
        }
        for known in self.unfinished.values_mut() {
            known.drew = false;
        }
        Ok(())
    }

    /// A step that is begun while another is in flight: nobody comes, nobody goes, and whoever is
    /// drawing there goes on at once.
    pub(crate) fn check_ahead(
        &mut self,
        drawing: &[SequenceId],
        batch: &Batch,
        scheduler: &Scheduler,
        records: &Records,
    ) -> Result<(), String> {
        self.step += 1;
        for (id, known) in &self.unfinished {
            let state = scheduler.state(*id);
            ensure!(
                state.is_none_or(|state| state == known.before),
                "{id} was {:?} and is {state:?} in a step begun ahead",
                known.before
            );
        }
        let is_in = |id: SequenceId| batch.rows.iter().any(|row| row.sequence == id);
        ensure!(
            self.elder.is_none_or(is_in),
            "the elder is not in a step begun ahead"
        );
        for &id in drawing {
            let Some(known) = self.unfinished.get(&id) else {
                continue;
            };
            let n_drawn = records.n_tokens(id) + 1;
            let ends =
                records.is_cancelled(id) || n_drawn >= records.n_most_tokens(id, &self.config);
            let goes_on = known.priority != Priority::Batch && !ends;
            ensure!(
                !goes_on || is_in(id),
                "{id} has to wait for its next token in a step begun ahead"
            );
        }
        Ok(())
    }

    /// The rule of the age bound, kept apart from the scheduler's own.
    fn check_elder(&mut self, batch: &Batch) -> Result<(), String> {
        if self.elder.is_none() && self.step >= self.elder_not_before {
            let eligible = |known: &Known| known.before != SequenceState::Held;
            let mut all = self.unfinished.iter();
            let bound = self.config.age_bound_steps as u64;
            if let Some((id, known)) = all.find(|(_, known)| eligible(known))
                && self.step - known.arrival >= bound
            {
                self.elder = Some(*id);
                self.elder_not_before = self.step + bound;
                // It takes what it needs, whatever others had been granted.
                self.calm_until = 0;
            }
        }
        if let Some(elder) = self.elder {
            let is_in = batch.rows.iter().any(|row| row.sequence == elder);
            ensure!(is_in, "{elder} is the elder and not in the batch");
        }
        Ok(())
    }

    fn check_admitted(&self) -> Result<(), String> {
        let admitted = self.unfinished.iter().filter(|(_, k)| k.is_admitted());
        for (id, known) in admitted.filter(|(id, _)| Some(**id) != self.elder) {
            for (other, passed) in &self.unfinished {
                if passed.after != SequenceState::Waiting {
                    continue;
                }
                ensure!(
                    passed.priority >= known.priority,
                    "{id} ({:?}) is admitted before {other} ({:?})",
                    known.priority,
                    passed.priority
                );
                let same_line = passed.priority == known.priority
                    && (passed.flow == known.flow || !self.config.fairness);
                ensure!(
                    !(same_line && other < id),
                    "{id} is admitted before {other}, which is older"
                );
            }
        }
        Ok(())
    }

    /// Those who keep their blocks all go before those who lose them.
    fn check_preempted(&self) -> Result<(), String> {
        let victims = self.unfinished.iter().filter(|(_, k)| k.is_preempted());
        for (id, victim) in victims {
            ensure!(Some(*id) != self.elder, "{id}, the elder, is preempted");
            for (other, kept) in &self.unfinished {
                let keeps = kept.after == SequenceState::Running && Some(*other) != self.elder;
                ensure!(
                    !keeps || (kept.priority, other) < (victim.priority, id),
                    "{id} ({:?}) is preempted and {other} ({:?}) is not",
                    victim.priority,
                    kept.priority
                );
            }
            let regular = victim.priority != Priority::Batch;
            ensure!(
                !regular || self.step >= self.calm_until,
                "{id} is preempted in step {}, before step {}",
                self.step,
                self.calm_until
            );
        }
        Ok(())
    }

    /// Whoever is admitted leaves everybody room to grow by a block, and by two where it comes
    /// back after preemption.
    fn note_calm(&mut self) {
        let mut n_blocks = None;
        for (id, known) in &self.unfinished {
            if known.is_admitted() && Some(*id) != self.elder {
                let n = if known.has_run { 2 } else { 1 };
                n_blocks = Some(n_blocks.map_or(n, |least: u64| least.min(n)));
            }
        }
        if let Some(n_blocks) = n_blocks {
            let n_tokens = n_blocks * self.config.block_size as u64;
            self.calm_until = self.step + n_tokens / self.n_growth;
        }
    }

    /// Nobody idles: what runs is only left out for want of blocks or tokens, and what waits for
    /// want of blocks, rows or tokens.
    fn check_work(
        &self,
        batch: &Batch,
        scheduler: &Scheduler,
        records: &Records,
        preempts: bool,
    ) -> Result<(), String> {
        let stats = scheduler.stats();
        let has_room = stats.n_blocks_free + stats.n_blocks_cached > 0;
        let ends: BTreeMap<SequenceId, usize> = batch
            .rows
            .iter()
            .map(|row| (row.sequence, row.start as usize + row.tokens.len()))
            .collect();
        let has_tokens = batch.n_tokens() < self.n_budget;
        for (id, known) in &self.unfinished {
            if known.after != SequenceState::Running || !has_room {
                continue;
            }
            let single = known.drew && known.priority != Priority::Batch;
            ensure!(
                !single || known.before != SequenceState::Running || ends.contains_key(id),
                "{id} has to wait for its next token"
            );
            // In a step that preempts, room can come too late for the rest of a chunk.
            let end = ends.get(id);
            let complete = end == Some(&records.n_tokens(*id)) || (preempts && end.is_some());
            ensure!(
                complete || !has_tokens,
                "{id} is left out of a batch with tokens to spare"
            );
        }
        let n_rows = self
            .config
            .max_sequences
            .min(self.config.max_batched_tokens);
        if !preempts && has_tokens && stats.n_running < n_rows && self.fits_all(records) {
            let waits = |k: &&Known| k.after == SequenceState::Waiting;
            let n_waiting = self.unfinished.values().filter(waits).count();
            ensure!(n_waiting == 0, "{n_waiting} wait though all would fit");
        }
        Ok(())
    }

    /// Whether the cache holds all unfinished sequences at once, with the greatest margin.
    fn fits_all(&self, records: &Records) -> bool {
        let block_size = self.config.block_size;
        let needs = self.unfinished.keys().map(|id| {
            let n_soon = records.n_tokens(*id) + block_size;
            n_soon.div_ceil(block_size) + 1
        });
        needs.sum::<usize>() <= self.config.n_blocks
    }
}
