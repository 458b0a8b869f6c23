//! Who competes for the next step, for those who decide how long it may become.

use crate::flow::FlowTable;
use crate::sequence::Sequence;
use crate::{Priority, Scheduler};

/// Who competes for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Sequences that draw their next token as soon as what came last is computed: one token, or
    /// more where some were forced.
    pub n_streaming: usize,
    /// Sequences with more than that before them, or that could be admitted, batch work apart.
    pub n_prompting: usize,
    /// Whether a prompt is among them of a flow that was served less than others have been:
    /// somebody who waits though it asked for little.
    pub is_behind: bool,
}

impl Scheduler {
    /// Who competes for the next step. Takes time in proportion to the running sequences.
    pub fn crowd(&self) -> Crowd {
        let n_seats = self.config.max_rows() - self.running.len();
        let regular = || {
            let flows = self.flows.iter().zip(Priority::ALL);
            flows.filter_map(|(flows, priority)| (priority != Priority::Batch).then_some(flows))
        };
        let n_waiting: usize = regular().map(FlowTable::n_waiting).sum();
        let mut crowd = Crowd {
            n_streaming: 0,
            n_prompting: n_waiting.min(n_seats),
            is_behind: n_seats > 0 && regular().any(FlowTable::is_waiting_behind),
        };
        for running in self.running.values() {
            let Sequence { priority, flow, .. } = running.sequence;
            if running.is_streaming() {
                crowd.n_streaming += 1;
            } else if priority != Priority::Batch {
                crowd.n_prompting += 1;
                crowd.is_behind |= self.flows[priority as usize].is_behind(flow);
            }
        }
        crowd
    }
}
