//! `end_step` and `fail_step`: what came of the oldest batch in flight.

use crate::flight::FlightRow;
use crate::sequence::Age;
use crate::{Event, FinishReason, Sampled, SampledToken, Scheduler, SequenceId, TokenLogprobs};

impl Scheduler {
    /// Takes the results of the oldest batch in flight, one a row and in its order, and tells what
    /// happened. The events of a sequence are in order and end with `Finished`. A row that failed
    /// alone ends its sequence, and none of the blocks it was to write is ever shared. Results of
    /// sequences that have ended meanwhile are not looked at.
    ///
    /// # Panics
    /// If no step is in flight, or if the results do not answer its rows. Nothing has changed
    /// then, and [`fail_step`](Self::fail_step) may still be called.
    pub fn end_step(&mut self, sampled: Vec<Sampled>) -> Vec<Event> {
        self.assert_answers(&sampled);
        let flight = self.flights.pop_front().unwrap_or_default();
        self.counters.n_steps += 1;
        let mut events = Vec::new();
        for (row, sampled) in flight.into_iter().zip(sampled) {
            if !row.is_void {
                self.settle(&row, sampled, &mut events);
            }
            self.store.free(row.kept);
        }
        events
    }

    /// The oldest batch in flight could not be computed: its sequences end as failed (or
    /// cancelled, if that was asked for), and none of the blocks it was to write is ever shared.
    /// All others go on.
    ///
    /// # Panics
    /// If no step is in flight.
    pub fn fail_step(&mut self) -> Vec<Event> {
        let flight = self.flights.pop_front().expect("no step is in flight");
        self.counters.n_failed_steps += 1;
        let mut events = Vec::new();
        for row in flight {
            if !row.is_void {
                events.push(self.fail(row.age, None));
            }
            self.store.free(row.kept);
        }
        events
    }

    fn fail(&mut self, age: Age, failure: Option<String>) -> Event {
        if self.running[&age].cancelled {
            self.finish_running(age, FinishReason::Cancelled, None)
        } else {
            self.finish_running(age, FinishReason::Failed, failure)
        }
    }

    fn assert_answers(&self, sampled: &[Sampled]) {
        let flight = self.flights.front().expect("no step is in flight");
        assert_eq!(sampled.len(), flight.len(), "one result a row");
        for (row, sampled) in flight.iter().zip(sampled) {
            let id = row.id;
            assert_eq!(sampled.sequence, id, "results come in the order of rows");
            let answers = if sampled.failed.is_some() || sampled.postponed {
                (false, false, 0)
            } else {
                (row.samples, row.pools, row.n_scored)
            };
            let (token, vector) = (sampled.token.is_some(), sampled.pooled.is_some());
            let given = (token, vector, sampled.scored.len());
            assert!(
                row.is_void || given == answers,
                "token, vector and scores of {id}: {given:?}, not {answers:?}"
            );
        }
    }

    fn settle(&mut self, row: &FlightRow, sampled: Sampled, events: &mut Vec<Event>) {
        let age = row.age;
        let running = self.running.get_mut(&age).expect("rows in flight run on");
        let id = running.sequence.id;
        if let Some(failure) = sampled.failed {
            // What it has computed is not trusted: nothing more is registered for others.
            self.counters.n_failed_rows += 1;
            events.push(self.fail(age, Some(failure)));
            return;
        }
        if sampled.postponed {
            return self.settle_postponed(age, events);
        }
        self.counters.n_tokens_computed += row.n_tokens as u64;
        running.n_computed += row.n_tokens;
        running.n_in_flight -= row.n_tokens;
        running.n_pending -= usize::from(row.samples);
        let (n_computed, cancelled) = (running.n_computed, running.cancelled);
        let prompt_computed = n_computed >= running.sequence.n_prompt;
        let computed = &running.sequence.tokens[..n_computed];
        let mut given_up = self.store.register(&mut running.table, computed);
        given_up.extend(self.store.drop_behind(&mut running.table, n_computed));
        self.give_back(age, given_up);

        // Scores and sums are the request's: they count even if the choice that computed them is
        // gone.
        self.report_scores(id, sampled.scored, events);
        self.report_pooled(id, n_computed, sampled.pooled, events);
        if prompt_computed {
            self.release_held(id);
        }
        if cancelled {
            events.push(self.finish_running(age, FinishReason::Cancelled, None));
            return;
        }
        if let Some(token) = sampled.token {
            self.append(age, token, events);
        }
        if let Some(reason) = self.finish_reason(age) {
            events.push(self.finish_running(age, reason, None));
        }
    }

