//! `begin_step`: in which order sequences get their share of a batch.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::flight::FlightRow;
use crate::plan::Packing;
use crate::priority::{Rank, Tier};
use crate::row::RowParts;
use crate::sequence::Age;
use crate::{Batch, BatchRow, FlowId, Priority, Scheduler};

/// Running sequences of one class that do not stream, by flow.
#[derive(Debug, Default)]
struct Chunks {
    by_flow: BTreeMap<FlowId, VecDeque<Age>>,
    /// The flows, least served first, as of when they were pushed. Service only grows while
    /// they compete, so an entry that is out of date comes up too early and is pushed again.
    turns: BinaryHeap<Reverse<(u64, FlowId)>>,
}

impl Scheduler {
    /// What to execute next; `None` when there is nothing to do. Whenever there is work, there
    /// is a row.
    ///
    /// The tokens of a batch go, in this order, to the elder (see `elder.rs`); one to each running
    /// sequence that streams; then, class by class, to chunks of prompts, of running and of newly
    /// admitted sequences, first to the flow that was served least, and to what else streams of
    /// the class miss (forced tokens, for which half of what its prompts could have is kept).
    /// Batch work comes after all of these, in the same order.
    ///
    /// In the batch, rows that compute one token come first, then chunks, both oldest first.
    ///
    /// # Panics
    /// If the step before has not been ended.
    pub fn begin_step(&mut self) -> Option<Batch> {
        self.begin_step_within(usize::MAX)
    }

    /// A step of at most `max_tokens` tokens, if that is less than `max_batched_tokens`; 0 is
    /// taken for 1. What is computed does not depend on it, only when.
    ///
    /// # Panics
    /// As [`begin_step`](Self::begin_step).
    pub fn begin_step_within(&mut self, max_tokens: usize) -> Option<Batch> {
        assert!(self.flights.is_empty(), "a step is in flight");
        if self.is_idle() {
            return None;
        }
        self.step += 1;
        self.choose_elder();
        let mut packing = self.open_packing(max_tokens.max(1));
        self.pack(&mut packing);
        Some(self.seal(packing))
    }

    /// Gives everybody its share.
    pub(crate) fn pack(&mut self, packing: &mut Packing) {
        self.pack_elder(packing);
        let regular = [Priority::High, Priority::Normal, Priority::Low];
        for (tier, classes) in [
            (Tier::Regular, &regular[..]),
            (Tier::Batch, &[Priority::Batch]),
        ] {
            self.pack_streams(tier, packing);
            for &priority in classes {
                let n_kept = self.n_tails(priority, tier, packing);
                let n_kept = n_kept.min(packing.n_left / 2);
                packing.n_left -= n_kept;
                self.pack_chunks(priority, tier, packing);
                packing.n_left += n_kept;
                self.pack_tails(priority, tier, packing);
            }
        }
        self.note_all_served(packing);
    }

    pub(crate) fn open_packing(&self, max_tokens: usize) -> Packing {
        let mut packing = Packing::new(
            self.config.max_batched_tokens.min(max_tokens),
            self.n_charged(),
        );
        for (&age, running) in &self.running {
            let tier = self.rank(age, &running.sequence).tier();
            packing.add_owed(tier, self.n_blocks_owed(running));
        }
        packing
    }

    /// The elder's share: all but a token for each that streams.
    fn pack_elder(&mut self, packing: &mut Packing) {
        let Some(elder) = self.elder.age else {
            return;
        };
        // At least one token is left for it.
        let n_most = packing.n_left - self.n_streams().min(packing.n_left - 1);
        if let Some(running) = self.running.get(&elder) {
            let n_wanted = running.n_missing().min(n_most);
            self.plan_with_room(elder, n_wanted, packing);
        } else {
            let seated = self.admit(elder, n_most, packing);
            assert!(seated, "a sequence fits that everybody gives way to");
        }
    }

    /// Regular running sequences, but for the elder, that stream.
    fn n_streams(&self) -> usize {
        self.ranks(Tier::Regular)
            .filter(|rank| !rank.is_elder() && self.running[&rank.age].is_streaming())
            .count()
    }

    /// Running sequences of a tier for which there is anything to compute.
    fn ranks(&self, tier: Tier) -> impl Iterator<Item = Rank> {
        let running = self.running.iter().filter(|(_, r)| r.has_next());
        let ranks = running.map(|(&age, r)| self.rank(age, &r.sequence));
        ranks.filter(move |rank| rank.tier() == tier)
    }

    /// One token of each that streams, first in rank first.
    fn pack_streams(&mut self, tier: Tier, packing: &mut Packing) {
        let mut streams: Vec<Rank> = self
            .ranks(tier)
            .filter(|rank| self.running[&rank.age].is_streaming())
            .filter(|rank| !packing.tokens.contains_key(&rank.age))
            .collect();
        streams.sort_unstable();
        for rank in streams {
            // It may have been preempted by one before it.
            if packing.n_left > 0 && self.running.contains_key(&rank.age) {
                self.plan_with_room(rank.age, 1, packing);
            }
        }
    }

    /// What the streams of a class that are in the batch miss beside what is in it, first in rank
    /// first. The elder is of every class.
    fn tails(&self, priority: Priority, tier: Tier, packing: &Packing) -> Vec<(Rank, usize)> {
        let of_class = |rank: &Rank| rank.priority == priority || rank.is_elder();
        let ranks = self.ranks(tier).filter(of_class);
        let tails = ranks.filter_map(|rank| {
            let running = &self.running[&rank.age];
            let n_more = running.n_missing() - packing.tokens.get(&rank.age)?;
            (running.is_streaming() && n_more > 0).then_some((rank, n_more))
        });
        let mut tails: Vec<(Rank, usize)> = tails.collect();
        tails.sort_unstable();
        tails
    }

