//! Blocks behind a window: when every layer sees only the last `window` positions, earlier
//! blocks are never read again, and a sequence holds blocks for the window, not for its context.

use crate::Scheduler;
use crate::sequence::Sequence;
use crate::store::{BlockStore, BlockTable, GivenUp};

impl BlockStore {
    /// Full blocks that no query from position `n_computed` on sees.
    pub(crate) fn n_behind(&self, n_computed: usize) -> usize {
        let behind = |window: usize| (n_computed + 1).saturating_sub(window) / self.block_size;
        self.window.map_or(0, behind)
    }

    /// Most blocks that a run of `n_positions` positions touches.
    pub(crate) fn n_blocks_touched(&self, n_positions: usize) -> usize {
        n_positions.saturating_sub(1).div_ceil(self.block_size) + 1
    }

    /// Most blocks that computing one position after another needs at a time.
    pub(crate) fn n_blocks_least(&self, n_positions: usize) -> usize {
        let all = self.n_blocks_for(n_positions);
        let in_window = |window| all.min(self.n_blocks_touched(window));
        self.window.map_or(all, in_window)
    }

    /// Gives back the blocks that are behind the window of position `n_computed`, the first
    /// first: without them, those that continue them cannot be found any more.
    pub(crate) fn drop_behind(&self, table: &mut BlockTable, n_computed: usize) -> Vec<GivenUp> {
        let n = self.n_behind(n_computed).saturating_sub(table.n_dropped);
        let dropped = table.blocks.drain(..n).map(|block| {
            let cached = table.n_dropped < table.n_registered;
            table.n_dropped += 1;
            GivenUp { block, cached }
        });
        dropped.collect()
    }
}

impl Scheduler {
    /// Blocks that a sequence comes to hold for all its tokens and one block of growth, when
    /// `n_computed` positions are computed and `n_dropped` blocks given back. Without the
    /// growth, a sequence could be admitted only to be preempted by the next token of another.
    pub(crate) fn n_blocks_soon(
        &self,
        sequence: &Sequence,
        n_computed: usize,
        n_dropped: usize,
    ) -> usize {
        let n_soon = sequence.tokens.len() + self.store.block_size;
        let n_all = self
            .store
            .n_blocks_for(n_soon.min(sequence.max_positions()));
        let n_all = n_all - n_dropped;
        let Some(window) = self.store.window else {
            return n_all;
        };
        // A step's chunk and what its first position sees. With fewer blocks than that, chunks
        // are smaller.
        let n_missing = sequence.tokens.len() - n_computed;
        let n_seen = window - 1 + n_missing.min(self.config.max_batched_tokens);
        let n_most = self.store.n_blocks_touched(n_seen) + 1;
        n_all.min(n_most).min(self.config.n_blocks)
    }
}
