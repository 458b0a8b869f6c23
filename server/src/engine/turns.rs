//! Whose step is next, where several engines compute on the same cores.
//!
//! Two steps at a time would only take threads from each other, and both would end late. So an
//! engine waits for its turn, in the order of asking: one that has just had a step is behind all
//! that waited meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The turns of one machine. At most one is taken at a time.
#[derive(Debug, Default)]
pub struct Turns {
    tickets: Mutex<Tickets>,
    moved: Condvar,
}

/// Numbers are given out one by one and called one by one.
#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    called: u64,
}

/// A turn, given back when dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until all who asked before are done.
    pub fn take(&self) -> Turn<'_> {
        let mut tickets = self.lock();
        let own = tickets.next;
        tickets.next += 1;
        while tickets.called != own {
            tickets = self
                .moved
                .wait(tickets)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    /// The books are whole after every statement.
    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().called += 1;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn whoever_asked_first_is_first_and_a_panic_gives_the_turn_back() {
        let turns = Arc::new(Turns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = turns.take();
        let waiting: Vec<_> = (0..4)
            .map(|i| {
                let (own, told) = (Arc::clone(&turns), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        let _turn = own.take();
                        told.lock().unwrap_or_else(PoisonError::into_inner).push(i);
                        assert_ne!(i, 1, "as it should");
                    }));
                    assert_eq!(panicked.is_err(), i == 1);
                });
                // The next asks when this one has.
                while turns.lock().next < 2 + i {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(order.lock().unwrap().is_empty());
        drop(held);
        waiting
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        // The second told its order before it panicked, and poisoned nothing of ours.
        assert_eq!(
            *order.lock().unwrap_or_else(PoisonError::into_inner),
            [0, 1, 2, 3]
        );
    }
}
