//! The queue's bounds: how many requests and tokens wait for their first step, and how fast they
//! leave. Who waits holds a [`Place`], which is given back however its holder ends.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::EngineError;
use super::drain::DrainRate;
use crate::metrics::{Metrics, Rejection};

/// What may wait, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests that no step has worked on yet.
    pub max_requests: usize,
    /// Tokens of their prompts. One request may exceed it when nothing else waits.
    pub max_tokens: usize,
    /// A request that has waited so long without a step is given up; `None`: never.
    pub timeout: Option<Duration>,
}

/// Everybody who waits, counted.
pub(super) struct Queue {
    limits: QueueLimits,
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    n_requests: usize,
    n_tokens: usize,
    drain: DrainRate,
}

/// Room that a request takes in the queue. Dropping it gives the room back.
pub(super) struct Place {
    queue: Arc<Queue>,
    n_requests: usize,
    n_tokens: usize,
    /// Whether it is of what clients leave.
    is_spare: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("n_requests", &self.n_requests)
            .field("n_tokens", &self.n_tokens)
            .field("is_spare", &self.is_spare)
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(limits: QueueLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            metrics,
            waiting: Mutex::default(),
        })
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.limits.timeout
    }

    /// The books are whole after every statement, so that a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for one more request of `n_tokens` by now. Takes none.
    pub(super) fn check(&self, n_tokens: usize) -> Result<(), EngineError> {
        self.check_in(&self.lock(), n_tokens)
    }

    fn check_in(&self, waiting: &Waiting, n_tokens: usize) -> Result<(), EngineError> {
        if waiting.n_requests >= self.limits.max_requests {
            return Err(self.refuse(waiting, Rejection::Requests));
        }
        if self.is_beyond_tokens(waiting.n_tokens, n_tokens) {
            return Err(self.refuse(waiting, Rejection::Tokens));
        }
        Ok(())
    }

    /// Takes room for requests that belong together: for all or none, if there is room for
    /// `n_tokens`, the fewest that they may have. Together they may exceed the number of requests, or
    /// a long list of prompts could never be served. Their tokens keep nobody out before they are
    /// counted, by [`Place::settle`]: what is long in a body need not be its prompt.
    pub(super) fn enter(
        self: &Arc<Self>,
        n_requests: usize,
        n_tokens: usize,
    ) -> Result<Place, EngineError> {
        let mut waiting = self.lock();
        self.check_in(&waiting, n_tokens)?;
        Ok(self.take(&mut waiting, n_requests, false))
    }

    /// Takes room for a copy that no client waits for. Copies run last, so that they would fill
    /// the queue while there is much to do: half of it is not for them. Nobody is refused
    /// anything, and so nothing is counted.
    pub(super) fn enter_spare(self: &Arc<Self>) -> Result<Place, EngineError> {
        let mut waiting = self.lock();
        if !self.has_spare(&waiting, 1, 0) {
            return Err(Self::overloaded(&waiting));
        }
        Ok(self.take(&mut waiting, 1, true))
    }

    fn take(self: &Arc<Self>, waiting: &mut Waiting, n_requests: usize, is_spare: bool) -> Place {
        self.add(waiting, n_requests, 0);
        Place {
            queue: Arc::clone(self),
            n_requests,
            n_tokens: 0,
            is_spare,
        }
    }

    /// Whether half of the queue stays free beside so much more. One that is alone may not exceed
    /// it either: clients would have to wait for its first step.
    fn has_spare(&self, waiting: &Waiting, n_requests: usize, n_tokens: usize) -> bool {
        waiting.n_requests.saturating_add(n_requests) <= self.limits.max_requests / 2
            && waiting.n_tokens.saturating_add(n_tokens) <= self.limits.max_tokens / 2
    }

    fn is_beyond_tokens(&self, n_others: usize, n_tokens: usize) -> bool {
        n_others > 0 && n_others.saturating_add(n_tokens) > self.limits.max_tokens
    }

    fn refuse(&self, waiting: &Waiting, rejection: Rejection) -> EngineError {
        self.metrics.count_rejected(rejection);
        Self::overloaded(waiting)
    }

    fn overloaded(waiting: &Waiting) -> EngineError {
        EngineError::Overloaded {
            n_requests: waiting.n_requests,
            n_tokens: waiting.n_tokens,
            retry_after: waiting.drain.time_for(waiting.n_tokens, Instant::now()),
        }
    }

    /// When what waits now will have left, by the rate of the last seconds.
    pub(super) fn retry_after(&self) -> Duration {
        let waiting = self.lock();
        waiting.drain.time_for(waiting.n_tokens, Instant::now())
    }

    fn add(&self, waiting: &mut Waiting, n_requests: usize, n_tokens: usize) {
        waiting.n_requests += n_requests;
        waiting.n_tokens += n_tokens;
        self.publish(waiting);
    }

    fn remove(&self, waiting: &mut Waiting, n_requests: usize, n_tokens: usize) {
        waiting.n_requests -= n_requests;
        waiting.n_tokens -= n_tokens;
        self.publish(waiting);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn publish(&self, waiting: &Waiting) {
        self.metrics.queued_requests.set(waiting.n_requests as f64);
        self.metrics.queued_tokens.set(waiting.n_tokens as f64);
    }
}

