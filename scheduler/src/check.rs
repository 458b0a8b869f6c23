//! Every invariant, recomputed from scratch.

use std::collections::BTreeMap;

use crate::live::LiveRequest;
use crate::prefix::{NodeId, Parent};
use crate::sequence::{Age, Running, Waiting};
use crate::{BlockId, Priority, Scheduler, TokenId};

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

impl Scheduler {
    /// Recomputes what must always hold, at any moment outside of a call, and names the first
    /// invariant that does not. Takes time in proportion to the cache: meant for tests, and for
    /// production when idle.
    pub fn check(&self) -> Result<(), String> {
        self.check_references()?;
        self.check_free_list()?;
        self.check_index()?;
        for (&age, running) in &self.running {
            self.check_running(age, running)
                .map_err(|broken| format!("{}: {broken}", running.sequence.id))?;
        }
        for live in self.requests.values() {
            self.check_request(live)
                .map_err(|broken| format!("{}: {broken}", live.request.id))?;
        }
        self.check_flights()?;
        self.check_queue()?;
        self.check_counts()
    }

    fn check_references(&self) -> Result<(), String> {
        let pool = &self.store.pool;
        let mut holders = vec![0; pool.n_blocks()];
        let mut writers = vec![0; pool.n_blocks()];
        for running in self.running.values() {
            for (i, block) in running.table.blocks.iter().enumerate() {
                holders[block.0 as usize] += 1;
                if running.table.n_dropped + i >= running.table.n_registered {
                    writers[block.0 as usize] += 1;
                }
            }
        }
        for kept in self.flights.iter().flatten().flat_map(|row| &row.kept) {
            holders[kept.block.0 as usize] += 1;
        }
        for (i, &n) in holders.iter().enumerate() {
            let block = BlockId(i as u32);
            let refs = pool.refs(block);
            ensure!(refs == n, "{block} counts {refs} references, {n} hold it");
            ensure!(
                pool.is_free(block) == (n == 0),
                "{block} has {n} holders but its being free is {}",
                pool.is_free(block)
            );
            let shared = writers[i] > 0 && n > 1;
            ensure!(!shared, "{block} is shared but not full and registered");
        }
        Ok(())
    }

    fn check_free_list(&self) -> Result<(), String> {
        let pool = &self.store.pool;
        let order: Vec<BlockId> = pool.iter_free().collect();
        ensure!(
            order.len() == pool.n_free(),
            "the free list counts {} blocks but links {}",
            pool.n_free(),
            order.len()
        );
        let cached = |block: &BlockId| self.store.index.node(*block).is_some();
        let n_cached = order.iter().filter(|block| cached(block)).count();
        ensure!(
            n_cached == self.store.n_cached,
            "{n_cached} free blocks are cached, {} are counted",
            self.store.n_cached
        );
        ensure!(
            order.is_sorted_by_key(cached),
            "a cached block is to be reused before an uncached one"
        );
        let mut places: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (place, block) in order.iter().enumerate() {
            let Some(node) = self.store.index.node(*block) else {
                continue;
            };
            places.insert(node.id, place);
            if self.store.window.is_some() {
                continue; // What is behind a window is given back before what continues it.
            }
            if let Parent::Node(parent) = node.parent {
                ensure!(
                    !places.contains_key(&parent),
                    "{block} is to be reused after the block that it continues"
                );
            }
        }
        Ok(())
    }

    fn check_index(&self) -> Result<(), String> {
        let index = &self.store.index;
        let nodes: BTreeMap<NodeId, BlockId> = (0..self.store.pool.n_blocks() as u32)
            .map(BlockId)
            .filter_map(|block| index.node(block).map(|node| (node.id, block)))
            .collect();
        ensure!(
            nodes.len() == index.count(),
            "{} blocks are registered, the index has {} entries",
            nodes.len(),
            index.count()
        );
        for &block in nodes.values() {
            let node = index.node(block).ok_or("a node went missing")?;
            ensure!(
                index.find(node.parent, &node.tokens) == Some((node.id, block)),
                "{block} is registered but cannot be found"
            );
            ensure!(
                node.tokens.len() == self.store.block_size,
                "{block} is registered but not full"
            );
            if self.store.window.is_some() {
                continue;
            }
            if let Parent::Node(parent) = node.parent {
                let Some(&parent) = nodes.get(&parent) else {
                    return Err(format!("{block} continues a block that is gone"));
                };
                let (own, above) = (self.store.pool.refs(block), self.store.pool.refs(parent));
                ensure!(
                    own <= above,
                    "{block} has more holders than what it continues"
                );
            }
        }
        Ok(())
    }

