//! `begin_step`: what a batch is made of while it is being packed, and who gives way in it.

use std::collections::BTreeMap;

use crate::Scheduler;
use crate::flow::FlowTable;
use crate::priority::{Rank, Tier};
use crate::sequence::{Age, Running, Sequence};

/// A batch being packed.
#[derive(Debug)]
pub(crate) struct Packing {
    /// Tokens that it may have.
    n_budget: usize,
    /// Tokens that may still be added.
    pub(crate) n_left: usize,
    /// What all flows had been charged when it was begun.
    n_charged: u64,
    /// How many of its tokens each sequence computes. Their blocks are allocated.
    pub(crate) tokens: BTreeMap<Age, usize>,
    /// Blocks that running sequences do not hold yet and have before them soon.
    n_owed_regular: usize,
    n_owed_batch: usize,
    /// Whether sequences may be admitted in this step. When somebody has lost its blocks,
    /// nobody who could come to lose them again is.
    admits_regular: bool,
    admits_batch: bool,
    /// Whether anybody may lose its blocks in this step.
    pub(crate) may_preempt: bool,
}

impl Packing {
    pub(crate) fn new(n_budget: usize, n_charged: u64) -> Self {
        Self {
            n_budget,
            n_left: n_budget,
            n_charged,
            tokens: BTreeMap::new(),
            n_owed_regular: 0,
            n_owed_batch: 0,
            admits_regular: true,
            admits_batch: true,
            may_preempt: true,
        }
    }

    pub(crate) fn add_owed(&mut self, tier: Tier, n_blocks: usize) {
        match tier {
            Tier::Regular => self.n_owed_regular += n_blocks,
            Tier::Batch => self.n_owed_batch += n_blocks,
        }
    }

    fn sub_owed(&mut self, tier: Tier, n_blocks: usize) {
        match tier {
            Tier::Regular => self.n_owed_regular -= n_blocks,
            Tier::Batch => self.n_owed_batch -= n_blocks,
        }
    }

    /// Blocks that are spoken for when a sequence of this tier is to be admitted. What batch
    /// work would need does not bind regular work.
    pub(crate) fn n_owed(&self, tier: Tier) -> usize {
        match tier {
            Tier::Regular => self.n_owed_regular,
            Tier::Batch => self.n_owed_regular + self.n_owed_batch,
        }
    }

    pub(crate) fn admits(&self, tier: Tier) -> bool {
        match tier {
            Tier::Regular => self.admits_regular,
            Tier::Batch => self.admits_batch,
        }
    }

    /// Nobody else of this tier is admitted in this step, nor of one that gives way to it.
    pub(crate) fn close(&mut self, tier: Tier) {
        self.admits_batch = false;
        if tier == Tier::Regular {
            self.admits_regular = false;
        }
    }
}

impl Scheduler {
    /// What all flows have been charged.
    pub(crate) fn n_charged(&self) -> u64 {
        self.flows.iter().map(FlowTable::n_charged).sum()
    }

    /// Whoever was taken out of the batch has left nothing behind: tokens, charges and blocks
    /// spoken for are those of the rows that are in it, and of the sequences that run.
    pub(crate) fn assert_balanced(&self, packing: &Packing) {
        let n_planned: usize = packing.tokens.values().sum();
        assert_eq!(packing.n_budget, packing.n_left + n_planned, "tokens");
        let costs = packing.tokens.iter();
        let n_cost: u64 = costs.map(|(age, &n)| self.running[age].cost(n)).sum();
        assert_eq!(self.n_charged(), packing.n_charged + n_cost, "charges");
        let mut owed = [0, 0];
        for (&age, running) in &self.running {
            let tier = self.rank(age, &running.sequence).tier();
            owed[usize::from(tier == Tier::Batch)] += self.n_blocks_owed(running);
        }
        let expected = [packing.n_owed_regular, packing.n_owed_batch];
        assert_eq!(owed, expected, "blocks spoken for");
    }

    pub(crate) fn rank(&self, age: Age, sequence: &Sequence) -> Rank {
        Rank {
            is_behind_elder: !self.is_elder(age),
            priority: sequence.priority,
            age,
        }
    }

