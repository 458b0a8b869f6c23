//! Whose turn it is: the virtual service of flows, one table a priority class.
//!
//! After "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024; virtual token
//! counters), with the clock of start-time fair queueing (Goyal, Vin and Cheng, 1996): each flow
//! is charged for what is computed and drawn for it, and the one that was charged least is next.
//! A flow that comes to the queue starts behind the clock by the head start, or less where the
//! others have not been served as much since everybody was last served: so whoever asks for little
//! is served at once, and nobody saves up more than that by being idle. What a flow was charged
//! stays with it though it leaves, so that nobody escapes a debt by leaving, nor gets another head
//! start before the clock has gone as far.

use std::collections::{BTreeMap, BTreeSet};

use crate::FlowId;
use crate::sequence::Age;

#[derive(Debug, Default)]
struct Flow {
    /// Virtual service: tokens computed plus tokens drawn, or the floor where that was ahead.
    service: u64,
    /// Its waiting sequences.
    waiting: BTreeSet<Age>,
}

/// The flows of one priority class. A flow that is not listed stands at the floor.
#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    flows: BTreeMap<FlowId, Flow>,
    /// Flows with waiting sequences, by service.
    queue: BTreeSet<(u64, FlowId)>,
    /// All other listed flows, by service.
    idle: BTreeSet<(u64, FlowId)>,
    /// The least service of those that compete. It never goes back.
    clock: u64,
    /// Where a flow starts that comes: the clock less the head start, but not less than what all
    /// had when they were last served alike. It never goes back.
    floor: u64,
    /// The greatest service that any flow has reached.
    furthest: u64,
    /// Tokens.
    head_start: u64,
    /// All charges less all refunds.
    n_charged: u64,
    /// Waiting sequences of all flows.
    n_waiting: usize,
}

impl FlowTable {
    pub(crate) fn new(head_start: usize) -> Self {
        Self {
            head_start: head_start as u64,
            ..Self::default()
        }
    }

    /// A sequence of the flow begins to wait.
    pub(crate) fn enter(&mut self, id: FlowId, age: Age) {
        let floor = self.floor;
        self.change(id, |flow| {
            if flow.waiting.is_empty() {
                flow.service = flow.service.max(floor);
            }
            flow.waiting.insert(age);
        });
        self.n_waiting += 1;
    }

    /// A sequence of the flow waits no longer.
    pub(crate) fn leave(&mut self, id: FlowId, age: Age) {
        self.change(id, |flow| {
            let was_waiting = flow.waiting.remove(&age);
            assert!(was_waiting, "a sequence leaves a queue that it is not in");
        });
        self.n_waiting -= 1;
        self.forget_settled();
    }

    pub(crate) fn charge(&mut self, id: FlowId, cost: u64) {
        let floor = self.floor;
        let mut service = 0;
        self.change(id, |flow| {
            if flow.waiting.is_empty() {
                flow.service = flow.service.max(floor);
            }
            flow.service += cost;
            service = flow.service;
        });
        self.furthest = self.furthest.max(service);
        self.n_charged += cost;
    }

    /// Takes back a charge of this step, for work that is not done after all.
    pub(crate) fn refund(&mut self, id: FlowId, cost: u64) {
        self.n_charged -= cost;
        if self.flows.contains_key(&id) {
            self.change(id, |flow| flow.service = flow.service.saturating_sub(cost));
        }
    }

    pub(crate) fn n_charged(&self) -> u64 {
        self.n_charged
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.n_waiting
    }

    pub(crate) fn service(&self, id: FlowId) -> u64 {
        self.flows.get(&id).map_or(self.floor, |flow| flow.service)
    }

    /// Whether a flow was served less than those that have had their turns.
    pub(crate) fn is_behind(&self, id: FlowId) -> bool {
        self.service(id) < self.clock
    }

    /// Whether one of the flows that wait is behind.
    pub(crate) fn is_waiting_behind(&self) -> bool {
        let least = self.queue.first();
        least.is_some_and(|&(service, _)| service < self.clock)
    }

    /// The flow that waits and was served least, and its oldest waiting sequence.
    pub(crate) fn next(&self) -> Option<(u64, Age)> {
        let &(service, id) = self.queue.first()?;
        let age = self.flows[&id].waiting.first().copied();
        Some((service, age.expect("a queued flow waits")))
    }

    /// A flow with this service has its turn: time has come at least as far as the least served
    /// of those that compete.
    pub(crate) fn note_turn(&mut self, service: u64) {
        let waiting = self.queue.first().map_or(service, |&(least, _)| least);
        self.clock = self.clock.max(service.min(waiting));
        self.floor = self.floor.max(self.clock.saturating_sub(self.head_start));
        self.forget_settled();
    }