impl Place {
    /// Makes the place fit once the exact lengths are known: one place for each prompt.
    pub(super) fn settle(mut self, n_prompts: &[usize]) -> Result<Vec<Self>, EngineError> {
        let queue = Arc::clone(&self.queue);
        let mut waiting = queue.lock();
        let n_tokens = n_prompts.iter().sum();
        queue.remove(&mut waiting, self.n_requests, self.n_tokens);
        (self.n_requests, self.n_tokens) = (0, 0);
        if self.is_spare {
            if !queue.has_spare(&waiting, n_prompts.len(), n_tokens) {
                return Err(Queue::overloaded(&waiting));
            }
        } else if queue.is_beyond_tokens(waiting.n_tokens, n_tokens) {
            return Err(queue.refuse(&waiting, Rejection::Tokens));
        }
        queue.add(&mut waiting, n_prompts.len(), n_tokens);
        drop(waiting);
        let places = n_prompts.iter().map(|&n_tokens| Self {
            queue: Arc::clone(&queue),
            n_requests: 1,
            n_tokens,
            is_spare: self.is_spare,
        });
        Ok(places.collect())
    }

    /// The first step works on it: it has left the queue by its front.
    pub(super) fn start(self) {
        let n_tokens = self.n_tokens;
        let queue = Arc::clone(&self.queue);
        queue.lock().drain.note(n_tokens, Instant::now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.n_requests > 0 {
            let mut waiting = self.queue.lock();
            self.queue
                .remove(&mut waiting, self.n_requests, self.n_tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(max_requests: usize, max_tokens: usize) -> Arc<Queue> {
        let limits = QueueLimits {
            max_requests,
            max_tokens,
            timeout: None,
        };
        Queue::new(limits, Metrics::new())
    }

    fn counts(queue: &Queue) -> (usize, usize) {
        let waiting = queue.lock();
        (waiting.n_requests, waiting.n_tokens)
    }

    /// A place of a request whose tokens are counted.
    fn counted(queue: &Arc<Queue>, n_tokens: usize) -> Result<Place, EngineError> {
        let places = queue.enter(1, n_tokens)?.settle(&[n_tokens])?;
        Ok(places.into_iter().next().unwrap())
    }

    #[test]
    fn both_bounds_refuse_and_places_come_back() {
        let queue = queue(2, 100);
        let first = counted(&queue, 60).unwrap();
        assert!(queue.enter(1, 41).is_err(), "too many tokens");
        let second = counted(&queue, 40).unwrap();
        assert!(queue.enter(1, 0).is_err(), "too many requests");
        drop(first);
        assert_eq!(counts(&queue), (1, 40));
        second.start();
        assert_eq!(counts(&queue), (0, 0));
    }

    #[test]
    fn one_request_beyond_the_bound_is_served_when_it_is_alone() {
        let queue = queue(10, 100);
        let place = counted(&queue, 500).unwrap();
        assert!(queue.enter(1, 1).is_err());
        drop(place);
        assert_eq!(counts(&queue), (0, 0));
    }

    #[test]
    fn a_length_that_is_not_counted_yet_keeps_nobody_out() {
        let queue = queue(2, 100);
        let long = queue.enter(1, 500).unwrap();
        assert_eq!(counts(&queue), (1, 0));
        let other = counted(&queue, 60).unwrap();
        assert!(long.settle(&[41]).is_err(), "too many tokens");
        drop(other);
        assert_eq!(counts(&queue), (0, 0));
    }

    #[test]
    fn exact_lengths_replace_the_estimate() {
        let queue = queue(10, 100);
        let other = counted(&queue, 50).unwrap();
        let places = queue.enter(1, 5).unwrap().settle(&[20, 30]).unwrap();
        assert_eq!(counts(&queue), (3, 100));
        drop(places);
        assert!(queue.enter(1, 5).unwrap().settle(&[51]).is_err());
        assert_eq!(counts(&queue), (1, 50));
        drop(other);
        assert_eq!(counts(&queue), (0, 0));
    }

    #[test]
    fn copies_leave_half_of_the_queue_to_clients() {
        let queue = queue(4, 100);
        let copies = [queue.enter_spare().unwrap(), queue.enter_spare().unwrap()];
        assert!(queue.enter_spare().is_err(), "half is taken");
        let clients = [queue.enter(1, 0).unwrap(), queue.enter(1, 0).unwrap()];
        drop(copies);
        assert!(queue.enter_spare().is_err(), "clients have half of it");
        drop(clients);
        let long = counted(&queue, 51).unwrap();
        assert!(queue.enter_spare().is_err(), "more than half of the tokens");
        drop(long);
        assert_eq!(counts(&queue), (0, 0));
        let refused = queue.metrics.render();
        for reason in ["requests", "tokens"] {
            let none = format!("rejected_total{{reason=\"{reason}\"}} 0");
            assert!(refused.contains(&none), "{refused}");
        }
    }

    #[test]
    fn exact_lengths_of_copies_leave_half_of_the_queue_too() {
        let queue = queue(4, 100);
        let settle = |n_prompts: &[usize]| queue.enter_spare().unwrap().settle(n_prompts);
        assert!(settle(&[51]).is_err(), "even if nothing else waits");
        assert!(settle(&[1, 1, 1]).is_err(), "three requests of four");
        assert_eq!(counts(&queue), (0, 0));
        let other = counted(&queue, 20).unwrap();
        assert!(settle(&[31]).is_err());
        let places = settle(&[30]).unwrap();
        assert_eq!(counts(&queue), (2, 50));
        drop((places, other));
        assert_eq!(counts(&queue), (0, 0));
    }
}
