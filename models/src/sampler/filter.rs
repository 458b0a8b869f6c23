//! Temperature, top-k, top-p, min-p, and the draw itself.

use std::cmp::Ordering;

use scheduler::{SamplingParams, TokenId};

use super::exp::{CHUNK, exp, sum};

/// The best logit first, the lowest id first on a tie: a total order of numbers, so that a partial
/// selection keeps the same set as a full sort.
pub(super) fn by_rank(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0)
        .unwrap_or(Ordering::Equal)
        .then(a.1.cmp(&b.1))
}

/// Tokens that may be drawn. Keeps its memory from call to call.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    kept: Vec<(f32, u32)>,
    sums: Vec<f64>,
}

impl Candidates {
    /// Draws with `u` from `[0, 1)` by the cumulative probability in order of ids. `best` is the
    /// id of the greatest logit.
    pub(super) fn draw(
        &mut self,
        logits: &[f32],
        best: TokenId,
        params: &SamplingParams,
        u: f64,
    ) -> TokenId {
        let greatest = logits[best as usize];
        // The tiniest temperatures would make an infinity of it, and that times zero is no number.
        let scale = (1.0 / params.temperature).min(f32::MAX);
        // Differences to the best below this have, by min-p, no chance.
        let least = if params.min_p > 0.0 {
            greatest + params.min_p.ln() * params.temperature
        } else {
            f32::NEG_INFINITY
        };
        let n_kept = match params.top_k {
            0 => logits.len(),
            k => logits.len().min(k as usize),
        };
        if n_kept == logits.len() && params.top_p >= 1.0 && params.min_p <= 0.0 {
            return self.draw_any(logits, best, scale, u);
        }
        self.kept.clear();
        let all = logits.iter().zip(0_u32..).map(|(&logit, id)| (logit, id));
        if params.top_p >= 1.0 {
            // min-p compares with the best only, so it may come before top-k.
            self.kept.extend(all.filter(|(logit, _)| *logit >= least));
        } else {
            self.kept.extend(all);
        }
        if n_kept < self.kept.len() {
            self.kept.select_nth_unstable_by(n_kept - 1, by_rank);
            self.kept.truncate(n_kept);
        }
        if params.top_p < 1.0 {
            self.keep_top_p(greatest, scale, f64::from(params.top_p));
            self.kept.retain(|(logit, _)| *logit >= least);
        }
        self.kept.sort_unstable_by_key(|(_, id)| *id);
        self.draw_kept(logits[best as usize], best, scale, u)
    }

    /// Keeps the smallest set of best tokens whose share of the total reaches `top_p`. Few are
    /// needed as a rule, so they are sorted in pieces, each twice as long as the last.
    fn keep_top_p(&mut self, greatest: f32, scale: f32, top_p: f64) {
        // The order of the sum must not depend on how top-k left the list.
        self.kept.sort_unstable_by_key(|(_, id)| *id);
        let weight = |logit: f32| f64::from(exp(logit, greatest, scale));
        let total: f64 = self.kept.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut reached = 0.0;
        let (mut start, mut length) = (0, 64);
        while start < self.kept.len() {
            let rest = &mut self.kept[start..];
            if length < rest.len() {
                rest.select_nth_unstable_by(length - 1, by_rank);
            }
            let length_now = length.min(rest.len());
            rest[..length_now].sort_unstable_by(by_rank);
            for (i, (logit, _)) in rest[..length_now].iter().enumerate() {
                reached += weight(*logit);
                if reached >= top_p * total {
                    self.kept.truncate(start + i + 1);
                    return;
                }
            }
            start += length_now;
            length *= 2;
        }
    }

    fn draw_kept(&self, greatest: f32, best: TokenId, scale: f32, u: f64) -> TokenId {
        let weight = |logit: f32| f64::from(exp(logit, greatest, scale));
        let total: f64 = self.kept.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut reached = 0.0;
        for &(logit, id) in &self.kept {
            reached += weight(logit);
            if reached > u * total {
                return id;
            }
        }
        // Rounding left the sum a hair below: once in some 2^50 draws.
        best
    }

    /// A draw from the whole vocabulary, without a list of it.
    fn draw_any(&mut self, logits: &[f32], best: TokenId, scale: f32, u: f64) -> TokenId {
        let greatest = logits[best as usize];
        self.sums.clear();
        let chunks = logits.chunks(CHUNK);
        self.sums
            .extend(chunks.map(|chunk| sum(chunk, greatest, scale)));
        let total: f64 = self.sums.iter().sum();
        let mut reached = 0.0;
        for (chunk, sum) in self.sums.iter().enumerate() {
            if reached + sum <= u * total {
                reached += sum;
                continue;
            }
            let first = chunk * CHUNK;
            let end = logits.len().min(first + CHUNK);
            for (id, &logit) in logits.iter().enumerate().take(end).skip(first) {
                reached += f64::from(exp(logit, greatest, scale));
                if reached > u * total {
                    return id as TokenId;
                }
            }
        }
        best
    }
}
