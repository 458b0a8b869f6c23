//! Blocks and who holds them: reference counts over a free list.

use crate::BlockId;
use crate::free_list::FreeList;

/// All blocks of the KV cache. A block is either held (by one or more tables) or free; a free
/// block keeps its content until it is reused.
#[derive(Debug)]
pub(crate) struct BlockPool {
    refs: Vec<u32>,
    free: FreeList,
}

impl BlockPool {
    pub(crate) fn new(n_blocks: usize) -> Self {
        Self {
            refs: vec![0; n_blocks],
            free: FreeList::full(n_blocks),
        }
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.refs.len()
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn refs(&self, block: BlockId) -> u32 {
        self.refs[block.0 as usize]
    }

    /// Takes the free block that is to be reused next. Its content is void from here on.
    pub(crate) fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop_front()?;
        self.refs[block as usize] = 1;
        Some(BlockId(block))
    }

    /// Adds a holder to a block, which may be free, for the sake of its content.
    pub(crate) fn hold(&mut self, block: BlockId) {
        let refs = &mut self.refs[block.0 as usize];
        if *refs == 0 {
            self.free.remove(block.0);
        }
        *refs += 1;
    }

    /// Drops a holder. When it was the last, the block is free: blocks whose content is `cached`
    /// are reused after all others, longest unused first.
    pub(crate) fn release(&mut self, block: BlockId, cached: bool) {
        let refs = &mut self.refs[block.0 as usize];
        assert!(*refs > 0, "{block} is released but nobody holds it");
        *refs -= 1;
        if *refs > 0 {
            return;
        }
        if cached {
            self.free.push_back(block.0);
        } else {
            self.free.push_front(block.0);
        }
    }

    /// Free blocks, the next to be reused first.
    pub(crate) fn iter_free(&self) -> impl Iterator<Item = BlockId> {
        self.free.iter().map(BlockId)
    }

    pub(crate) fn is_free(&self, block: BlockId) -> bool {
        self.free.contains(block.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_block_is_free_after_its_last_holder() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().unwrap();
        pool.hold(block);
        assert_eq!(pool.refs(block), 2);
        pool.release(block, true);
        assert_eq!(pool.n_free(), 1);
        pool.release(block, true);
        assert_eq!(pool.n_free(), 2);
        assert!(pool.is_free(block));
    }

    #[test]
    fn uncached_blocks_are_reused_before_cached_ones() {
        let mut pool = BlockPool::new(4);
        let held: Vec<BlockId> = (0..4).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(pool.allocate(), None);
        pool.release(held[0], true);
        pool.release(held[1], true);
        pool.release(held[2], false);
        pool.release(held[3], true);
        let order: Vec<BlockId> = pool.iter_free().collect();
        assert_eq!(order, [held[2], held[0], held[1], held[3]]);
        pool.hold(held[0]);
        assert_eq!(pool.allocate(), Some(held[2]));
        assert_eq!(pool.allocate(), Some(held[1]));
    }

    #[test]
    fn releasing_a_free_block_is_refused() {
        let result = std::panic::catch_unwind(|| BlockPool::new(1).release(BlockId(0), false));
        assert!(result.is_err());
    }
}
