//! Sequences whose answers must match a grammar.
//!
//! The state lives here and not with the scheduler: it follows the tokens of a sequence, which a
//! preemption does not change. A sequence whose grammar fails, fails alone.

use std::collections::HashMap;

use scheduler::{Batch, Event, Request, RequestId, Sampled, Scheduler, SequenceId, TokenId};

use super::masks::State;
use crate::grammar::{CANNOT_GO_ON, Constraint};

/// Tokens that one sequence is forced on by after a step.
const MAX_FORCED: usize = 64;
/// Bytes for which what must come next is looked for after a step, in all sequences together. Where
/// that is too little, it is looked for when the next mask is computed.
const MAX_WALKED: usize = 1024;

/// One constraint for each unfinished sequence that has one.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    by_sequence: HashMap<SequenceId, State>,
}

impl Constraints {
    /// Every choice of the request begins where `constraint` stands.
    pub(super) fn open(&mut self, request: &Request, constraint: &Constraint) {
        for index in 0..request.n {
            let sequence = SequenceId {
                request: request.id,
                index,
            };
            self.by_sequence
                .insert(sequence, State::new(constraint.clone()));
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

    /// Tells a batch how to find what may be drawn.
    pub(super) fn fill(&self, batch: &mut Batch) {
        if self.is_empty() {
            return;
        }
        for row in &mut batch.rows {
            if let (Some(spec), Some(state)) =
                (&mut row.sample, self.by_sequence.get(&row.sequence))
            {
                spec.allowed = Some(state.look_up(&spec.banned));
            }
        }
    }

    /// Goes on by what was drawn. Rows whose grammar has failed are failed rows.
    pub(super) fn advance(&mut self, results: &mut [Sampled]) {
        if self.is_empty() {
            return;
        }
        for result in results {
            let Some(state) = self.by_sequence.get(&result.sequence) else {
                continue;
            };
            if let Some(drawn) = &result.token {
                state.accept(drawn.token);
            }
            if let Some(message) = &state.lock().failed {
                result.token = None;
                result.scored.clear();
                result.failed = Some(format!("{CANNOT_GO_ON}{message}"));
            }
        }
    }

    /// Appends to each sequence that has drawn what its grammar leaves no choice about. This is a
    /// bounded amount of work: what is left has its turn when the sequence has drawn again.
    pub(super) fn force(&mut self, scheduler: &mut Scheduler, events: &mut Vec<Event>) {
        if self.is_empty() {
            return;
        }
        let drawn = events.iter().filter_map(|event| match event {
            Event::Token { sequence, .. } => Some(*sequence),
            _ => None,
        });
        let mut n_walked = 0;
        for sequence in drawn.collect::<Vec<_>>() {
            let mut n_left = MAX_FORCED;
            // What follows the last of forced tokens may be forced as well, such as the end.
            while n_left > 0
                && n_walked < MAX_WALKED
                && scheduler.may_force(sequence)
                && let Some(state) = self.by_sequence.get(&sequence)
            {
                let tokens = state.with(|progress| {
                    let before = progress.constraint.n_walked();
                    let tokens = progress.constraint.forced().iter().copied();
                    let tokens: Vec<TokenId> = tokens.take(n_left).collect();
                    n_walked += progress.constraint.n_walked() - before;
                    tokens
                });
                let forced = scheduler.force(sequence, &tokens.unwrap_or_default());
                if forced.is_empty() {
                    break;
                }
                n_left = n_left.saturating_sub(forced.len());
                self.accept_all(&forced);
                self.note(&forced);
                events.extend(forced);
            }
        }
    }

    fn accept_all(&self, events: &[Event]) {
        for event in events {
            if let Event::Token { sequence, token } = event
                && let Some(state) = self.by_sequence.get(sequence)
            {
                state.accept(token.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use scheduler::{BatchRow, SamplingParams, SchedulerConfig};

    use super::*;
    use crate::grammar::{Grammar, walk::compiler};

    const CONFIG: SchedulerConfig = SchedulerConfig {
        block_size: 4,
        n_blocks: 64,
        max_batched_tokens: 200,
        max_sequences: 8,
        max_model_len: 200,
        window: None,
        prefix_cache: false,
        fairness: true,
        head_start: 0,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    };

    /// Sequences of one grammar, and what they draw: the first token that may come.
    struct World {
        scheduler: Scheduler,
        constraints: Constraints,
    }

    impl World {
        fn new(regex: &str, all: impl IntoIterator<Item = SamplingParams>) -> Self {
            let (compiler, _) = compiler();
            let grammar = Grammar::Regex(regex.to_owned());
            let constraint = compiler.compile(&grammar).unwrap();
            let mut world = Self {
                scheduler: Scheduler::new(CONFIG).unwrap(),
                constraints: Constraints::default(),
            };
            for (id, sampling) in (1..).zip(all) {
                let request = Request {
                    sampling: Arc::new(sampling),
                    ..Request::new(RequestId(id), [5, 6].into(), 150)
                };
                world.constraints.open(&request, &constraint);
                world.scheduler.submit(request).unwrap();
            }
            world
        }

        fn step(&mut self) -> Vec<Event> {
            let mut batch = self.scheduler.begin_step().unwrap();
            self.constraints.fill(&mut batch);
            let draw = |row: &BatchRow| {
                let allowed = row.sample.as_ref().and_then(|spec| spec.allowed.clone());
                let words = allowed.as_deref().unwrap_or(&[1]);
                let some = (0_u32..).zip(words).find(|(_, word)| **word != 0);
                // Nothing is allowed to what has failed.
                let token = some.map_or(0, |(i, word)| i * 32 + word.trailing_zeros());
                Sampled::drawn(row, token)
            };
            let mut sampled: Vec<Sampled> = batch.rows.iter().map(draw).collect();
            self.constraints.advance(&mut sampled);
            let mut events = self.scheduler.end_step(sampled);
            self.constraints.note(&events);
            self.constraints.force(&mut self.scheduler, &mut events);
            events
        }

        fn with<T>(&self, id: u64, look: impl FnOnce(&mut Constraint) -> T) -> T {
            let state = &self.constraints.by_sequence[&sequence(id)];
            look(&mut state.lock().constraint)
        }
    }

    fn sequence(id: u64) -> SequenceId {
        SequenceId {
            request: RequestId(id),
            index: 0,
        }
    }

    fn n_tokens(events: &[Event], id: u64) -> usize {
        let own = |event: &&Event| match event {
            Event::Token { sequence: one, .. } => *one == sequence(id),
            _ => false,
        };
        events.iter().filter(own).count()
    }

    #[test]
    fn a_panic_is_a_failure_of_its_own_sequence() {
        let drawn = [SamplingParams::default(), SamplingParams::default()];
        let mut world = World::new("(a|b)(c|d){3}efg(h|i)", drawn);
        assert_eq!(n_tokens(&world.step(), 2), 1);
        world.with(2, Constraint::panic_from_now_on);
        let events = world.step();
        let failed = events.iter().find_map(|event| match event {
            Event::Finished { failure, .. } => failure.clone(),
            _ => None,
        });
        assert!(failed.unwrap().contains("it cannot be matched"));
        assert_eq!((n_tokens(&events, 1), n_tokens(&events, 2)), (1, 0));
        while world.scheduler.crowd().n_streaming > 0 {
            let events = world.step();
            let fails = |event: &Event| {
                matches!(
                    event,
                    Event::Finished {
                        failure: Some(_),
                        ..
                    }
                )
            };
            assert!(!events.iter().any(fails), "{events:?}");
        }
        assert!(world.constraints.is_empty());
    }

    /// What a step does is bounded, whatever a grammar forces, and goes on with the next.
    #[test]
    fn long_runs_are_forced_in_many_steps() {
        let drawn = SamplingParams::default();
        let scored = SamplingParams {
            logprobs: Some(0),
            ..SamplingParams::default()
        };
        let mut world = World::new("(a|b)(xy z){4000}", [drawn, scored]);
        let mut n_all = 0;
        for i in 0..2 {
            let events = world.step();
            // Whoever draws each of its tokens has nothing looked for before it is needed.
            let is_looked_for = world.with(2, |constraint| constraint.has_looked_ahead());
            assert_eq!((n_tokens(&events, 2), is_looked_for), (1, i > 0));
            let n = n_tokens(&events, 1);
            assert!((2..=1 + MAX_FORCED).contains(&n), "{n}");
            n_all += n;
        }
        assert!(n_all > MAX_FORCED, "{n_all}");
    }

    /// Others wait for what is looked for after a step, so this is counted: whatever eight
    /// sequences may be forced to, it is a few microseconds for each.
    #[test]
    fn what_many_are_forced_to_is_bounded_in_each_step() {
        for regex in [
            "(a|b)x{40000}",
            "(a|b)(xy z){4000}",
            "(a|b)(c(d|e)fgh){1000}",
        ] {
            let mut world = World::new(regex, vec![SamplingParams::default(); 8]);
            // No answer is at its end after two.
            for _ in 0..2 {
                let walked = |world: &World| -> usize {
                    (1..=8).map(|id| world.with(id, |c| c.n_walked())).sum()
                };
                let before = walked(&world);
                let events = world.step();
                let n_walked = walked(&world) - before;
                // The last walk may begin below the bound. Masks have one each, beside others.
                let most = MAX_WALKED + (8 + 1) * (256 + 8);
                assert!(n_walked <= most, "{regex}: {n_walked}");
                for id in 1..=8 {
                    // None, if the others' tokens have filled the step.
                    let n = n_tokens(&events, id);
                    assert!(n <= 1 + MAX_FORCED, "{regex}: {n}");
                }
            }
        }
    }
}
