//! Memory of all bodies together. Each may be large; all at once may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that bodies may take together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    taken: Arc<AtomicU64>,
    max: u64,
}

/// What one request has received so far. It is given back with the last clone, which is at the end
/// of the answer.
#[derive(Clone, Debug)]
pub(super) struct Share {
    taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    budget: Budget,
    n: AtomicU64,
}

impl Budget {
    pub(super) fn new(max: u64) -> Self {
        Self {
            taken: Arc::default(),
            max,
        }
    }

    pub(super) fn share(&self) -> Share {
        Share {
            taken: Arc::new(Taken {
                budget: self.clone(),
                n: AtomicU64::new(0),
            }),
        }
    }
}

impl Share {
    /// Takes `n` more bytes; false if there are not so many left.
    pub(super) fn take(&self, n: usize) -> bool {
        let n = n as u64;
        let Taken { budget, n: own } = &*self.taken;
        own.fetch_add(n, Ordering::Relaxed);
        budget.taken.fetch_add(n, Ordering::Relaxed) + n <= budget.max
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let n = self.n.load(Ordering::Relaxed);
        self.budget.taken.fetch_sub(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_with_the_last_clone() {
        let budget = Budget::new(100);
        let (one, other) = (budget.share(), budget.share());
        let clone = one.clone();
        assert!(one.take(60) && other.take(40));
        assert!(!other.take(1));
        drop(one);
        assert!(!other.take(1));
        drop(clone);
        assert!(other.take(58) && !other.take(1));
        drop(other);
        assert!(budget.share().take(100));
    }
}
