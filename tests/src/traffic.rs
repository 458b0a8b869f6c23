//! What a seed draws: a machine, and requests that strain it.

use std::sync::Arc;

use scheduler::{
    AdapterId, FlowId, Pooling, Priority, Request, RequestId, SamplingParams, SchedulerConfig,
    TokenId,
};

use crate::forcing::Forcing;
use crate::rng::{Rng, mix};

/// One simulation's machine and traffic.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) config: SchedulerConfig,
    pub(crate) n_vocab: u32,
    /// Requests with the step at which they arrive, in that order.
    pub(crate) arrivals: Vec<(u64, Request)>,
    /// Of 1000 steps, before (or during) how many somebody is cancelled.
    pub(crate) cancels: usize,
    /// Of 1000 steps, how many fail.
    pub(crate) failures: usize,
    /// Of 1000 rows, how many fail alone.
    pub(crate) row_failures: usize,
    /// Of 1000 steps, how many are held below the budget of tokens.
    pub(crate) paced: usize,
    /// Of 1000 steps, how many take so long that much arrives meanwhile.
    pub(crate) slow: usize,
    pub(crate) forcing: Forcing,
    /// Of 1000 steps, behind how many the next is begun before they end, where that can be.
    pub(crate) ahead: usize,
    /// Of 1000 rows, how many cannot be drawn where another step was begun behind them.
    pub(crate) postponed: usize,
}

/// Kinds of requests, each drawn as often as this seed says (of 1000). Seeds differ in what
/// they are full of, which finds more than the same mixture every time.
#[derive(Debug)]
struct Tastes {
    n_choices: usize,
    scoring: usize,
    pooling: usize,
    /// How many may be forced to tokens.
    steered: usize,
    penalties: usize,
    logprobs: usize,
    stops: usize,
    stems: Vec<Vec<TokenId>>,
    shares: usize,
    n_adapters: usize,
    n_tenants: usize,
    priorities: Vec<Priority>,
    n_salts: usize,
    max_new: usize,
    /// Prompts of their own are at most one `brevity`-th of the longest.
    brevity: usize,
}

pub(crate) fn draw(rng: &mut Rng) -> Traffic {
    let block_size = rng.range(1, 16);
    let n_blocks = rng.range(4, 63);
    // Mostly a pool that holds a sequence or two of the greatest length: what runs out of
    // blocks is what goes wrong.
    let n_positions = block_size * n_blocks;
    let max_model_len = if rng.chance(700) {
        rng.range(n_positions / 3, n_positions + 1)
    } else {
        rng.range(4, 120)
    };
    let config = SchedulerConfig {
        block_size,
        n_blocks,
        max_batched_tokens: if rng.chance(300) {
            rng.range(1, 8)
        } else {
            rng.range(1, 64)
        },
        max_sequences: rng.range(1, 12),
        max_model_len: max_model_len.clamp(4, 120),
        window: rng.chance(300).then(|| rng.range(1, 40)),
        prefix_cache: rng.chance(750),
        fairness: rng.chance(750),
        head_start: *rng.pick(&[0, 5, 50, 500]),
        age_bound_steps: *rng.pick(&[1, 8, 30, 100, 100_000]),
    };
    let n_vocab = rng.range(3, 12) as u32;
    let longest = config
        .max_model_len
        .min(if config.window.is_some() {
            usize::MAX // A window needs few blocks, however long the sequence.
        } else {
            config.block_size * config.n_blocks
        })
        .min(96);
    let tastes = Tastes::draw(rng, longest, n_vocab);
    let n_requests = rng.range(2, 24);
    let max_gap = *rng.pick(&[0, 0, 1, 2, 5, 30]);
    let mut at = 0;
    let arrivals = (0..n_requests as u64)
        .map(|id| {
            at += rng.range(0, max_gap) as u64;
            (at, tastes.request(rng, RequestId(id), longest, n_vocab))
        })
        .collect();
    Traffic {
        config,
        n_vocab,
        arrivals,
        cancels: *rng.pick(&[0, 0, 5, 30, 100]),
        failures: *rng.pick(&[0, 0, 0, 10, 50]),
        row_failures: *rng.pick(&[0, 0, 0, 3, 20]),
        paced: *rng.pick(&[0, 0, 500, 1000]),
        slow: *rng.pick(&[0, 0, 50, 200]),
        forcing: Forcing {
            chance: *rng.pick(&[0, 0, 100, 300, 900]),
            n_most: *rng.pick(&[1, 3, 10, 40]),
            n_vocab,
        },
        ahead: *rng.pick(&[0, 500, 1000, 1000]),
        postponed: *rng.pick(&[0, 0, 10, 100]),
    }
}

