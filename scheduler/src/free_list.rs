//! The blocks that nobody holds, in the order in which they will be reused.
//!
//! An intrusive doubly linked list: a block that is hit in the prefix cache leaves the middle
//! in O(1).

/// Marks the end of the list; never a block.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    listed: bool,
}

#[derive(Debug)]
pub(crate) struct FreeList {
    links: Vec<Link>,
    front: u32,
    back: u32,
    len: usize,
}

impl FreeList {
    /// A list over blocks `0..n`, all of them listed in ascending order.
    pub(crate) fn full(n: usize) -> Self {
        let unlisted = Link {
            prev: NONE,
            next: NONE,
            listed: false,
        };
        let mut list = Self {
            links: vec![unlisted; n],
            front: NONE,
            back: NONE,
            len: 0,
        };
        for block in 0..n as u32 {
            list.push_back(block);
        }
        list
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, block: u32) -> bool {
        self.links[block as usize].listed
    }

    /// To be reused next.
    pub(crate) fn push_front(&mut self, block: u32) {
        let next = self.front;
        self.list(block, NONE, next);
        match next {
            NONE => self.back = block,
            next => self.links[next as usize].prev = block,
        }
        self.front = block;
    }

    /// To be reused last.
    pub(crate) fn push_back(&mut self, block: u32) {
        let prev = self.back;
        self.list(block, prev, NONE);
        match prev {
            NONE => self.front = block,
            prev => self.links[prev as usize].next = block,
        }
        self.back = block;
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let block = self.front;
        if block == NONE {
            return None;
        }
        self.remove(block);
        Some(block)
    }

    /// Takes a listed block out of wherever it is.
    pub(crate) fn remove(&mut self, block: u32) {
        let Link { prev, next, listed } = self.links[block as usize];
        assert!(listed, "block {block} is not free");
        match prev {
            NONE => self.front = next,
            prev => self.links[prev as usize].next = next,
        }
        match next {
            NONE => self.back = prev,
            next => self.links[next as usize].prev = prev,
        }
        self.links[block as usize].listed = false;
        self.len -= 1;
    }

    /// From the next to be reused to the last. At most as many as there are blocks, so that a
    /// list with a cycle can still be checked.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let mut at = self.front;
        let walk = std::iter::from_fn(move || {
            let block = at;
            (block != NONE).then(|| {
                at = self.links[block as usize].next;
                block
            })
        });
        walk.take(self.links.len() + 1)
    }

    fn list(&mut self, block: u32, prev: u32, next: u32) {
        let link = &mut self.links[block as usize];
        assert!(!link.listed, "block {block} is free already");
        *link = Link {
            prev,
            next,
            listed: true,
        };
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(list: &FreeList) -> Vec<u32> {
        list.iter().collect()
    }

    #[test]
    fn gives_blocks_in_order() {
        let mut list = FreeList::full(3);
        assert_eq!(listed(&list), [0, 1, 2]);
        assert_eq!(list.pop_front(), Some(0));
        assert_eq!(list.pop_front(), Some(1));
        assert_eq!(list.pop_front(), Some(2));
        assert_eq!(list.pop_front(), None);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn takes_from_front_middle_and_back() {
        let mut list = FreeList::full(5);
        list.remove(2);
        assert_eq!(listed(&list), [0, 1, 3, 4]);
        list.remove(0);
        list.remove(4);
        assert_eq!(listed(&list), [1, 3]);
        list.push_front(4);
        list.push_back(0);
        assert_eq!(listed(&list), [4, 1, 3, 0]);
        assert!(list.contains(4) && !list.contains(2));
        assert_eq!(list.len(), 4);
    }

    #[test]
    fn works_again_after_it_was_empty() {
        let mut list = FreeList::full(1);
        assert_eq!(list.pop_front(), Some(0));
        list.push_back(0);
        assert_eq!(listed(&list), [0]);
        list.remove(0);
        list.push_front(0);
        assert_eq!(list.pop_front(), Some(0));
    }

    #[test]
    fn freeing_twice_is_refused() {
        let twice = std::panic::catch_unwind(|| FreeList::full(2).push_back(1));
        assert!(twice.is_err());
    }
}
