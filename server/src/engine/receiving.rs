//! Requests that were let in and whose bodies are still coming. They keep nobody out of the queue,
//! so they are counted apart.

use std::fmt;

use metrics::Gauge;

use crate::metrics::Metrics;

/// One of them, counted as long as this lives.
pub(super) struct Receiving(Gauge);

impl Receiving {
    pub(super) fn begin(metrics: &Metrics) -> Self {
        let gauge = metrics.receiving_requests.clone();
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiving").finish_non_exhaustive()
    }
}