    fn check_running(&self, age: Age, running: &Running) -> Result<(), String> {
        let (sequence, table) = (&running.sequence, &running.table);
        let live = self
            .requests
            .get(&sequence.id.request)
            .ok_or("it runs but its request is gone")?;
        ensure!(live.age(sequence.id.index) == age, "its age is wrong");
        check_tokens(live, &sequence.tokens, sequence.n_prompt)?;
        ensure!(
            running.n_computed < sequence.tokens.len(),
            "it runs with nothing to compute"
        );
        ensure!(
            (1..=sequence.n_generated().max(1)).contains(&sequence.n_tail),
            "{} tokens came last of {} generated ones",
            sequence.n_tail,
            sequence.n_generated()
        );
        let n_positions = running.n_begun();
        ensure!(
            table.end() == self.store.n_blocks_for(n_positions),
            "its blocks end with the {}th for {n_positions} positions",
            table.end()
        );
        ensure!(
            table.n_dropped == self.store.n_behind(running.n_computed),
            "{} of its blocks were given back, not what is behind its window",
            table.n_dropped
        );
        self.check_in_flight(age, running)?;
        let n_full = running.n_computed / self.store.block_size;
        let n_expected = if table.registers { n_full } else { 0 };
        ensure!(
            table.n_registered == n_expected,
            "{} of its blocks are registered, not {n_expected}",
            table.n_registered
        );
        self.check_chain(live, running)
    }

    fn check_in_flight(&self, age: Age, running: &Running) -> Result<(), String> {
        let rows = self.flights.iter().flatten();
        let own = rows.filter(|row| row.age == age && !row.is_void);
        let (mut n_tokens, mut n_drawn) = (0, 0);
        for row in own {
            n_tokens += row.n_tokens;
            n_drawn += usize::from(row.samples);
        }
        ensure!(
            (n_tokens, n_drawn) == (running.n_in_flight, running.n_pending),
            "batches in flight compute {n_tokens} and draw {n_drawn} tokens, not {} and {}",
            running.n_in_flight,
            running.n_pending
        );
        ensure!(
            n_tokens > 0 || !running.cancelled,
            "it is cancelled but runs on"
        );
        Ok(())
    }

    /// The registered blocks of a table hold the sequence's own tokens.
    fn check_chain(&self, live: &LiveRequest, running: &Running) -> Result<(), String> {
        let table = &running.table;
        if self.store.window.is_some() {
            return self.check_held(running);
        }
        let mut tip = live.root();
        let chunks = running.sequence.tokens.chunks_exact(self.store.block_size);
        for (block, chunk) in table.blocks[..table.n_registered].iter().zip(chunks) {
            match self.store.index.find(tip, chunk) {
                Some((id, found)) if found == *block => tip = Parent::Node(id),
                _ => return Err(format!("{block} is not registered for its tokens")),
            }
        }
        ensure!(tip == table.tip, "its next block would continue another");
        Ok(())
    }

    /// As [`check_chain`](Self::check_chain), where the first blocks may be reused already.
    fn check_held(&self, running: &Running) -> Result<(), String> {
        let table = &running.table;
        let n_held = table.n_registered - table.n_dropped.min(table.n_registered);
        let chunks = running.sequence.tokens.chunks_exact(self.store.block_size);
        let mut parent = None;
        for (block, chunk) in table.blocks[..n_held]
            .iter()
            .zip(chunks.skip(table.n_dropped))
        {
            let node = self.store.index.node(*block);
            let node = node.ok_or_else(|| format!("{block} is not registered"))?;
            ensure!(
                *node.tokens == *chunk && parent.is_none_or(|parent| parent == node.parent),
                "{block} is not registered for its tokens"
            );
            parent = Some(Parent::Node(node.id));
        }
        ensure!(
            parent.is_none_or(|parent| parent == table.tip),
            "its next block would continue another"
        );
        Ok(())
    }

