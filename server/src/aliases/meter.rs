//! What is measured of the requests that one arm of an alias answers.

use std::time::Instant;

use crate::generation::Update;
use crate::metrics::{ArmMetrics, Metrics};
use crate::openai::ApiError;

/// One request, from its submission on.
#[derive(Debug)]
pub(crate) struct Meter {
    metrics: ArmMetrics,
    submitted: Instant,
    has_begun: bool,
}

impl Meter {
    /// Counts a request that `target` answers in the place of `alias`.
    pub(crate) fn begin(metrics: &Metrics, alias: &str, target: &str, is_shadow: bool) -> Self {
        let metrics = metrics.of_arm(alias, target, is_shadow);
        metrics.requests.increment(1);
        Self {
            metrics,
            submitted: Instant::now(),
            has_begun: false,
        }
    }

    /// Notes what the request has come to.
    pub(crate) fn note(&mut self, update: Result<&Update, &ApiError>) {
        match update {
            Ok(Update::Finished { totals, .. }) => {
                self.note_begin();
                self.metrics.generated_tokens.increment(totals.n_tokens);
            }
            Ok(Update::Text { .. }) => self.note_begin(),
            Ok(Update::PromptScored(_)) => {}
            Err(_) => self.fail(),
        }
    }

    /// Notes that there will be no answer.
    pub(crate) fn fail(&self) {
        self.metrics.failures.increment(1);
    }

    fn note_begin(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            let waited = self.submitted.elapsed();
            self.metrics.time_to_first_token.record(waited);
        }
    }
}
