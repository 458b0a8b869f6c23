//! Blocks and the prefix index together: what a table may take, grow by and give back.

use crate::block::BlockPool;
use crate::prefix::{Parent, PrefixIndex};
use crate::{BlockId, TokenId};

/// The blocks of one running sequence, in order of position. Whoever ends it must give it to
/// [`BlockStore::release`].
#[derive(Debug)]
pub(crate) struct BlockTable {
    pub(crate) blocks: Vec<BlockId>,
    /// The first `n_registered` blocks are in the prefix index; they are never written again.
    pub(crate) n_registered: usize,
    /// What the first unregistered block continues.
    pub(crate) tip: Parent,
    /// Whether full blocks are to be registered at all.
    pub(crate) registers: bool,
}

/// Blocks that hold the beginning of a sequence already.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) tip: Parent,
    /// How many of `blocks` are free now and will not be any more.
    pub(crate) n_free: usize,
}

#[derive(Debug)]
pub(crate) struct BlockStore {
    pub(crate) block_size: usize,
    pub(crate) pool: BlockPool,
    pub(crate) index: PrefixIndex,
    /// Free blocks that are in the index.
    pub(crate) n_cached: usize,
}

impl BlockStore {
    pub(crate) fn new(n_blocks: usize, block_size: usize) -> Self {
        Self {
            block_size,
            pool: BlockPool::new(n_blocks),
            index: PrefixIndex::new(n_blocks),
            n_cached: 0,
        }
    }

    /// Blocks that `n_positions` positions take.
    pub(crate) fn n_blocks_for(&self, n_positions: usize) -> usize {
        n_positions.div_ceil(self.block_size)
    }

    /// The longest run of registered blocks that holds a beginning of `tokens` and at most
    /// `max_positions` of them.
    pub(crate) fn look_up(&self, root: Parent, tokens: &[TokenId], max_positions: usize) -> Hit {
        let mut hit = Hit {
            blocks: Vec::new(),
            tip: root,
            n_free: 0,
        };
        let usable = &tokens[..max_positions.min(tokens.len())];
        for chunk in usable.chunks_exact(self.block_size) {
            let Some((id, block)) = self.index.find(hit.tip, chunk) else {
                break;
            };
            hit.blocks.push(block);
            hit.tip = Parent::Node(id);
            hit.n_free += usize::from(self.pool.is_free(block));
        }
        hit
    }

    /// A table that begins with the blocks of a hit.
    pub(crate) fn open(&mut self, hit: Hit, registers: bool) -> BlockTable {
        for &block in &hit.blocks {
            self.hold(block);
        }
        BlockTable {
            n_registered: hit.blocks.len(),
            blocks: hit.blocks,
            tip: hit.tip,
            registers,
        }
    }

    /// Allocates until the table covers `n_positions`. The caller has seen that there are
    /// enough free blocks.
    pub(crate) fn grow(&mut self, table: &mut BlockTable, n_positions: usize) {
        while table.blocks.len() < self.n_blocks_for(n_positions) {
            let block = self.pool.allocate().expect("free blocks were counted");
            self.n_cached -= usize::from(self.index.remove(block));
            table.blocks.push(block);
        }
    }

    /// Registers the blocks that `computed`, the tokens whose positions a step has computed,
    /// fill. When another block holds the same context already, the table takes that one and
    /// gives up its own: every registered block's parent is then held by whoever holds the
    /// block, so that a parent is never reused before its children.
    pub(crate) fn register(&mut self, table: &mut BlockTable, computed: &[TokenId]) {
        if !table.registers {
            return;
        }
        let chunks = computed.chunks_exact(self.block_size);
        for (i, chunk) in chunks.enumerate().skip(table.n_registered) {
            let own = table.blocks[i];
            let id = match self.index.find(table.tip, chunk) {
                Some((id, other)) => {
                    self.hold(other);
                    self.pool.release(own, false);
                    table.blocks[i] = other;
                    id
                }
                None => self.index.insert(table.tip, chunk, own),
            };
            table.tip = Parent::Node(id);
            table.n_registered += 1;
        }
    }

    /// Gives all blocks back, the last first: the end of a context is reused before its
    /// beginning.
    pub(crate) fn release(&mut self, table: BlockTable) {
        for (i, &block) in table.blocks.iter().enumerate().rev() {
            let cached = i < table.n_registered;
            self.pool.release(block, cached);
            self.n_cached += usize::from(cached && self.pool.is_free(block));
        }
    }

    fn hold(&mut self, registered: BlockId) {
        self.n_cached -= usize::from(self.pool.is_free(registered));
        self.pool.hold(registered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Parent = Parent::Root {
        kv_root: 1,
        scope: None,
    };

    fn compute(store: &mut BlockStore, tokens: &[TokenId]) -> BlockTable {
        let hit = store.look_up(ROOT, tokens, tokens.len() - 1);
        let mut table = store.open(hit, true);
        store.grow(&mut table, tokens.len());
        store.register(&mut table, tokens);
        table
    }

    #[test]
    fn the_last_position_is_never_taken_from_the_cache() {
        let mut store = BlockStore::new(4, 2);
        let table = compute(&mut store, &[1, 2, 3, 4]);
        store.release(table);
        assert_eq!(store.look_up(ROOT, &[1, 2, 3, 4], 3).blocks.len(), 1);
        assert_eq!(store.look_up(ROOT, &[1, 2, 3, 4, 5], 4).blocks.len(), 2);
    }

    #[test]
    fn the_same_context_computed_twice_becomes_one_block() {
        let mut store = BlockStore::new(4, 2);
        let mut tables: Vec<BlockTable> = (0..2)
            .map(|_| {
                let hit = store.look_up(ROOT, &[1, 2], 0);
                let mut table = store.open(hit, true);
                store.grow(&mut table, 2);
                table
            })
            .collect();
        assert_ne!(tables[0].blocks, tables[1].blocks);
        for table in &mut tables {
            store.register(table, &[1, 2]);
        }
        assert_eq!(tables[0].blocks, tables[1].blocks);
        assert_eq!(store.pool.refs(tables[0].blocks[0]), 2);
        assert_eq!(store.pool.n_free(), 3);
    }

    #[test]
    fn the_end_of_a_context_is_reused_before_its_beginning() {
        let mut store = BlockStore::new(3, 2);
        let table = compute(&mut store, &[1, 2, 3, 4, 5, 6]);
        store.release(table);
        let other = compute(&mut store, &[7, 8]);
        assert_eq!(
            store.look_up(ROOT, &[1, 2, 3, 4, 5, 6, 0], 6).blocks.len(),
            2
        );
        store.release(other);
    }
}