    /// Everything in flight of a sequence counts for nothing, and its next token is not run ahead
    /// of.
    fn settle_postponed(&mut self, age: Age, events: &mut Vec<Event>) {
        self.make_void(age);
        let running = self.running.get_mut(&age).expect("rows in flight run on");
        if running.cancelled {
            events.push(self.finish_running(age, FinishReason::Cancelled, None));
            return;
        }
        running.n_in_flight = 0;
        running.n_pending = 0;
        running.sequence.is_awaited = true;
        let n_blocks = self.store.n_blocks_for(running.n_computed);
        let cut = running.table.cut(n_blocks);
        self.give_back(age, cut);
    }

    fn report_scores(
        &mut self,
        id: SequenceId,
        logprobs: Vec<TokenLogprobs>,
        events: &mut Vec<Event>,
    ) {
        if logprobs.is_empty() {
            return;
        }
        let request = id.request;
        let live = self
            .requests
            .get_mut(&request)
            .expect("a live sequence has a request");
        live.n_scored += logprobs.len();
        events.push(Event::PromptScored { request, logprobs });
    }

    /// Keeps the sum up to `n_computed` positions, or tells the vector when it is complete.
    fn report_pooled(
        &mut self,
        id: SequenceId,
        n_computed: usize,
        pooled: Option<Vec<f64>>,
        events: &mut Vec<Event>,
    ) {
        let Some(pooled) = pooled else {
            return;
        };
        let request = id.request;
        let live = self
            .requests
            .get_mut(&request)
            .expect("a live sequence has a request");
        live.pooled.n_positions = n_computed;
        live.pooled.sum = pooled.into();
        if live.n_unpooled(id.index) == 0 {
            let vector = std::mem::take(&mut live.pooled.sum);
            events.push(Event::Pooled { request, vector });
        }
    }

    /// The prompt's blocks are registered: the other choices may share them.
    fn release_held(&mut self, id: SequenceId) {
        let live = self
            .requests
            .get_mut(&id.request)
            .expect("a live sequence has a request");
        live.prompt_computed = true;
        let held = std::mem::take(&mut live.held);
        let opened: Vec<_> = held
            .into_iter()
            .map(|index| (live.age(index), live.open(index)))
            .collect();
        for (age, waiting) in opened {
            self.n_held -= 1;
            self.n_tokens_queued -= waiting.sequence.tokens.len();
            self.enqueue(age, waiting);
        }
    }

    fn append(&mut self, age: Age, token: SampledToken, events: &mut Vec<Event>) {
        let running = self.running.get_mut(&age).expect("rows in flight run on");
        running.sequence.tokens.push(token.token);
        running.sequence.n_tail = 1;
        events.push(Event::Token {
            sequence: running.sequence.id,
            token,
        });
    }

    /// Whether a sequence whose step has just been settled has ended.
    pub(crate) fn finish_reason(&self, age: Age) -> Option<FinishReason> {
        let running = &self.running[&age];
        let sequence = &running.sequence;
        let request = &self.requests[&sequence.id.request].request;
        let output = &sequence.tokens[sequence.n_prompt..];
        if output
            .last()
            .is_some_and(|last| request.stop_tokens.contains(last))
        {
            return Some(FinishReason::Stop);
        }
        // A sequence that draws nothing has all its tokens from the start, and ends when they
        // are computed.
        let is_full = sequence.tokens.len() == sequence.max_tokens;
        let is_done = !output.is_empty() || running.n_computed == sequence.tokens.len();
        (is_full && is_done).then_some(FinishReason::Length)
    }
}