    /// Everybody has all that it wanted: nobody is owed anything, whatever the others had.
    pub(crate) fn note_all_served(&mut self) {
        if self.queue.is_empty() {
            self.clock = self.furthest;
            self.floor = self.furthest;
            self.forget_settled();
        }
    }

    /// Places a flow anew after a change, where a new one stands at the floor.
    fn change(&mut self, id: FlowId, change: impl FnOnce(&mut Flow)) {
        let floor = self.floor;
        let flow = self.flows.entry(id).or_insert_with(|| Flow {
            service: floor,
            ..Flow::default()
        });
        self.queue.remove(&(flow.service, id));
        self.idle.remove(&(flow.service, id));
        change(flow);
        let place = (flow.service, id);
        if flow.waiting.is_empty() {
            self.idle.insert(place);
        } else {
            self.queue.insert(place);
        }
    }

    /// Flows that neither wait nor owe anything need not be listed.
    fn forget_settled(&mut self) {
        while let Some(&(service, id)) = self.idle.first() {
            if service > self.floor {
                break;
            }
            self.idle.pop_first();
            self.flows.remove(&id);
        }
    }

    /// Every waiting sequence, recounted; an error if the table disagrees with itself.
    pub(crate) fn check(&self) -> Result<BTreeMap<Age, FlowId>, String> {
        let mut waiting = BTreeMap::new();
        for (&id, flow) in &self.flows {
            let place = (flow.service, id);
            let queued = self.queue.contains(&place);
            if queued == flow.waiting.is_empty() || self.idle.contains(&place) == queued {
                return Err(format!("{id} is in the wrong place"));
            }
            waiting.extend(flow.waiting.iter().map(|age| (*age, id)));
        }
        if waiting.len() != self.n_waiting {
            return Err(format!("{} wait, not {}", waiting.len(), self.n_waiting));
        }
        if self.floor > self.clock || self.clock > self.furthest {
            return Err("floor, clock and the furthest are out of order".to_owned());
        }
        if self.queue.len() + self.idle.len() != self.flows.len() {
            return Err("flows are placed that are not listed".to_owned());
        }
        Ok(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FlowId = FlowId(1);
    const B: FlowId = FlowId(2);

    fn age(arrival: u64) -> Age {
        Age { arrival, index: 0 }
    }

    #[test]
    fn the_least_served_is_next() {
        let mut table = FlowTable::default();
        table.enter(A, age(0));
        table.enter(A, age(1));
        table.enter(B, age(2));
        assert_eq!(table.next(), Some((0, age(0))));
        table.charge(A, 5);
        assert_eq!(table.next(), Some((0, age(2))));
        table.charge(B, 6);
        assert_eq!(table.next(), Some((5, age(0))));
        table.refund(B, 6);
        assert_eq!(table.next(), Some((0, age(2))));
        table.check().unwrap();
    }

    #[test]
    fn idling_earns_nothing_and_leaving_pays_nothing() {
        let mut table = FlowTable::default();
        table.enter(A, age(0));
        table.charge(A, 100);
        table.note_turn(100);
        table.enter(B, age(1));
        assert_eq!(table.service(B), 100, "B starts at the clock");
        table.charge(B, 50);
        table.leave(B, age(1));
        table.enter(B, age(2));
        assert_eq!(table.service(B), 150, "B comes back with its debt");
        table.note_turn(100);
        assert_eq!(table.next(), Some((100, age(0))));
    }

    #[test]
    fn a_head_start_is_had_once() {
        let mut table = FlowTable::new(30);
        table.enter(A, age(0));
        table.charge(A, 10);
        table.note_turn(10);
        assert_eq!(table.service(B), 0, "no more than A was served");
        table.charge(A, 90);
        table.note_turn(100);
        assert!(!table.is_behind(A) && table.is_behind(B) && !table.is_waiting_behind());
        table.enter(B, age(1));
        assert!(table.is_waiting_behind());
        assert_eq!(table.next(), Some((70, age(1))));
        table.charge(B, 30);
        table.leave(B, age(1));
        table.note_turn(100);
        table.enter(B, age(2));
        assert_eq!(table.service(B), 100, "it is used up");
        table.leave(B, age(2));
        table.charge(A, 100);
        table.note_turn(200);
        assert_eq!(table.service(B), 170, "A was served as much since");
        table.check().unwrap();
    }

    #[test]
    fn without_competition_nobody_is_owed_anything() {
        let mut table = FlowTable::default();
        table.charge(A, 1_000);
        table.note_all_served();
        assert!(table.flows.is_empty());
        table.enter(B, age(0));
        table.enter(A, age(1));
        assert_eq!(table.service(A), table.service(B));
    }
}
