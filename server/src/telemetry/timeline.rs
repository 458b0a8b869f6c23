//! When a request came to each of its phases. The HTTP side begins it, the engine and the
//! detokenizer write into it, and whoever tells of the request at its end reads it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A request's times and counts; of several prompts, all together.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    request_id: String,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    model: Option<String>,
    adapter: Option<String>,
    submitted: Option<Instant>,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    detokenizing: Duration,
    n_prompt: u64,
    n_cached: u64,
    n_generated: u64,
    failure: Option<String>,
}

/// What a request's time went into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    pub(crate) model: Option<String>,
    pub(crate) adapter: Option<String>,
    pub(crate) submitted: Option<Instant>,
    /// From submission to the first step.
    pub(crate) queue: Duration,
    /// From there to the first token.
    pub(crate) prefill: Duration,
    /// From there to the last token.
    pub(crate) decode: Duration,
    /// Making text of tokens, beside all these.
    pub(crate) detokenize: Duration,
    pub(crate) n_prompt: u64,
    pub(crate) n_cached: u64,
    pub(crate) n_generated: u64,
    /// The code of the error that a stream ended with, empty if it has none.
    pub(crate) failure: Option<String>,
}

impl Timeline {
    /// Of the request that its client knows by this id.
    pub(crate) fn of(request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            times: Mutex::default(),
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request calls the model.
    pub(crate) fn note_model(&self, name: &str) {
        self.times().model = Some(name.to_owned());
    }

    pub(crate) fn note_adapter(&self, name: &str) {
        self.times().adapter = Some(name.to_owned());
    }

    pub(crate) fn note_submitted(&self, n_prompt: usize) {
        let mut times = self.times();
        times.submitted.get_or_insert_with(Instant::now);
        times.n_prompt += n_prompt as u64;
    }

    pub(crate) fn note_started(&self) {
        self.times().started.get_or_insert_with(Instant::now);
    }

    pub(crate) fn note_token(&self, now: Instant) {
        let mut times = self.times();
        times.first_token.get_or_insert(now);
        times.last_token = Some(now);
        times.n_generated += 1;
    }

    /// The answer, which had begun as a success, ends with an error.
    pub(crate) fn note_failed(&self, code: &str) {
        self.times().failure.get_or_insert_with(|| code.to_owned());
    }

    /// Choices of one prompt share what was cached of it.
    pub(crate) fn note_cached(&self, n: u32) {
        let mut times = self.times();
        times.n_cached = times.n_cached.max(u64::from(n));
    }

    pub(crate) fn note_detokenized(&self, took: Duration) {
        self.times().detokenizing += took;
    }

    /// The phases that the request has come through.
    pub(crate) fn phases(&self) -> Phases {
        let times = self.times();
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        };
        Phases {
            model: times.model.clone(),
            adapter: times.adapter.clone(),
            submitted: times.submitted,
            queue: between(times.submitted, times.started),
            prefill: between(times.started, times.first_token),
            decode: between(times.first_token, times.last_token),
            detokenize: times.detokenizing,
            n_prompt: times.n_prompt,
            n_cached: times.n_cached,
            n_generated: times.n_generated,
            failure: times.failure.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_goes_into_phases() {
        let ms = Duration::from_millis;
        let timeline = Timeline::default();
        timeline.note_submitted(10);
        timeline.note_submitted(5);
        tokio::time::advance(ms(30)).await;
        timeline.note_started();
        tokio::time::advance(ms(20)).await;
        timeline.note_token(Instant::now());
        tokio::time::advance(ms(50)).await;
        timeline.note_started();
        timeline.note_token(Instant::now());
        timeline.note_cached(4);
        let phases = timeline.phases();
        assert_eq!(
            (phases.queue, phases.prefill, phases.decode),
            (ms(30), ms(20), ms(50))
        );
        assert_eq!(
            (phases.n_prompt, phases.n_cached, phases.n_generated),
            (15, 4, 2)
        );
        assert_eq!(Timeline::default().phases(), Phases::default());
    }
}
