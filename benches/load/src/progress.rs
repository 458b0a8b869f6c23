//! A bar on standard error while a load runs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::Outcome;

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    n_running: AtomicUsize,
    n_failed: AtomicUsize,
    n_output: AtomicU64,
}

impl Progress {
    /// A bar of `n` requests; hidden where nobody watches, or by wish.
    #[must_use]
    pub fn new(n: usize, label: &str, is_hidden: bool) -> Self {
        let target = if is_hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(4)
        };
        let bar = ProgressBar::with_draw_target(Some(n as u64), target);
        let style = "{prefix:>24} {wide_bar} {pos}/{len}  {elapsed_precise}  {msg}";
        // A style that cannot be read leaves the bar as it is.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        Self {
            bar,
            n_running: AtomicUsize::new(0),
            n_failed: AtomicUsize::new(0),
            n_output: AtomicU64::new(0),
        }
    }

    pub(crate) fn sent(&self) {
        self.n_running.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, outcome: &Outcome) {
        let n_running = self.n_running.fetch_sub(1, Ordering::Relaxed) - 1;
        let n_failed = usize::from(outcome.failure.is_some());
        let n_failed = self.n_failed.fetch_add(n_failed, Ordering::Relaxed) + n_failed;
        let n_output = outcome.usage.n_output;
        let n_output = self.n_output.fetch_add(n_output, Ordering::Relaxed) + n_output;
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "shown in whole numbers")]
        let rate = n_output as f64 / seconds;
        self.bar.set_message(format!(
            "{n_running} running, {n_failed} failed, {rate:.0} tokens/s"
        ));
        self.bar.inc(1);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
