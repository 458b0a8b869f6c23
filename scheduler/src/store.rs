//! Blocks and the prefix index together: what a table may take, grow by and give back.

use crate::block::BlockPool;
use crate::prefix::{Parent, PrefixIndex};
use crate::{BlockId, TokenId};

/// The blocks of one running sequence, in order of position, without those behind its window.
/// Whoever ends it must give its blocks to
/// [`BlockStore::free`].
#[derive(Debug)]
pub(crate) struct BlockTable {
    pub(crate) blocks: Vec<BlockId>,
    /// Blocks before `blocks` that were given back.
    pub(crate) n_dropped: usize,
    /// The first `n_registered` blocks, dropped ones among them, are in the prefix index (if they
    /// have not been reused since); they are never written again.
    pub(crate) n_registered: usize,
    /// What the first unregistered block continues.
    pub(crate) tip: Parent,
    /// Whether full blocks are to be registered at all.
    pub(crate) registers: bool,
}

/// A block that a table does not hold any more, and whether it can be hit later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp {
    pub(crate) block: BlockId,
    pub(crate) cached: bool,
}

impl BlockTable {
    /// All blocks, the last first: the end of a context is reused before its beginning.
    pub(crate) fn into_given_up(self) -> Vec<GivenUp> {
        let (n_dropped, n_registered) = (self.n_dropped, self.n_registered);
        let blocks = self.blocks.into_iter().enumerate().rev();
        let given_up = blocks.map(|(i, block)| GivenUp {
            block,
            cached: n_dropped + i < n_registered,
        });
        given_up.collect()
    }

    /// Blocks beyond the first `n_blocks`, dropped ones counted, the last first. None of them is
    /// registered.
    pub(crate) fn cut(&mut self, n_blocks: usize) -> Vec<GivenUp> {
        let cut = self.blocks.split_off(n_blocks - self.n_dropped);
        let cut = cut.into_iter().rev();
        cut.map(|block| GivenUp {
            block,
            cached: false,
        })
        .collect()
    }

    /// Blocks up to the end of the last one, dropped ones among them.
    pub(crate) fn end(&self) -> usize {
        self.n_dropped + self.blocks.len()
    }
}

/// Blocks that hold the beginning of a sequence already.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) blocks: Vec<BlockId>,
    /// What the last of `blocks` is known as; the root if there are none.
    pub(crate) tip: Parent,
    root: Parent,
}

impl Hit {
    pub(crate) fn none(root: Parent) -> Self {
        Self {
            blocks: Vec::new(),
            tip: root,
            root,
        }
    }
}

#[derive(Debug)]
pub(crate) struct BlockStore {
    pub(crate) block_size: usize,
    /// See [`crate::SchedulerConfig::window`].
    pub(crate) window: Option<usize>,
    pub(crate) pool: BlockPool,
    pub(crate) index: PrefixIndex,
    /// Free blocks that are in the index.
    pub(crate) n_cached: usize,
}

impl BlockStore {
    pub(crate) fn new(n_blocks: usize, block_size: usize, window: Option<usize>) -> Self {
        Self {
            block_size,
            window,
            pool: BlockPool::new(n_blocks),
            index: PrefixIndex::new(n_blocks),
            n_cached: 0,
        }
    }

    /// Blocks that `n_positions` positions take.
    pub(crate) fn n_blocks_for(&self, n_positions: usize) -> usize {
        n_positions.div_ceil(self.block_size)
    }

