//! How sequences end: by themselves, by cancellation, and what becomes of their request.

use crate::sequence::Age;
use crate::{Event, FinishReason, RequestId, Scheduler, SequenceId};

impl Scheduler {
    /// Ends all sequences of a request. See [`cancel_sequence`](Self::cancel_sequence).
    pub fn cancel(&mut self, request: RequestId) -> Vec<Event> {
        let n = self.requests.get(&request).map_or(0, |live| live.request.n);
        // The last choice first: so none is made the leader of a request that is to end.
        let mut events: Vec<Event> = (0..n)
            .rev()
            .filter_map(|index| self.cancel_sequence(SequenceId { request, index }))
            .collect();
        events.reverse();
        events
    }

    /// Ends one choice of a request, the others go on.
    ///
    /// A sequence of a batch in flight ends when that step does: its `Finished` event comes
    /// from [`end_step`](Self::end_step) or [`fail_step`](Self::fail_step), and no token of it
    /// in between. Any other ends at once, which the returned event tells. Cancelling what has
    /// ended already, or never was, does nothing.
    pub fn cancel_sequence(&mut self, id: SequenceId) -> Option<Event> {
        let live = self.requests.get_mut(&id.request)?;
        let age = live.age(id.index);
        if live.held.remove(&id.index) {
            self.n_held -= 1;
            self.n_tokens_queued -= live.request.prompt.len();
            return Some(self.finish(id, FinishReason::Cancelled, None));
        }
        if self.dequeue(age).is_some() {
            return Some(self.finish(id, FinishReason::Cancelled, None));
        }
        let running = self.running.get_mut(&age)?;
        if running.n_in_flight > 0 {
            running.cancelled = true;
            return None;
        }
        Some(self.finish_running(age, FinishReason::Cancelled, None))
    }

    /// Ends a running sequence and frees its blocks.
    pub(crate) fn finish_running(
        &mut self,
        age: Age,
        reason: FinishReason,
        failure: Option<String>,
    ) -> Event {
        let running = self
            .running
            .remove(&age)
            .expect("only a running sequence ends so");
        self.make_void(age);
        self.give_back(age, running.table.into_given_up());
        self.finish(running.sequence.id, reason, failure)
    }

    /// Strikes a sequence, which owns nothing any more, off its request.
    fn finish(
        &mut self,
        sequence: SequenceId,
        reason: FinishReason,
        failure: Option<String>,
    ) -> Event {
        let live = self
            .requests
            .get_mut(&sequence.request)
            .expect("a live sequence has a request");
        let n_cached_tokens = live.n_cached.unwrap_or(0) as u32;
        live.n_unfinished -= 1;
        if self.elder.age == Some(live.age(sequence.index)) {
            self.elder.age = None;
        }
        if live.n_unfinished == 0 {
            self.requests.remove(&sequence.request);
        } else if sequence.index == live.leader && !live.prompt_computed {
            // The next choice takes over the prompt, and its scores where they stopped.
            let next = live
                .held
                .pop_first()
                .expect("the others wait for the leader");
            live.leader = next;
            let (age, waiting) = (live.age(next), live.open(next));
            self.n_held -= 1;
            self.n_tokens_queued -= waiting.sequence.tokens.len();
            self.enqueue(age, waiting);
        }
        Event::Finished {
            sequence,
            reason,
            n_cached_tokens,
            failure,
        }
    }
}
