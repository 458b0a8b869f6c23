//! How many tokens a step may compute, so that prompts do not make streams stutter.
//!
//! While sequences draw tokens, each step of theirs waits for the chunks of prompts beside them.
//! A fixed budget of tokens cannot bound that wait: what a token costs depends on the machine,
//! the model and how much the token follows. So it is measured: a step takes a time of its own,
//! for reading the weights, and as much again for each token. Prompts get as many tokens as make
//! the step `stretch` times as long as the streams alone would. Where more wait with a prompt
//! than stream, a step has that many times more of prompts, within reason: two streams do not hold
//! up fifty.
//! With nobody streaming, the scheduler's own budget is the only limit.

use std::time::Duration;

use scheduler::{Batch, Crowd};

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
/// Prompts get so many times what is usual at most, however many they are beside few streams: it
/// is most of the step already, and whoever comes waits for the step that runs.
const MOST_BY_HEADS: f64 = 4.0;
/// Weight of the newest measurement.
const NEW: f64 = 0.3;
/// Tokens by which two kinds of steps must differ to tell what a token takes.
const LEAST_DIFFERENCE: f64 = 4.0;
/// What a token is taken to cost falls to this share in a step at most.
const LEAST_SHARE: f64 = 0.7;
/// A step that the system has held up says little of the next: it counts as no longer than so
/// many times what was expected.
const OUTLIER: f64 = 2.0;

/// What has been measured.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Length of a step, relative to one without prompts; `None`: no limit.
    stretch: Option<f64>,
    /// Steps of streams alone, and steps with prompts.
    alone: Option<Mean>,
    mixed: Option<Mean>,
    /// Seconds of one token, when both kinds were seen.
    cost: Option<f64>,
    n_since_probe: u32,
}

/// Steps of one kind, the newest counting most.
#[derive(Clone, Copy, Debug)]
struct Mean {
    n_tokens: f64,
    seconds: f64,
}

/// What a step computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Rows of one token, and a token more in one of them if that is all there is more.
    pub n_singles: usize,
    /// Tokens of all other rows.
    pub n_chunked: usize,
}

impl Load {
    /// That of a step with this batch. One token more tells nothing of what tokens cost: where the
    /// budget has no room for another, such a step is one of streams alone.
    pub fn of(batch: &Batch) -> Self {
        let n_tokens = batch.n_tokens();
        if n_tokens <= batch.rows.len() + 1 {
            return Self {
                n_singles: n_tokens,
                n_chunked: 0,
            };
        }
        let singles = batch.rows.iter().filter(|row| row.tokens.len() == 1);
        let n_singles = singles.count();
        Self {
            n_singles,
            n_chunked: n_tokens - n_singles,
        }
    }
}

impl Pace {
    pub fn new(stretch: Option<f64>) -> Self {
        Self {
            stretch,
            alone: None,
            mixed: None,
            cost: None,
            n_since_probe: 0,
        }
    }

    /// Most tokens of the next step.
    pub fn budget(&self, crowd: Crowd) -> usize {
        let Some(stretch) = self.stretch else {
            return usize::MAX;
        };
        if crowd.n_streaming == 0 {
            return usize::MAX;
        }
        if self.alone.is_none() || self.n_since_probe >= PROBE_EVERY {
            return crowd.n_streaming + 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of sequences")]
        let (n_streaming, n_prompting) = (crowd.n_streaming as f64, crowd.n_prompting as f64);
        let by_heads = (n_prompting / n_streaming).max(1.0);
        let share = if crowd.is_behind {
            by_heads * BEHIND
        } else {
            by_heads.min(MOST_BY_HEADS)
        };
        let chunk = match (self.cost, self.expected(n_streaming)) {
            (Some(cost), Some(alone)) => alone * (stretch - 1.0) * share / cost,
            _ => FIRST_CHUNK,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; a huge one becomes the greatest"
        )]
        let chunk = chunk.max(LEAST_CHUNK) as usize;
        crowd.n_streaming.saturating_add(chunk)
    }

    /// Learns from a step.
    pub fn note(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        tracing::trace!(?load, took, ?self, "step");
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        let n_tokens = (load.n_singles + load.n_chunked) as f64;
        let most = self
            .expected(n_tokens)
            .map_or(took, |seconds| seconds * OUTLIER);
        let step = Mean {
            n_tokens,
            seconds: took.min(most),
        };
        let kind = if load.n_chunked == 0 {
            // Two such steps in a row: prompts have ended, and what steps beside them took tells
            // nothing of the next ones, beside streams that have grown longer.
            if self.n_since_probe == 0 {
                self.mixed = None;
            }
            self.n_since_probe = 0;
            &mut self.alone
        } else {
            self.n_since_probe += 1;
            &mut self.mixed
        };
        *kind = Some(kind.map_or(step, |mean| mean.blend(step)));
        self.draw_line();
    }