    /// Makes of an earlier hit of the same `tokens` the longest run of registered blocks that
    /// holds a beginning of them and at most `max_positions`.
    ///
    /// Nothing that is still there is compared again: a node's id is never reused, and a block
    /// is forgotten before the one that it continues, so a hit whose last block is still known
    /// by the same id is valid as a whole. With a window, the blocks of a context are not reused
    /// in that order, and everything is looked up afresh.
    pub(crate) fn look_up(&self, hit: &mut Hit, tokens: &[TokenId], max_positions: usize) {
        let n_most = max_positions.min(tokens.len()) / self.block_size;
        if self.window.is_some() {
            *hit = Hit::none(hit.root);
        }
        while let Some(&last) = hit.blocks.last() {
            let node = self.index.node(last);
            let known = node.is_some_and(|node| Parent::Node(node.id) == hit.tip);
            if known && hit.blocks.len() <= n_most {
                break;
            }
            hit.blocks.pop();
            // The tip before is the parent, if this block still tells; else look it all up.
            match node {
                Some(node) if known => hit.tip = node.parent,
                _ => *hit = Hit::none(hit.root),
            }
        }
        let chunks = tokens.chunks_exact(self.block_size).take(n_most);
        for chunk in chunks.skip(hit.blocks.len()) {
            let Some((id, block)) = self.index.find(hit.tip, chunk) else {
                break;
            };
            hit.blocks.push(block);
            hit.tip = Parent::Node(id);
        }
    }

    /// Positions that a hit holds.
    pub(crate) fn n_positions(&self, hit: &Hit) -> usize {
        hit.blocks.len() * self.block_size
    }

    /// Blocks of a hit that are behind the window of the position after it.
    pub(crate) fn n_dropped(&self, hit: &Hit) -> usize {
        self.n_behind(self.n_positions(hit))
    }

