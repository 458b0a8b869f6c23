//! How many tokens a step may compute, so that prompts do not make streams stutter.
//!
//! While sequences draw tokens, each step of theirs waits for the chunks of prompts beside them.
//! A fixed budget of tokens cannot bound that wait: what a prompt's token costs depends on the
//! machine, the model and how much the token follows. So the cost is measured, and a step gets
//! as many tokens of prompts as make it `stretch` times as long as it would be without. With
//! nobody drawing, the scheduler's own budget is the only limit.

use std::time::Duration;

/// Tokens of prompts in a step whose cost is not known yet.
const FIRST_CHUNK: f64 = 32.0;
/// However slow the machine is, prompts go on.
const LEAST_CHUNK: f64 = 8.0;
/// One step of so many has almost no prompt in it, to see how long that takes now.
const PROBE_EVERY: u32 = 32;
/// How much more of a step prompts get of a flow that was served less than others: 1.7 times as
/// much. With the usual stretch of 2, steps become 2.7 times as long, for no more tokens than the
/// flow's head start.
const BEHIND: f64 = 1.7;
/// Weights of the newest measurement.
const NEW_BASE: f64 = 0.2;
const NEW_COST: f64 = 0.3;
/// A step that the system has held up says little of the next: a measurement counts as no more
/// than so many times what was known.
const OUTLIER: f64 = 2.0;

/// What has been measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Length of a step, relative to one without prompts; `None`: no limit.
    stretch: Option<f64>,
    /// Seconds of a step without prompts.
    base: Option<f64>,
    /// Seconds of one token of a prompt.
    cost: Option<f64>,
    /// Sequences that drew a token in the last step.
    n_drawing: usize,
    n_since_probe: u32,
}

/// What a step computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Rows of one token.
    pub(super) n_singles: usize,
    /// Tokens of all other rows.
    pub(super) n_chunked: usize,
    /// Rows that draw a token.
    pub(super) n_drawing: usize,
}

impl Pace {
    pub(super) fn new(stretch: Option<f64>) -> Self {
        Self {
            stretch,
            base: None,
            cost: None,
            n_drawing: 0,
            n_since_probe: 0,
        }
    }

    /// Most tokens of the next step; more if prompts of a flow wait that is behind the others.
    pub(super) fn budget(&self, is_behind: bool) -> usize {
        let Some(stretch) = self.stretch else {
            return usize::MAX;
        };
        if self.n_drawing == 0 {
            return usize::MAX;
        }
        let Some(base) = self.base else {
            return self.n_drawing + 1;
        };
        if self.n_since_probe >= PROBE_EVERY {
            return self.n_drawing + 1;
        }
        let share = if is_behind { BEHIND } else { 1.0 };
        let chunk = match self.cost {
            Some(cost) => base * (stretch - 1.0) * share / cost,
            None => FIRST_CHUNK,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; a huge one becomes the greatest"
        )]
        let chunk = chunk.max(LEAST_CHUNK) as usize;
        self.n_drawing.saturating_add(chunk)
    }

    /// Learns from a step.
    pub(super) fn note(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        self.n_drawing = load.n_drawing;
        tracing::trace!(?load, took, base = self.base, cost = self.cost, "step");
        if load.n_chunked == 0 && load.n_singles > 0 {
            self.base = Some(blend(self.base, took, NEW_BASE));
            self.n_since_probe = 0;
        } else if load.n_singles > 0 {
            self.n_since_probe += 1;
            if let Some(base) = self.base {
                #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
                let cost = (took - base).max(base * 0.01) / load.n_chunked as f64;
                self.cost = Some(blend(self.cost, cost, NEW_COST));
            }
        }
    }
}

fn blend(old: Option<f64>, new: f64, weight: f64) -> f64 {
    old.map_or(new, |old| old + (new.min(old * OUTLIER) - old) * weight)
}

#[cfg(test)]
mod shares;

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose steps take `base` for streams, and `cost` for each token of a prompt.
    fn run(pace: &mut Pace, base_ms: f64, cost_ms: f64, n_steps: usize) -> Vec<f64> {
        let mut took = Vec::new();
        for _ in 0..n_steps {
            let n_chunk = pace.budget(false).min(512) - 8;
            let ms = base_ms + cost_ms * n_chunk as f64;
            // One token of a prompt is a row like that of a stream.
            let load = Load {
                n_singles: if n_chunk == 1 { 9 } else { 8 },
                n_chunked: if n_chunk == 1 { 0 } else { n_chunk },
                n_drawing: 8,
            };
            pace.note(load, Duration::from_secs_f64(ms / 1e3));
            took.push(ms);
        }
        took
    }

    #[test]
    fn steps_become_as_long_as_they_may() {
        let mut pace = Pace::new(Some(2.5));
        assert_eq!(pace.budget(false), usize::MAX, "nobody draws");
        run(&mut pace, 20.0, 0.0, 5);
        pace.n_drawing = 8;
        let took = run(&mut pace, 20.0, 3.0, 200);
        let late = &took[100..];
        assert!(late.iter().all(|ms| *ms < 60.0), "{late:?}");
        let mean = late.iter().sum::<f64>() / late.len() as f64;
        assert!(mean > 40.0, "prompts get their share: {mean}");
        pace.n_since_probe = 0;
        // 30 ms more make ten tokens.
        let (usual, behind) = (pace.budget(false) - 8, pace.budget(true) - 8);
        assert!((10..=12).contains(&usual), "{usual}");
        assert!(
            (17..=20).contains(&behind),
            "of a flow that is behind: {behind}"
        );
    }

    #[test]
    fn a_machine_that_becomes_slower_is_noticed() {
        let mut pace = Pace::new(Some(2.5));
        pace.n_drawing = 8;
        run(&mut pace, 20.0, 3.0, 100);
        // Twice as slow altogether: the same tokens, not fewer and fewer.
        let before = pace.budget(false);
        run(&mut pace, 40.0, 6.0, 400);
        let after = pace.budget(false);
        assert!(
            after + 4 >= before && after <= before + 4,
            "{before} {after}"
        );
    }

    #[test]
    fn without_a_stretch_there_is_no_limit() {
        let mut pace = Pace::new(None);
        run(&mut pace, 20.0, 3.0, 3);
        assert_eq!(pace.budget(false), usize::MAX);
    }
}