    fn check_request(&self, live: &LiveRequest) -> Result<(), String> {
        let range = live.age(0)..=live.age(u32::MAX);
        let running: Vec<&Age> = self
            .running
            .range(range.clone())
            .map(|(age, _)| age)
            .collect();
        let waiting: Vec<&Age> = self.waiting.range(range).map(|(age, _)| age).collect();
        let n_active = running.len() + waiting.len();
        ensure!(n_active > 0, "none of its sequences can ever run");
        ensure!(
            n_active + live.held.len() == live.n_unfinished as usize,
            "{} sequences are unfinished, {} exist",
            live.n_unfinished,
            n_active + live.held.len()
        );
        let only_leader = n_active == 1
            && running
                .iter()
                .chain(&waiting)
                .all(|a| a.index == live.leader);
        ensure!(
            live.prompt_computed || only_leader,
            "a choice goes ahead of the one that computes the prompt"
        );
        ensure!(
            !live.prompt_computed || live.held.is_empty(),
            "a choice is held though the prompt is computed"
        );
        ensure!(
            live.n_scored < live.request.prompt.len(),
            "more prompt scores than prompt tokens"
        );
        for age in waiting {
            let sequence = &self.waiting[age].sequence;
            check_tokens(live, &sequence.tokens, sequence.n_prompt)?;
        }
        Ok(())
    }

    /// At most two batches are in flight, and their rows are of sequences that run or void.
    fn check_flights(&self) -> Result<(), String> {
        ensure!(
            self.flights.len() <= 2,
            "{} batches are in flight",
            self.flights.len()
        );
        for row in self.flights.iter().flatten().filter(|row| !row.is_void) {
            let runs = self.running.contains_key(&row.age);
            ensure!(runs, "{}: its row in flight is of nobody", row.id);
        }
        Ok(())
    }

    /// The flows list every waiting sequence where it belongs, and the elder is alive.
    fn check_queue(&self) -> Result<(), String> {
        let mut n_listed = 0;
        for (priority, flows) in Priority::ALL.into_iter().zip(&self.flows) {
            let listed = flows.check()?;
            n_listed += listed.len();
            for (age, flow) in listed {
                let sequence = self.waiting.get(&age).map(|waiting| &waiting.sequence);
                let here = sequence.is_some_and(|s| s.flow == flow && s.priority == priority);
                ensure!(here, "{flow} lists a sequence that does not wait there");
            }
        }
        ensure!(
            n_listed == self.waiting.len(),
            "flows list {n_listed} sequences, {} wait",
            self.waiting.len()
        );
        if let Some(elder) = self.elder.age {
            let lives = self.waiting.contains_key(&elder) || self.running.contains_key(&elder);
            ensure!(lives, "the elder has ended and keeps its seat");
        }
        let n_held: usize = self.requests.values().map(|live| live.held.len()).sum();
        ensure!(
            n_held == self.n_held,
            "{n_held} choices are held, {} counted",
            self.n_held
        );
        let held = |live: &LiveRequest| live.held.len() * live.request.prompt.len();
        let waiting = |waiting: &Waiting| waiting.sequence.tokens.len();
        let n_tokens = self.requests.values().map(held).sum::<usize>()
            + self.waiting.values().map(waiting).sum::<usize>();
        ensure!(
            n_tokens == self.n_tokens_queued,
            "{n_tokens} tokens wait, {} counted",
            self.n_tokens_queued
        );
        Ok(())
    }

    fn check_counts(&self) -> Result<(), String> {
        ensure!(
            self.running.len() <= self.config.max_rows(),
            "{} sequences run, at most {} may",
            self.running.len(),
            self.config.max_rows()
        );
        let n_live: usize = self
            .requests
            .values()
            .map(|live| live.n_unfinished as usize)
            .sum();
        let stats = self.stats();
        ensure!(
            stats.n_waiting + stats.n_running == n_live,
            "{} sequences wait or run, {n_live} are unfinished",
            stats.n_waiting + stats.n_running
        );
        ensure!(
            !self.running.is_empty() || !self.flights.is_empty() || stats.n_blocks_in_use == 0,
            "nothing runs but {} blocks are in use",
            stats.n_blocks_in_use
        );
        Ok(())
    }
}

fn check_tokens(live: &LiveRequest, tokens: &[TokenId], n_prompt: usize) -> Result<(), String> {
    ensure!(
        n_prompt == live.request.prompt.len() && tokens.starts_with(&live.request.prompt),
        "its tokens do not begin with its prompt"
    );
    let n_drawing = usize::from(live.request.max_new_tokens > 0);
    ensure!(
        tokens.len() + n_drawing <= live.max_tokens,
        "it goes on with {} tokens though it ends at {}",
        tokens.len(),
        live.max_tokens
    );
    Ok(())
}
