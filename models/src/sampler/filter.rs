//! Temperature, top-k, top-p, min-p, and the draw itself.

use std::cmp::Ordering;

use scheduler::{SamplingParams, TokenId};

use super::exp::{CHUNK, exp, sum};
use super::scan;

/// The best logit first, the lowest id first on a tie: a total order of numbers, so that a partial
/// selection keeps the same set as a full sort.
pub(super) fn by_rank(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0)
        .unwrap_or(Ordering::Equal)
        .then(a.1.cmp(&b.1))
}

/// One over the temperature. The tiniest would make an infinity of it, and that times zero is no
/// number.
pub(super) fn scale(params: &SamplingParams) -> f32 {
    (1.0 / params.temperature).min(f32::MAX)
}

/// What is less than the best plus this has, by min-p, no chance. As min-p compares with the best
/// only, it commutes with the other filters.
pub(super) fn depth(params: &SamplingParams) -> f32 {
    if params.min_p > 0.0 {
        params.min_p.ln() * params.temperature
    } else {
        f32::NEG_INFINITY
    }
}

/// Tokens that may be drawn. Keeps its memory from call to call.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    kept: Vec<(f32, u32)>,
    sums: Vec<f64>,
    maxima: Vec<f32>,
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
        let scale = scale(params);
        let has_top_k = params.top_k > 0 && (params.top_k as usize) < logits.len();
        let has_top_p = params.top_p < 1.0;
        let least = greatest + depth(params);
        match (has_top_k, has_top_p) {
            (false, false) if params.min_p <= 0.0 => {
                return self.draw_any(logits, best, scale, u);
            }
            (false, false) => self.keep_from(logits, least),
            (true, false) => self.keep_top_k(logits, params.top_k as usize),
            (false, true) => self.keep_top_p(logits, greatest, scale, params.top_p),
            (true, true) => {
                self.keep_top_k(logits, params.top_k as usize);
                // The order of the sum must not depend on how the selection left the list.
                self.kept.sort_unstable_by_key(|(_, id)| *id);
                let weights = self.kept.iter().map(|kept| exp(kept.0, greatest, scale));
                let total: f64 = weights.map(f64::from).sum();
                self.keep_share(greatest, scale, f64::from(params.top_p) * total);
            }
        }
        self.kept.retain(|(logit, _)| *logit >= least);
        self.kept.sort_unstable_by_key(|(_, id)| *id);
        self.draw_kept(greatest, best, scale, u)
    }

    /// What the last draw chose from, in order of ids.
    #[cfg(test)]
    pub(super) fn kept_ids(&self) -> Vec<u32> {
        self.kept.iter().map(|(_, id)| *id).collect()
    }

    /// Keeps all logits from `least` on.
    fn keep_from(&mut self, logits: &[f32], least: f32) {
        self.kept.clear();
        let all = logits.iter().zip(0_u32..).map(|(&logit, id)| (logit, id));
        self.kept.extend(all.filter(|(logit, _)| *logit >= least));
    }

    /// Keeps the `k` best. The `k`-th greatest of the maxima of many pieces is not greater than
    /// the `k`-th greatest logit, so that all below it need not be looked at again.
    fn keep_top_k(&mut self, logits: &[f32], k: usize) {
        const PIECE: usize = 64;
        self.maxima.clear();
        self.maxima.extend(logits.chunks(PIECE).map(scan::greatest));
        let mut least = f32::NEG_INFINITY;
        if k <= self.maxima.len() {
            let descending = |a: &f32, b: &f32| b.total_cmp(a);
            least = *self.maxima.select_nth_unstable_by(k - 1, descending).1;
        }
        self.keep_from(logits, least);
        if k < self.kept.len() {
            self.kept.select_nth_unstable_by(k - 1, by_rank);
            self.kept.truncate(k);
        }
    }

    /// Keeps the smallest set of best tokens whose share of the total reaches `top_p`. What is
    /// far below the best is looked at only if all above it does not reach.
    fn keep_top_p(&mut self, logits: &[f32], greatest: f32, scale: f32, top_p: f32) {
        let chunks = logits.chunks(CHUNK);
        let total: f64 = chunks.map(|chunk| sum(chunk, greatest, scale)).sum();
        for depth in [6.0, 12.0, 24.0, f32::INFINITY] {
            self.keep_from(logits, greatest - depth / scale);
            if self.keep_share(greatest, scale, f64::from(top_p) * total) {
                return;
            }
        }
    }

    /// Keeps the smallest set of best tokens whose weights sum to `share`; false if all together
    /// do not. Few are needed as a rule, so they are sorted in pieces, each twice as long as the
    /// last.
    fn keep_share(&mut self, greatest: f32, scale: f32, share: f64) -> bool {
        let mut reached = 0.0;
        let (mut start, mut length) = (0, 64);
        while start < self.kept.len() {
            let rest = &mut self.kept[start..];
            if length < rest.len() {
                rest.select_nth_unstable_by(length - 1, by_rank);
            }
            let n_sorted = length.min(rest.len());
            rest[..n_sorted].sort_unstable_by(by_rank);
            for (i, (logit, _)) in rest[..n_sorted].iter().enumerate() {
                reached += f64::from(exp(*logit, greatest, scale));
                if reached >= share {
                    self.kept.truncate(start + i + 1);
                    return true;
                }
            }
            start += n_sorted;
            length *= 2;
        }
        false
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