impl Tastes {
    fn draw(rng: &mut Rng, longest: usize, n_vocab: u32) -> Self {
        let often = [0, 0, 100, 300, 700];
        let n_stems = rng.range(1, 3);
        let brevity = *rng.pick(&[1, 2, 4, 8]);
        Self {
            n_choices: *rng.pick(&often),
            scoring: *rng.pick(&often),
            pooling: *rng.pick(&often),
            steered: *rng.pick(&[0, 100, 500, 1000]),
            penalties: *rng.pick(&often),
            logprobs: *rng.pick(&often),
            stops: *rng.pick(&[0, 100, 300, 800]),
            stems: (0..n_stems)
                .map(|_| {
                    let n = rng.range(1, longest.div_ceil(brevity));
                    tokens(rng, n, n_vocab)
                })
                .collect(),
            shares: *rng.pick(&[0, 500, 900]),
            n_tenants: *rng.pick(&[1, 2, 4]),
            priorities: priorities(rng),
            n_adapters: *rng.pick(&[0, 0, 1, 3]),
            n_salts: *rng.pick(&[1, 1, 2]),
            max_new: rng.range(1, longest),
            brevity,
        }
    }

    fn request(&self, rng: &mut Rng, id: RequestId, longest: usize, n_vocab: u32) -> Request {
        let prompt = self.prompt(rng, longest, n_vocab);
        let max_new_tokens = if rng.chance(60) {
            0
        } else {
            rng.range(self.max_new.div_ceil(2), self.max_new) as u32
        };
        let n_stops = if rng.chance(self.stops) {
            rng.range(1, (n_vocab as usize - 1).min(2))
        } else {
            0
        };
        let adapter = rng.range(0, self.n_adapters);
        let salt = rng.range(1, self.n_salts);
        let mut request = Request {
            id,
            prompt: prompt.into(),
            n: if rng.chance(self.n_choices) {
                rng.range(2, 4) as u32
            } else {
                1
            },
            max_new_tokens,
            min_new_tokens: if rng.chance(300) {
                rng.range(0, self.max_new) as u32
            } else {
                0
            },
            stop_tokens: tokens(rng, n_stops, n_vocab).into(),
            adapter: (adapter > 0).then_some(AdapterId(adapter as u32)),
            kv_root: mix((adapter * 16 + salt) as u64),
            sampling: Arc::new(self.sampling(rng)),
            prompt_logprobs: rng.chance(self.scoring).then(|| rng.range(0, 3) as u8),
            scored_from: 0,
            pooling: rng
                .chance(self.pooling)
                .then(|| *rng.pick(&[Pooling::Last, Pooling::Mean, Pooling::Encoded])),
            is_steered: rng.chance(self.steered),
            flow: FlowId((rng.range(1, self.n_tenants) * 8 + adapter) as u64),
            priority: *rng.pick(&self.priorities),
        };
        if request.prompt_logprobs == Some(3) {
            request.scored_from = request.prompt.len() as u32 / 2;
        }
        request
    }

    /// A stem, or part of one, and something of its own.
    fn prompt(&self, rng: &mut Rng, longest: usize, n_vocab: u32) -> Vec<TokenId> {
        let n_own = rng.range(1, longest.div_ceil(self.brevity));
        let mut prompt = Vec::new();
        if rng.chance(self.shares) {
            let stem = rng.pick(&self.stems);
            let whole = rng.chance(600);
            let n = if whole {
                stem.len()
            } else {
                rng.range(1, stem.len())
            };
            prompt.extend(&stem[..n]);
        }
        if prompt.is_empty() || rng.chance(700) {
            prompt.extend(tokens(rng, n_own, n_vocab));
        }
        // Now and then one that is too long is left as it is, to be refused.
        if rng.chance(950) {
            prompt.truncate(longest.max(2) - 1);
        }
        prompt
    }

    fn sampling(&self, rng: &mut Rng) -> SamplingParams {
        let penalizes = rng.chance(self.penalties);
        SamplingParams {
            temperature: *rng.pick(&[0.0, 0.5, 1.0]),
            presence_penalty: if penalizes { 0.5 } else { 0.0 },
            frequency_penalty: if penalizes { 0.25 } else { 0.0 },
            repetition_penalty: if penalizes && rng.chance(500) {
                1.25
            } else {
                1.0
            },
            seed: rng.draw(),
            logprobs: rng.chance(self.logprobs).then(|| rng.range(0, 3) as u8),
            ..SamplingParams::default()
        }
    }
}

/// A machine of one class, of a few, or of all alike.
fn priorities(rng: &mut Rng) -> Vec<Priority> {
    match rng.range(0, 3) {
        0 => vec![Priority::Normal],
        1 => vec![Priority::Normal, Priority::Batch],
        2 => vec![Priority::High, Priority::Normal, Priority::Low],
        _ => Priority::ALL.to_vec(),
    }
}

fn tokens(rng: &mut Rng, n: usize, n_vocab: u32) -> Vec<TokenId> {
    (0..n)
        .map(|_| rng.range(0, n_vocab as usize - 1) as TokenId)
        .collect()
}
