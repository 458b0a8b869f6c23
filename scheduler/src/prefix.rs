//! Which computed blocks hold which context.
//!
//! A tree: a node is one full block, known by its parent and its own tokens, and the root of a
//! tree is the request's `kv_root`. Lookups compare the tokens themselves, not a digest of them,
//! so that two contexts can never be taken for each other. Node ids are never reused, so a node
//! that is gone cannot be mistaken for a later one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{BlockId, RequestId, TokenId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u64);

/// What a block continues: the beginning of a sequence, or another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parent {
    Root {
        kv_root: u64,
        /// Set to keep the tree private to the choices of one request.
        scope: Option<RequestId>,
    },
    Node(NodeId),
}

/// The content of a registered block.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) parent: Parent,
    pub(crate) tokens: Arc<[TokenId]>,
}

/// The blocks that continue one parent, by their tokens.
type Children = BTreeMap<Arc<[TokenId]>, (NodeId, BlockId)>;

#[derive(Debug)]
pub(crate) struct PrefixIndex {
    children: BTreeMap<Parent, Children>,
    by_block: Vec<Option<Node>>,
    next_id: u64,
}

impl PrefixIndex {
    pub(crate) fn new(n_blocks: usize) -> Self {
        Self {
            children: BTreeMap::new(),
            by_block: std::iter::repeat_with(|| None).take(n_blocks).collect(),
            next_id: 0,
        }
    }

    /// The block that holds `tokens` after `parent`.
    pub(crate) fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<(NodeId, BlockId)> {
        self.children.get(&parent)?.get(tokens).copied()
    }

    /// Makes `block`, which is not registered yet, known as `tokens` after `parent`, which no
    /// other block is.
    pub(crate) fn insert(&mut self, parent: Parent, tokens: &[TokenId], block: BlockId) -> NodeId {
        let id = NodeId(self.next_id);
        self.next_id += 1;
        let tokens: Arc<[TokenId]> = tokens.into();
        let siblings = self.children.entry(parent).or_default();
        let other = siblings.insert(tokens.clone(), (id, block));
        assert!(other.is_none(), "two blocks are known as the same context");
        let node = Node { id, parent, tokens };
        let before = self.by_block[block.0 as usize].replace(node);
        assert!(before.is_none(), "{block} is registered twice");
        id
    }

    /// Forgets what `block` holds, because it is about to be overwritten. False if it was not
    /// registered.
    pub(crate) fn remove(&mut self, block: BlockId) -> bool {
        let Some(node) = self.by_block[block.0 as usize].take() else {
            return false;
        };
        if let Some(siblings) = self.children.get_mut(&node.parent) {
            siblings.remove(&node.tokens);
            if siblings.is_empty() {
                self.children.remove(&node.parent);
            }
        }
        true
    }

    pub(crate) fn node(&self, block: BlockId) -> Option<&Node> {
        self.by_block[block.0 as usize].as_ref()
    }

    /// Number of entries in the tree, counted afresh.
    pub(crate) fn count(&self) -> usize {
        self.children.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(kv_root: u64) -> Parent {
        Parent::Root {
            kv_root,
            scope: None,
        }
    }

    #[test]
    fn finds_by_root_parent_and_tokens() {
        let mut index = PrefixIndex::new(4);
        let a = index.insert(root(1), &[1, 2], BlockId(0));
        index.insert(Parent::Node(a), &[3, 4], BlockId(1));
        assert_eq!(index.find(root(1), &[1, 2]), Some((a, BlockId(0))));
        assert_eq!(index.find(root(2), &[1, 2]), None);
        assert_eq!(index.find(root(1), &[3, 4]), None);
        assert_eq!(index.find(Parent::Node(a), &[1, 2]), None);
        assert!(index.find(Parent::Node(a), &[3, 4]).is_some());
        let private = Parent::Root {
            kv_root: 1,
            scope: Some(RequestId(7)),
        };
        assert_eq!(index.find(private, &[1, 2]), None);
    }

    #[test]
    fn a_block_that_comes_back_is_another_node() {
        let mut index = PrefixIndex::new(2);
        let first = index.insert(root(1), &[1, 2], BlockId(0));
        index.insert(Parent::Node(first), &[9, 9], BlockId(1));
        assert!(index.remove(BlockId(0)));
        assert_eq!(index.find(root(1), &[1, 2]), None);
        let second = index.insert(root(1), &[1, 2], BlockId(0));
        assert_ne!(first, second);
        assert_eq!(index.find(Parent::Node(second), &[9, 9]), None);
    }

    #[test]
    fn removing_leaves_nothing_behind() {
        let mut index = PrefixIndex::new(2);
        index.insert(root(1), &[1], BlockId(0));
        index.insert(root(1), &[2], BlockId(1));
        assert!(index.remove(BlockId(0)));
        assert_eq!(index.count(), 1);
        assert!(index.remove(BlockId(1)));
        assert!(!index.remove(BlockId(1)));
        assert_eq!(index.count(), 0);
        assert!(index.children.is_empty());
    }
}
