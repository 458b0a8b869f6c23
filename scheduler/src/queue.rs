//! The waiting sequences: the one place that adds to them and takes from them.

use crate::sequence::{Age, Waiting};
use crate::{FlowId, Priority, Scheduler};

impl Scheduler {
    pub(crate) fn enqueue(&mut self, age: Age, waiting: Waiting) {
        let (priority, flow) = (waiting.sequence.priority, waiting.sequence.flow);
        self.n_tokens_queued += waiting.sequence.tokens.len();
        self.flows[priority as usize].enter(flow, age);
        self.waiting.insert(age, waiting);
    }

    /// `None` if it does not wait.
    pub(crate) fn dequeue(&mut self, age: Age) -> Option<Waiting> {
        let waiting = self.waiting.remove(&age)?;
        let (priority, flow) = (waiting.sequence.priority, waiting.sequence.flow);
        self.n_tokens_queued -= waiting.sequence.tokens.len();
        self.flows[priority as usize].leave(flow, age);
        Some(waiting)
    }

    /// The waiting sequence of a class that is next, and the service of its flow.
    pub(crate) fn next_waiting(&self, priority: Priority) -> Option<(u64, Age)> {
        self.flows[priority as usize].next()
    }

    pub(crate) fn service(&self, priority: Priority, flow: FlowId) -> u64 {
        self.flows[priority as usize].service(flow)
    }
}