    fn n_tails(&self, priority: Priority, tier: Tier, packing: &Packing) -> usize {
        let tails = self.tails(priority, tier, packing);
        tails.into_iter().map(|(_, n_more)| n_more).sum()
    }

    /// More of the streams of a class whose last tokens came together.
    fn pack_tails(&mut self, priority: Priority, tier: Tier, packing: &mut Packing) {
        for (rank, n_more) in self.tails(priority, tier, packing) {
            let n_wanted = packing.tokens[&rank.age] + n_more.min(packing.n_left);
            self.plan_with_room(rank.age, n_wanted, packing);
        }
    }

    /// Chunks of running and of waiting sequences of a class: the flow that was served least
    /// has its turn, until the tokens are used up. The waiting one whose turn it is and that
    /// does not fit holds up those behind it, or small ones would pass by a large one for ever.
    fn pack_chunks(&mut self, priority: Priority, tier: Tier, packing: &mut Packing) {
        let mut chunks = self.chunks(priority, packing);
        while packing.n_left > 0 {
            let running = self.next_chunk(priority, &mut chunks, packing);
            let waiting = self.next_waiting(priority).filter(|_| packing.admits(tier));
            let admits = match (running, waiting) {
                (None, None) => break,
                (Some((served, _)), Some((service, _))) => service < served,
                (_, waiting) => waiting.is_some(),
            };
            if let (true, Some((service, age))) = (admits, waiting) {
                self.flows[priority as usize].note_turn(service);
                if !self.admit(age, packing.n_left, packing) {
                    packing.close(tier);
                }
            } else if let Some((service, age)) = running {
                self.flows[priority as usize].note_turn(service);
                chunks.remove_first(self.running[&age].sequence.flow);
                let n_wanted = self.running[&age].n_missing().min(packing.n_left);
                self.plan_with_room(age, n_wanted, packing);
            }
        }
    }

    fn chunks(&self, priority: Priority, packing: &Packing) -> Chunks {
        let mut chunks = Chunks::default();
        for (&age, running) in &self.running {
            let planned = packing.tokens.contains_key(&age);
            let is_chunk = running.has_next() && !running.is_streaming() && !planned;
            if running.sequence.priority == priority && is_chunk {
                let flow = running.sequence.flow;
                chunks.by_flow.entry(flow).or_default().push_back(age);
            }
        }
        let flows = chunks.by_flow.keys();
        chunks.turns = flows
            .map(|&flow| Reverse((self.service(priority, flow), flow)))
            .collect();
        chunks
    }

    /// The running sequence whose flow was served least, and that service.
    fn next_chunk(
        &self,
        priority: Priority,
        chunks: &mut Chunks,
        packing: &Packing,
    ) -> Option<(u64, Age)> {
        while let Some(mut turn) = chunks.turns.peek_mut() {
            let Reverse((pushed, flow)) = *turn;
            let ages = chunks.by_flow.entry(flow).or_default();
            // Some may have been preempted since.
            while ages
                .front()
                .is_some_and(|age| !self.running.contains_key(age))
            {
                ages.pop_front();
            }
            let Some(&age) = ages.front() else {
                std::collections::binary_heap::PeekMut::pop(turn);
                continue;
            };
            debug_assert!(!packing.tokens.contains_key(&age), "planned twice");
            let service = self.service(priority, flow);
            if service <= pushed {
                return Some((service, age));
            }
            *turn = Reverse((service, flow));
        }
        None
    }

    /// Classes in which nobody waits and everybody computes all that is missing.
    fn note_all_served(&mut self, packing: &Packing) {
        let mut is_served = [true; Priority::ALL.len()];
        for (age, running) in &self.running {
            if running.has_next() && packing.tokens.get(age) != Some(&running.n_missing()) {
                is_served[running.sequence.priority as usize] = false;
            }
        }
        for (flows, is_served) in self.flows.iter_mut().zip(is_served) {
            if is_served {
                flows.note_all_served();
            }
        }
    }

    /// Makes rows of the plan.
    pub(crate) fn seal(&mut self, packing: Packing) -> Batch {
        assert!(!packing.tokens.is_empty(), "there is work but no row");
        self.assert_balanced(&packing);
        let mut rows: Vec<(BatchRow, FlightRow)> = Vec::with_capacity(packing.tokens.len());
        let drawing = self.drawing();
        for (age, n_tokens) in packing.tokens {
            let running = self
                .running
                .get_mut(&age)
                .expect("only running sequences are planned");
            let parts = RowParts {
                live: &self.requests[&running.sequence.id.request],
                running,
                n_tokens,
                drawn_by: drawing.get(&age).copied(),
                no_tokens: &self.no_tokens,
            };
            let row = parts.row();
            running.n_in_flight += n_tokens;
            running.n_pending += usize::from(row.sample.is_some());
            let flight = FlightRow::new(age, &row);
            rows.push((row, flight));
        }
        rows.sort_by_key(|(row, _)| row.tokens.len() > 1);
        let (rows, flight) = rows.into_iter().unzip();
        self.flights.push_back(flight);
        Batch { rows }
    }
}

impl Chunks {
    /// The first of a flow has had its turn in this step.
    fn remove_first(&mut self, flow: FlowId) {
        if let Some(ages) = self.by_flow.get_mut(&flow) {
            ages.pop_front();
        }
    }
}
