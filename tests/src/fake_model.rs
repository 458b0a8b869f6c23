//! The arithmetic of the fake: contexts as hashes, probabilities from hashes, draws from both.

use std::collections::VecDeque;

use scheduler::{AdapterId, SampleSpec, SampledToken, TokenId, TokenLogprob, TokenLogprobs};

use crate::rng::mix;

/// All positions read so far, as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fold(u64);

impl Fold {
    /// Key and value of a token that follows.
    pub(crate) fn value(self, token: TokenId, position: u32, adapter: Option<AdapterId>) -> u64 {
        let adapter = adapter.map_or(0, |adapter| u64::from(adapter.0) + 1);
        let place = mix(u64::from(position) << 32 | u64::from(token));
        mix(self.0 ^ place ^ mix(adapter.wrapping_mul(0xa076_1d64_78bd_642f)))
    }

    /// The context after reading `value` too.
    pub(crate) fn then(self, value: u64) -> Self {
        Self(mix(self.0.rotate_left(17) ^ value))
    }
}

/// What a query sees: all positions before it, or a window of them.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Positions seen, the query's own among them.
    window: Option<usize>,
    /// Of all positions, when there is no window.
    whole: Fold,
    /// Values of the last `window` positions.
    last: VecDeque<u64>,
}

impl Context {
    pub(crate) fn new(window: Option<usize>) -> Self {
        Self {
            window,
            whole: Fold::default(),
            last: VecDeque::new(),
        }
    }

    /// Key and value of a token that follows.
    pub(crate) fn value(&self, token: TokenId, position: u32, adapter: Option<AdapterId>) -> u64 {
        let before = match self.window {
            None => self.whole,
            Some(window) => self.of_last(window - 1),
        };
        before.value(token, position, adapter)
    }

    pub(crate) fn push(&mut self, value: u64) {
        let Some(window) = self.window else {
            self.whole = self.whole.then(value);
            return;
        };
        self.last.push_back(value);
        if self.last.len() > window {
            self.last.pop_front();
        }
    }

    /// What the query of the last position has read.
    pub(crate) fn fold(&self) -> Fold {
        match self.window {
            None => self.whole,
            Some(window) => self.of_last(window),
        }
    }

    fn of_last(&self, n: usize) -> Fold {
        let skipped = self.last.len().saturating_sub(n);
        let seen = self.last.iter().skip(skipped);
        seen.fold(Fold::default(), |fold, &value| fold.then(value))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FakeModel {
    n_vocab: u32,
}

impl FakeModel {
    pub(crate) fn new(n_vocab: u32) -> Self {
        Self { n_vocab }
    }

    /// Log-probability of `target` in a context, and the best ones.
    pub(crate) fn logprobs(self, context: Fold, target: TokenId, n_top: u8) -> TokenLogprobs {
        let entry = |token| TokenLogprob {
            token,
            logprob: logprob(context, token),
        };
        let mut top: Vec<TokenLogprob> = Vec::new();
        if n_top > 0 {
            top = (0..self.n_vocab).map(entry).collect();
            top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob).then(a.token.cmp(&b.token)));
            top.truncate(usize::from(n_top));
        }
        TokenLogprobs {
            chosen: entry(target),
            top,
        }
    }

    /// The best token after bias, penalties and, above temperature 0, noise that depends on
    /// seed, choice and number of the draw. `top_k`, `top_p` and `min_p` do not matter to it.
    pub(crate) fn draw(self, context: Fold, choice: u32, spec: &SampleSpec) -> SampledToken {
        let counts = Counts::new(spec, self.n_vocab);
        let draw =
            mix(spec.params.seed ^ mix(u64::from(choice) << 32 | u64::from(spec.n_generated)));
        let score = |&token: &TokenId| {
            let noise = unit(mix(draw ^ mix(u64::from(token)))) * 16.0 * spec.params.temperature;
            counts.adjust(spec, token, logprob(context, token)) + noise
        };
        let token = (0..self.n_vocab)
            .filter(|token| !spec.banned.contains(token))
            .map(|token| (score(&token), token))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
            .map(|(_, token)| token)
            .expect("not all tokens are banned");
        let logprobs = spec.params.logprobs;
        SampledToken {
            token,
            logprobs: logprobs.map(|n_top| self.logprobs(context, token, n_top)),
        }
    }
}

/// Occurrences of tokens in the history of a draw; empty if it has none.
struct Counts {
    prompt: Vec<u32>,
    output: Vec<u32>,
}

impl Counts {
    fn new(spec: &SampleSpec, n_vocab: u32) -> Self {
        let count = |tokens: &[TokenId]| {
            let mut counts = vec![
                0;
                if tokens.is_empty() {
                    0
                } else {
                    n_vocab as usize
                }
            ];
            for &token in tokens {
                counts[token as usize] += 1;
            }
            counts
        };
        let n_prompt = (spec.n_prompt as usize).min(spec.history.len());
        let (prompt, output) = spec.history.split_at(n_prompt);
        Self {
            prompt: count(prompt),
            output: count(output),
        }
    }

    fn adjust(&self, spec: &SampleSpec, token: TokenId, logprob: f32) -> f32 {
        let params = &spec.params;
        let of = |counts: &[u32]| counts.get(token as usize).copied().unwrap_or(0);
        let (n_prompt, n_output) = (of(&self.prompt), of(&self.output));
        let bias = params.logit_bias.iter().filter(|(id, _)| *id == token);
        let mut score = logprob + bias.map(|(_, bias)| bias).sum::<f32>();
        if n_prompt + n_output > 0 {
            score *= params.repetition_penalty;
        }
        if n_output > 0 {
            score -= params.presence_penalty + params.frequency_penalty * n_output as f32;
        }
        score
    }
}

fn logprob(context: Fold, token: TokenId) -> f32 {
    -16.0 * unit(mix(context.0 ^ mix(u64::from(token) + 1)))
}

/// A number from 0 to 1 that an f32 holds exactly.
fn unit(hash: u64) -> f32 {
    (hash >> 48) as f32 / 65536.0
}
