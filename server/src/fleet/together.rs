//! Memory of several models at once.

use std::collections::HashSet;
use std::hash::Hash;

use models::WeightKey;

/// Bytes of models that are counted one by one. Matrices that they have in common count once.
#[derive(Debug)]
pub(super) struct Together<K = WeightKey> {
    counted: HashSet<K>,
    n_bytes: u64,
}

impl<K: Copy + Eq + Hash> Together<K> {
    pub(super) fn new() -> Self {
        Self {
            counted: HashSet::new(),
            n_bytes: 0,
        }
    }

    /// Counts a model of these matrices, which takes `rest_bytes` beside them.
    pub(super) fn add(&mut self, rest_bytes: u64, matrices: &[(K, u64)]) {
        self.n_bytes = self.n_bytes.saturating_add(rest_bytes);
        for (key, n_bytes) in matrices {
            if self.counted.insert(*key) {
                self.n_bytes = self.n_bytes.saturating_add(*n_bytes);
            }
        }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearly all bytes of a model are matrices: without them, too much would seem to fit.
    #[test]
    fn matrices_count_once_and_all_else_of_each_model() {
        let mut together = Together::<u8>::new();
        together.add(1, &[(0, 4)]);
        together.add(2, &[(1, 10)]);
        assert_eq!(together.n_bytes(), 17);
        // Another that has one of them and one of its own, which it has twice.
        together.add(4, &[(1, 10), (2, 10), (2, 10)]);
        assert_eq!(together.n_bytes(), 31);
        together.add(u64::MAX, &[(3, 1)]);
        assert_eq!(together.n_bytes(), u64::MAX);
    }
}