    pub(crate) fn rank_of_waiting(&self, age: Age) -> Rank {
        self.rank(age, &self.waiting[&age].sequence)
    }

    /// See [`Packing::n_owed`].
    pub(crate) fn n_blocks_owed(&self, running: &Running) -> usize {
        let n_dropped = running.table.n_dropped;
        self.n_blocks_soon(&running.sequence, running.n_computed, n_dropped)
            .saturating_sub(running.table.blocks.len())
    }

    /// Next tokens of a running sequence for which there are blocks.
    pub(crate) fn n_room(&self, running: &Running) -> usize {
        let n_blocks = running.table.end() + self.store.pool.n_free();
        n_blocks * self.store.block_size - running.n_begun()
    }

    /// Plans as many of the next `n_wanted` tokens of a running sequence as have room. When not
    /// even one has, those behind it in rank give up their blocks, the last first. Batch work
    /// does so for every token of regular work.
    pub(crate) fn plan_with_room(&mut self, age: Age, n_wanted: usize, packing: &mut Packing) {
        let rank = self.rank(age, &self.running[&age].sequence);
        loop {
            let n_tokens = n_wanted.min(self.n_room(&self.running[&age]));
            if n_tokens == n_wanted {
                return self.plan(age, n_tokens, packing);
            }
            let last = self.last_in_rank();
            let gives_way = |last: &Rank| {
                let yields = last.tier() == Tier::Batch && rank.tier() == Tier::Regular;
                *last > rank && (n_tokens == 0 || yields)
            };
            match last.filter(gives_way) {
                Some(last) => self.preempt(last.age, packing),
                _ if n_tokens > 0 => return self.plan(age, n_tokens, packing),
                _ => return, // It keeps what it has and waits for others to end.
            }
        }
    }

    fn last_in_rank(&self) -> Option<Rank> {
        let ranks = self
            .running
            .iter()
            .map(|(&age, r)| self.rank(age, &r.sequence));
        ranks.max()
    }

    /// Plans the next `n_tokens` tokens of a running sequence, for which there is room, and
    /// charges its flow for them, or for those that are more than were planned.
    pub(crate) fn plan(&mut self, age: Age, n_tokens: usize, packing: &mut Packing) {
        let owed_before = self.n_blocks_owed(&self.running[&age]);
        let running = self
            .running
            .get_mut(&age)
            .expect("only running sequences are planned");
        let n_positions = running.n_begun() + n_tokens;
        self.store.grow(&mut running.table, n_positions);
        let running = &self.running[&age];
        let (priority, flow) = (running.sequence.priority, running.sequence.flow);
        let tier = self.rank(age, &running.sequence).tier();
        packing.sub_owed(tier, owed_before - self.n_blocks_owed(running));
        let n_before = packing.tokens.insert(age, n_tokens).unwrap_or(0);
        packing.n_left -= n_tokens - n_before;
        let cost = running.cost(n_tokens) - running.cost(n_before);
        self.flows[priority as usize].charge(flow, cost);
    }

    /// Takes the blocks of a running sequence, and its tokens out of the batch.
    pub(crate) fn preempt(&mut self, age: Age, packing: &mut Packing) {
        assert!(packing.may_preempt, "everybody has room");
        let running = self
            .running
            .remove(&age)
            .expect("only running sequences are preempted");
        let (priority, flow) = (running.sequence.priority, running.sequence.flow);
        let tier = self.rank(age, &running.sequence).tier();
        packing.sub_owed(tier, self.n_blocks_owed(&running));
        if let Some(n_tokens) = packing.tokens.remove(&age) {
            packing.n_left += n_tokens;
            self.flows[priority as usize].refund(flow, running.cost(n_tokens));
        }
        packing.close(tier);
        let root = self.requests[&running.sequence.id.request].root();
        let (waiting, table) = running.preempt(root);
        self.store.free(table.into_given_up());
        self.enqueue(age, waiting);
        self.counters.n_preemptions += 1;
    }
}