    /// The time of a step goes up with its tokens as between the two kinds.
    fn draw_line(&mut self) {
        let (Some(alone), Some(mixed)) = (self.alone, self.mixed) else {
            return;
        };
        let n_more = mixed.n_tokens - alone.n_tokens;
        if n_more.abs() < LEAST_DIFFERENCE {
            return;
        }
        // Whatever the noise: a token takes some time, and the step has some of its own.
        let most = mixed.seconds / mixed.n_tokens;
        let cost = (mixed.seconds - alone.seconds) / n_more;
        // Nor do tokens become cheap at once: one step that went well must not make the next huge.
        let least = self.cost.map_or(0.0, |cost| cost * LEAST_SHARE);
        self.cost = Some(cost.clamp(most * 0.05, most).max(least.min(most)));
    }

    /// Seconds that a step with so many tokens should take.
    fn expected(&self, n_tokens: f64) -> Option<f64> {
        let alone = self.alone?;
        let n_more = n_tokens - alone.n_tokens;
        Some((alone.seconds + self.cost? * n_more).max(alone.seconds * 0.1))
    }
}

impl Mean {
    fn blend(self, new: Self) -> Self {
        Self {
            n_tokens: self.n_tokens + (new.n_tokens - self.n_tokens) * NEW,
            seconds: self.seconds + (new.seconds - self.seconds) * NEW,
        }
    }
}

#[cfg(test)]
mod shares;

#[cfg(test)]
mod tests {
    use super::*;

    const EIGHT: Crowd = Crowd {
        n_streaming: 8,
        n_prompting: 1,
        is_behind: false,
    };

    /// A machine whose steps take `own_ms`, and `cost_ms` for each token, with eight streams and
    /// a long prompt.
    fn run(pace: &mut Pace, own_ms: f64, cost_ms: f64, n_steps: usize) -> Vec<f64> {
        let mut took = Vec::new();
        for _ in 0..n_steps {
            let n_chunk = pace.budget(EIGHT).min(512) - 8;
            let ms = own_ms + cost_ms * (8 + n_chunk) as f64;
            // One token of a prompt is a row like that of a stream.
            let load = Load {
                n_singles: if n_chunk == 1 { 9 } else { 8 },
                n_chunked: if n_chunk == 1 { 0 } else { n_chunk },
            };
            pace.note(load, Duration::from_secs_f64(ms / 1e3));
            took.push(ms);
        }
        took
    }

    #[test]
    fn streams_that_grow_longer_do_not_make_tokens_look_free() {
        let mut pace = Pace::new(Some(2.0));
        run(&mut pace, 5.0, 0.5, 40);
        // The prompt has ended; the streams go on, and their steps become twice as long.
        let mut own_ms = 9.0;
        for _ in 0..600 {
            own_ms += 0.015;
            let load = Load {
                n_singles: 8,
                n_chunked: 0,
            };
            pace.note(load, Duration::from_secs_f64(own_ms / 1e3));
        }
        let took = run(&mut pace, own_ms - 4.0, 0.5, 100);
        let longest = took.iter().fold(0.0_f64, |a, b| a.max(*b));
        assert!(longest < 3.0 * own_ms, "{longest} and {own_ms} ms");
    }

    #[test]
    fn steps_become_as_long_as_they_may() {
        let mut pace = Pace::new(Some(2.5));
        let nobody = Crowd::default();
        assert_eq!(pace.budget(nobody), usize::MAX, "nobody streams");
        // Streams alone: 20 ms.
        let took = run(&mut pace, 12.0, 1.0, 200);
        let late = &took[100..];
        assert!(late.iter().all(|ms| *ms < 55.0), "{late:?}");
        let mean = late.iter().sum::<f64>() / late.len() as f64;
        assert!(mean > 45.0, "prompts get their share: {mean}");
        pace.n_since_probe = 0;
        // 30 ms more make thirty tokens.
        let chunk = |crowd| pace.budget(crowd) - 8;
        let usual = chunk(EIGHT);
        let behind = chunk(Crowd {
            is_behind: true,
            ..EIGHT
        });
        let many = chunk(Crowd {
            n_prompting: 24,
            ..EIGHT
        });
        assert!((28..=32).contains(&usual), "{usual}");
        assert!((48..=54).contains(&behind), "of a flow behind: {behind}");
        assert!((84..=96).contains(&many), "three for a stream: {many}");
    }

    #[test]
    fn what_is_known_of_few_streams_holds_for_many() {
        let mut pace = Pace::new(Some(2.0));
        run(&mut pace, 12.0, 1.0, 100);
        pace.n_since_probe = 0;
        let forty = Crowd {
            n_streaming: 40,
            ..EIGHT
        };
        let chunk = pace.budget(forty) - 40;
        assert!((48..=56).contains(&chunk), "52 ms more: {chunk}");
    }

    #[test]
    fn a_machine_that_becomes_slower_is_noticed() {
        let mut pace = Pace::new(Some(2.5));
        run(&mut pace, 12.0, 1.0, 100);
        // Twice as slow altogether: the same tokens, not fewer and fewer.
        let before = pace.budget(EIGHT);
        run(&mut pace, 24.0, 2.0, 400);
        let after = pace.budget(EIGHT);
        assert!(
            after + 4 >= before && after <= before + 4,
            "{before} {after}"
        );
    }

    #[test]
    fn without_a_stretch_there_is_no_limit() {
        let mut pace = Pace::new(None);
        run(&mut pace, 12.0, 1.0, 3);
        assert_eq!(pace.budget(EIGHT), usize::MAX);
    }
}
