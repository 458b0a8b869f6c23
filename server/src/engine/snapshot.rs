//! What an engine is doing at a step boundary, for people who look into it.

use scheduler::{Scheduler, SequenceId, SequenceState, Stats};
use tokio::time::Instant;

use super::ledger::Ledger;

/// The scheduler's figures, and every unfinished request.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub stats: Stats,
    /// In the order of their numbers, which is that of their coming.
    pub requests: Vec<RequestSnapshot>,
}

/// An unfinished request.
#[derive(Clone, Debug)]
pub struct RequestSnapshot {
    pub number: u64,
    /// What its client knows it by; `None`: it has none, such as a copy.
    pub id: Option<String>,
    pub tenant: String,
    pub adapter: Option<String>,
    pub age_ms: u64,
    pub n_prompt: u64,
    pub n_generated: u64,
    /// Sequences by what they do.
    pub n_running: u32,
    pub n_waiting: u32,
}

/// Takes one.
pub(super) fn take(scheduler: &Scheduler, ledger: &Ledger) -> Snapshot {
    let now = Instant::now();
    let mut requests: Vec<RequestSnapshot> = ledger
        .entries()
        .map(|(id, entry)| {
            let states = (0..entry.n_sequences()).filter_map(|index| {
                let id = SequenceId { request: id, index };
                scheduler.state(id)
            });
            let states: Vec<SequenceState> = states.collect();
            let n_running = states
                .iter()
                .filter(|s| **s == SequenceState::Running)
                .count();
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let age = now.saturating_duration_since(entry.submitted());
            RequestSnapshot {
                number: id.0,
                id: entry.request_id(),
                tenant: entry.tenant().label().to_owned(),
                adapter: entry.adapter(),
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                n_prompt: entry.n_prompt(),
                n_generated: entry.n_generated(),
                n_running: count(n_running),
                n_waiting: count(states.len() - n_running),
            }
        })
        .collect();
    requests.sort_by_key(|request| request.number);
    Snapshot {
        stats: scheduler.stats(),
        requests,
    }
}
