//! `begin_step`: waiting sequences become running ones, first come, first served.

use crate::Scheduler;
use crate::pack::Packing;
use crate::sequence::{Age, Running, Sequence, Waiting};
use crate::store::Hit;

impl Scheduler {
    /// Admits waiting sequences, oldest first, while there are rows and tokens left and blocks
    /// for all that the sequence and those that run already have before them soon. The first
    /// that does not fit holds up those behind it.
    pub(crate) fn admit_waiting(&mut self, packing: &mut Packing) {
        let mut n_promised: usize = self
            .running
            .values()
            .map(|r| {
                self.n_blocks_soon(&r.sequence)
                    .saturating_sub(r.table.blocks.len())
            })
            .sum();
        while self.running.len() < self.config.max_sequences && packing.n_spare() > 0 {
            let Some((&age, waiting)) = self.waiting.first_key_value() else {
                break;
            };
            let hit = self.look_up(waiting);
            let n_new = self.n_blocks_soon(&waiting.sequence) - hit.blocks.len();
            if n_promised + n_new + hit.n_free > self.store.pool.n_free() {
                break;
            }
            self.admit(age, hit, packing);
            let n_allocated = self.running[&age].table.blocks.len();
            n_promised += self
                .n_blocks_soon(&self.running[&age].sequence)
                .saturating_sub(n_allocated);
        }
    }

    /// Blocks for all tokens of a sequence and one block of growth. Without the growth, a
    /// sequence could be admitted only to be preempted by the next token of an older one.
    fn n_blocks_soon(&self, sequence: &Sequence) -> usize {
        let n_soon = sequence.tokens.len() + self.store.block_size;
        self.store
            .n_blocks_for(n_soon.min(sequence.max_positions()))
    }

    fn look_up(&self, waiting: &Waiting) -> Hit {
        let sequence = &waiting.sequence;
        let live = &self.requests[&sequence.id.request];
        let root = live.root(self.config.prefix_cache);
        let max_positions = live.max_cached(sequence.id.index, sequence.tokens.len());
        self.store.look_up(root, &sequence.tokens, max_positions)
    }

    fn admit(&mut self, age: Age, hit: Hit, packing: &mut Packing) {
        let waiting = self
            .waiting
            .remove(&age)
            .expect("the oldest waiting is admitted");
        let id = waiting.sequence.id;
        let n_hit = hit.blocks.len() * self.store.block_size;
        self.counters.n_tokens_lost += waiting.n_lost.saturating_sub(n_hit) as u64;

        let prefix_cache = self.config.prefix_cache;
        let live = self
            .requests
            .get_mut(&id.request)
            .expect("a live sequence has a request");
        if live.n_cached.is_none() {
            live.n_cached = Some(n_hit);
            if prefix_cache {
                self.counters.n_prefix_query_tokens += live.request.prompt.len() as u64;
                self.counters.n_prefix_hit_tokens += n_hit as u64;
            }
        }
        let running = Running {
            table: self.store.open(hit, live.registers(prefix_cache)),
            n_computed: n_hit,
            n_in_flight: 0,
            cancelled: false,
            sequence: waiting.sequence,
        };
        let n_tokens = running.n_missing().min(packing.n_spare());
        self.running.insert(age, running);
        self.pack_row(age, n_tokens, packing);
    }
}