    /// The blocks of a hit that a table takes.
    pub(crate) fn taken<'a>(&self, hit: &'a Hit) -> &'a [BlockId] {
        &hit.blocks[self.n_dropped(hit)..]
    }

    /// How many blocks of a hit are free now, and will not be when it is opened.
    pub(crate) fn n_free(&self, hit: &Hit) -> usize {
        let taken = self.taken(hit).iter();
        let free = taken.filter(|block| self.pool.is_free(**block));
        free.count()
    }

    /// A table that begins with the blocks of a hit.
    pub(crate) fn open(&mut self, hit: Hit, registers: bool) -> BlockTable {
        let n_dropped = self.n_dropped(&hit);
        let blocks = self.taken(&hit).to_vec();
        for &block in &blocks {
            self.hold(block);
        }
        BlockTable {
            n_registered: hit.blocks.len(),
            n_dropped,
            blocks,
            tip: hit.tip,
            registers,
        }
    }

    /// Allocates until the table covers `n_positions`. The caller has seen that there are
    /// enough free blocks.
    pub(crate) fn grow(&mut self, table: &mut BlockTable, n_positions: usize) {
        while table.end() < self.n_blocks_for(n_positions) {
            let block = self.pool.allocate().expect("free blocks were counted");
            self.n_cached -= usize::from(self.index.remove(block));
            table.blocks.push(block);
        }
    }

    /// Registers the blocks that `computed`, the tokens whose positions a step has computed,
    /// fill. When another block holds the same context already, the table takes that one and
    /// gives up its own: every registered block's parent is then held by whoever holds the
    /// block, so that a parent is never reused before its children. Gives what was given up.
    pub(crate) fn register(
        &mut self,
        table: &mut BlockTable,
        computed: &[TokenId],
    ) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        if !table.registers {
            return given_up;
        }
        let chunks = computed.chunks_exact(self.block_size);
        for (i, chunk) in chunks.enumerate().skip(table.n_registered) {
            let own = table.blocks[i - table.n_dropped];
            let id = match self.index.find(table.tip, chunk) {
                Some((id, other)) => {
                    self.hold(other);
                    given_up.push(GivenUp {
                        block: own,
                        cached: false,
                    });
                    table.blocks[i - table.n_dropped] = other;
                    id
                }
                None => self.index.insert(table.tip, chunk, own),
            };
            table.tip = Parent::Node(id);
            table.n_registered += 1;
        }
        given_up
    }

    /// Gives blocks back, in this order.
    pub(crate) fn free(&mut self, given_up: Vec<GivenUp>) {
        for GivenUp { block, cached } in given_up {
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

    fn look_up(store: &BlockStore, tokens: &[TokenId], max_positions: usize) -> Hit {
        let mut hit = Hit::none(ROOT);
        store.look_up(&mut hit, tokens, max_positions);
        hit
    }

    fn compute(store: &mut BlockStore, tokens: &[TokenId]) -> BlockTable {
        let hit = look_up(store, tokens, tokens.len() - 1);
        let mut table = store.open(hit, true);
        store.grow(&mut table, tokens.len());
        let own = store.register(&mut table, tokens);
        store.free(own);
        table
    }

    #[test]
    fn the_last_position_is_never_taken_from_the_cache() {
        let mut store = BlockStore::new(4, 2, None);
        let table = compute(&mut store, &[1, 2, 3, 4]);
        store.free(table.into_given_up());
        assert_eq!(look_up(&store, &[1, 2, 3, 4], 3).blocks.len(), 1);
        assert_eq!(look_up(&store, &[1, 2, 3, 4, 5], 4).blocks.len(), 2);
    }

    #[test]
    fn the_same_context_computed_twice_becomes_one_block() {
        let mut store = BlockStore::new(4, 2, None);
        let mut tables: Vec<BlockTable> = (0..2)
            .map(|_| {
                let hit = look_up(&store, &[1, 2], 0);
                let mut table = store.open(hit, true);
                store.grow(&mut table, 2);
                table
            })
            .collect();
        assert_ne!(tables[0].blocks, tables[1].blocks);
        for table in &mut tables {
            let own = store.register(table, &[1, 2]);
            store.free(own);
        }
        assert_eq!(tables[0].blocks, tables[1].blocks);
        assert_eq!(store.pool.refs(tables[0].blocks[0]), 2);
        assert_eq!(store.pool.n_free(), 3);
    }

    #[test]
    fn the_end_of_a_context_is_reused_before_its_beginning() {
        let mut store = BlockStore::new(3, 2, None);
        let table = compute(&mut store, &[1, 2, 3, 4, 5, 6]);
        store.free(table.into_given_up());
        let other = compute(&mut store, &[7, 8]);
        assert_eq!(look_up(&store, &[1, 2, 3, 4, 5, 6, 0], 6).blocks.len(), 2);
        store.free(other.into_given_up());
    }

    #[test]
    fn a_look_up_goes_on_from_the_last() {
        let tokens = [1, 2, 3, 4, 5, 6, 7];
        let mut store = BlockStore::new(4, 2, None);
        let table = compute(&mut store, &tokens[..4]);
        let mut hit = look_up(&store, &tokens, 6);
        assert_eq!(hit.blocks.len(), 2);
        store.free(table.into_given_up());
        let table = compute(&mut store, &tokens[..6]);
        store.look_up(&mut hit, &tokens, 6);
        assert_eq!(
            hit.blocks, table.blocks,
            "it is extended by what came since"
        );
        store.look_up(&mut hit, &tokens, 3);
        assert_eq!(
            hit.blocks,
            table.blocks[..1],
            "it is cut to what may be used"
        );
        store.look_up(&mut hit, &tokens, 6);
        store.free(table.into_given_up());
        assert_eq!(store.n_free(&hit), 3);
        // Two of the four blocks are overwritten, and then hold the same context again.
        let other = compute(&mut store, &[9, 9, 9]);
        store.look_up(&mut hit, &tokens, 6);
        assert_eq!(hit.blocks, look_up(&store, &tokens, 6).blocks);
        assert_eq!(hit.blocks.len(), 2);
        store.free(other.into_given_up());
        let table = compute(&mut store, &tokens[..6]);
        store.look_up(&mut hit, &tokens, 6);
        assert_eq!(hit.blocks, table.blocks);
        store.free(table.into_given_up());
    }
}
