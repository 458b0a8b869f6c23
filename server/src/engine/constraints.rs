//! Sequences whose answers must match a grammar.
//!
//! The state lives here and not with the scheduler: it follows the tokens of a sequence, which a
//! preemption does not change. A sequence whose grammar fails, fails alone.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use scheduler::{Batch, Event, Request, RequestId, Sampled, Scheduler, SequenceId, TokenId};

use crate::grammar::{CANNOT_GO_ON, Constraint};

/// One constraint for each unfinished sequence that has one.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    by_sequence: HashMap<SequenceId, State>,
}

#[derive(Debug)]
enum State {
    Matching(Box<Constraint>),
    /// Why it cannot go on.
    Failed(String),
}

impl Constraints {
    /// Every choice of the request begins where `constraint` stands.
    pub(super) fn open(&mut self, request: &Request, constraint: &Constraint) {
        for index in 0..request.n {
            let sequence = SequenceId {
                request: request.id,
                index,
            };
            let state = State::Matching(Box::new(constraint.clone()));
            self.by_sequence.insert(sequence, state);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_sequence.is_empty()
    }

    /// The client is gone.
    pub(super) fn forget(&mut self, request: RequestId) {
        if !self.is_empty() {
            self.by_sequence
                .retain(|sequence, _| sequence.request != request);
        }
    }

    /// Drops the states of sequences that have finished.
    pub(super) fn note(&mut self, events: &[Event]) {
        if self.is_empty() {
            return;
        }
        for event in events {
            if let Event::Finished { sequence, .. } = event {
                self.by_sequence.remove(sequence);
            }
        }
    }

    /// Finds what the rows of a batch may draw, on all cores: a mask takes a good part of a
    /// millisecond, and the step waits for all of them.
    fn compute(&mut self, batch: &Batch) {
        let drawing = batch.rows.iter().filter(|row| row.sample.is_some());
        let drawing: HashSet<SequenceId> = drawing.map(|row| row.sequence).collect();
        let states = self.by_sequence.iter_mut();
        let mut matching: Vec<&mut Constraint> = states
            .filter(|(sequence, _)| drawing.contains(sequence))
            .filter_map(|(_, state)| match state {
                State::Matching(constraint) => Some(&mut **constraint),
                State::Failed(_) => None,
            })
            .collect();
        if matching.len() > 1 {
            // What fails is kept, and told where its row is filled.
            matching.par_iter_mut().for_each(|constraint| {
                constraint.allowed().ok();
            });
        }
    }

    /// Tells a batch what may be drawn.
    pub(super) fn fill(&mut self, batch: &mut Batch) {
        if self.is_empty() {
            return;
        }
        self.compute(batch);
        for row in &mut batch.rows {
            let (Some(state), Some(spec)) =
                (self.by_sequence.get_mut(&row.sequence), &mut row.sample)
            else {
                continue;
            };
            let State::Matching(constraint) = state else {
                continue;
            };
            match constraint.allowed() {
                Ok(allowed) if is_any_left(&allowed, &spec.banned) => spec.allowed = Some(allowed),
                Ok(_) => {
                    let message = "it is at its end before 'min_tokens'";
                    *state = State::Failed(message.to_owned());
                }
                Err(message) => *state = State::Failed(message),
            }
        }
    }

    /// Goes on by what was drawn. Rows whose grammar has failed are failed rows.
    pub(super) fn advance(&mut self, results: &mut [Sampled]) {
        if self.is_empty() {
            return;
        }
        for result in results {
            let Some(state) = self.by_sequence.get_mut(&result.sequence) else {
                continue;
            };
            if let Some(drawn) = &result.token {
                state.accept(drawn.token);
            }
            if let State::Failed(message) = state {
                result.token = None;
                result.scored.clear();
                result.failed = Some(format!("{CANNOT_GO_ON}{message}"));
            }
        }
    }

    /// Appends to each sequence that has drawn what its grammar leaves no choice about.
    pub(super) fn force(&mut self, scheduler: &mut Scheduler, events: &mut Vec<Event>) {
        if self.is_empty() {
            return;
        }
        let drawn = events.iter().filter_map(|event| match event {
            Event::Token { sequence, .. } => Some(*sequence),
            _ => None,
        });
        for sequence in drawn.collect::<Vec<_>>() {
            // What follows the last of forced tokens may be forced as well, such as the end.
            while let Some(State::Matching(constraint)) = self.by_sequence.get_mut(&sequence) {
                let tokens: Vec<TokenId> = constraint.forced().iter().copied().collect();
                let forced = scheduler.force(sequence, &tokens);
                if forced.is_empty() {
                    break;
                }
                self.accept_all(&forced);
                self.note(&forced);
                events.extend(forced);
            }
        }
    }

    fn accept_all(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Token { sequence, token } = event
                && let Some(state) = self.by_sequence.get_mut(sequence)
            {
                state.accept(token.token);
            }
        }
    }
}

impl State {
    fn accept(&mut self, token: TokenId) {
        if let Self::Matching(constraint) = self
            && let Err(message) = constraint.accept(token)
        {
            *self = Self::Failed(message);
        }
    }
}

/// Whether anything is allowed that is not banned.
fn is_any_left(allowed: &[u32], banned: &[TokenId]) -> bool {
    if banned.is_empty() {
        return true;
    }
    allowed.iter().zip(0_u32..).any(|(word, i)| {
        let lost = banned.iter().filter(|id| **id / 32 == i);
        word & !lost.fold(0, |bits, id| bits | 1 << (id % 32)) != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_may_leave_nothing() {
        assert!(is_any_left(&[0], &[]));
        assert!(!is_any_left(&[0b100, 0], &[2]));
        assert!(is_any_left(&[0b110, 0], &[2]));
        assert!(is_any_left(&[0b100, 1], &[2]));
        assert!(!is_any_left(&[0b100, 1], &[32, 2]));
    }
}
