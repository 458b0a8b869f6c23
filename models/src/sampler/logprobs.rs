//! Log-probabilities of the model's own distribution.

use scheduler::{TokenId, TokenLogprob, TokenLogprobs};

use super::exp::{CHUNK, sum};
use super::filter::by_rank;
use super::scan;

/// Turns logits into natural-log probabilities.
pub(super) struct Normalizer {
    greatest: f64,
    log_total: f64,
}

impl Normalizer {
    /// `total`: the sum of `exp(logit - greatest)`.
    pub(super) fn new(greatest: f32, total: f64) -> Self {
        Self {
            greatest: f64::from(greatest),
            log_total: total.ln(),
        }
    }

    pub(super) fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.greatest - self.log_total) as f32
    }
}

/// Natural-log probabilities of `chosen` and of the `n_top` best. `scratch` is overwritten.
pub(super) fn of(
    logits: &[f32],
    chosen: TokenId,
    n_top: u8,
    scratch: &mut Vec<(f32, u32)>,
) -> TokenLogprobs {
    let greatest = scan::greatest(logits);
    let total: f64 = logits
        .chunks(CHUNK)
        .map(|chunk| sum(chunk, greatest, 1.0))
        .sum();
    let of = Normalizer::new(greatest, total);
    let entry = |token: TokenId| TokenLogprob {
        token,
        logprob: of.logprob(logits[token as usize]),
    };
    best(logits, usize::from(n_top), scratch);
    TokenLogprobs {
        chosen: entry(chosen),
        top: scratch.iter().map(|&(_, id)| entry(id)).collect(),
    }
}

/// Leaves the `n` best in `scratch`, best first. One pass: what is seen is compared with the
/// worst that is kept, and seldom gets further.
fn best(logits: &[f32], n: usize, scratch: &mut Vec<(f32, u32)>) {
    scratch.clear();
    if n == 0 {
        return;
    }
    for (id, &logit) in logits.iter().enumerate() {
        if scratch.len() == n {
            // Ids ascend, so that an equal logit has no place before one that is kept.
            if logit <= scratch[n - 1].0 {
                continue;
            }
            scratch.pop();
        }
        let new = (logit, id as u32);
        let place = scratch.partition_point(|kept| by_rank(kept, &new).is_lt());
        scratch.insert(place, new);
    }
}
