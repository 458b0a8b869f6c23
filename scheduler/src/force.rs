//! Tokens that need no draw: whoever runs the engine knows what must come next.

use crate::{Event, SampledToken, Scheduler, SequenceId, TokenId};

impl Scheduler {
    /// Whether [`force`](Self::force) could append anything, whatever the tokens.
    pub fn may_force(&self, id: SequenceId) -> bool {
        let live = self.requests.get(&id.request);
        live.is_some_and(|live| {
            let running = self.running.get(&live.age(id.index));
            !live.request.sampling.needs_every_draw()
                && running.is_some_and(|running| {
                    running.sequence.n_generated() > 0 && running.is_streaming()
                })
        })
    }

    /// Appends `tokens` to a sequence that has just drawn one, as if it had drawn them as well. The
    /// next steps compute them in one row, as far as there are tokens and blocks for it, and draw
    /// at its end.
    ///
    /// A stop token ends the sequence here as it does when it is drawn, and so does its length.
    /// Before a stop token that may not come yet (`min_new_tokens`) nothing more is appended. What
    /// was appended is what the events tell. Nothing is, where the sequence has ended, or where
    /// [every token must be drawn](crate::SamplingParams::needs_every_draw).
    ///
    /// # Panics
    /// If a row of the sequence is in flight.
    pub fn force(&mut self, id: SequenceId, tokens: &[TokenId]) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(live) = self.requests.get(&id.request) else {
            return events;
        };
        let age = live.age(id.index);
        let is_drawn = live.request.sampling.needs_every_draw();
        for &token in tokens {
            let Some(running) = self.running.get_mut(&age).filter(|_| !is_drawn) else {
                break;
            };
            assert!(running.n_in_flight == 0, "a row of {id} is in flight");
            let request = &self.requests[&id.request].request;
            let n_generated = running.sequence.n_generated();
            let is_stop = request.stop_tokens.contains(&token);
            let is_banned = is_stop && n_generated < request.min_new_tokens as usize;
            if n_generated == 0 || !running.is_streaming() || is_banned {
                break;
            }
            running.sequence.tokens.push(token);
            running.sequence.n_tail += 1;
            self.counters.n_tokens_forced += 1;
            events.push(Event::Token {
                sequence: id,
                token: SampledToken {
                    token,
                    logprobs: None,
                },
            });
            if let Some(reason) = self.finish_reason(age) {
                events.push(self.finish_running(age, reason, None));
            }
        }
        events
    }
}
