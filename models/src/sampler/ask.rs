//! Rows as a device is asked for them. What is drawn there is what [`super::Sampler`] draws from
//! the same logits: the device does its arithmetic operation by operation.

use kernels::{Ask, Draw, LogitChange, RowLogprobs, SampleLimits, SampleRow, SampledRow};
use scheduler::{PromptScoring, SampleSpec, SampledToken, TokenId, TokenLogprob, TokenLogprobs};

use super::{logprobs, random};

/// Why a row is drawn on the host, from logits that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnHost {
    #[error("more log-probabilities than the device reports")]
    Logprobs,
    #[error("a larger top_k than the device sorts")]
    TopK,
    #[error("a token has two biases")]
    TwoBiases,
    /// The host says which.
    #[error("a token is not in the vocabulary, or the history is too short")]
    Invalid,
}

/// How to ask for a draw from `n_logits` logits.
///
/// # Errors
/// The device does not do it.
pub fn draw(
    spec: &SampleSpec,
    choice: u32,
    n_logits: usize,
    limits: SampleLimits,
) -> Result<SampleRow<'_>, OnHost> {
    let params = &*spec.params;
    let has_top_k = params.top_k > 0 && (params.top_k as usize) < n_logits;
    let n_top = params.logprobs.map(usize::from);
    if n_top.is_some_and(|n| n > limits.n_top) {
        return Err(OnHost::Logprobs);
    }
    if has_top_k && params.top_k > limits.top_k {
        return Err(OnHost::TopK);
    }
    let changes = changes(spec)?;
    if changes.iter().any(|c| c.token as usize >= n_logits) {
        return Err(OnHost::Invalid);
    }
    let ask = if params.temperature == 0.0 {
        Ask::Greedy
    } else {
        Ask::Draw(Draw {
            u: random::uniform(params.seed, choice, spec.n_generated),
            scale: super::filter::scale(params),
            top_k: if has_top_k { params.top_k } else { 0 },
            top_p: params.top_p,
            depth: super::filter::depth(params),
        })
    };
    Ok(SampleRow {
        ask,
        changes,
        repetition: params.repetition_penalty,
        allowed: spec.allowed.as_deref(),
        n_top,
    })
}

/// How to ask for target `i` of a prompt that is scored.
///
/// # Errors
/// The device does not do it.
pub fn score(
    scoring: &PromptScoring,
    i: usize,
    n_logits: usize,
    limits: SampleLimits,
) -> Result<SampleRow<'static>, OnHost> {
    let (token, n_top) = (scoring.targets[i], usize::from(scoring.n_top));
    if n_top > limits.n_top {
        return Err(OnHost::Logprobs);
    }
    if token as usize >= n_logits {
        return Err(OnHost::Invalid);
    }
    Ok(SampleRow {
        ask: Ask::Score { token },
        ..nothing(Some(n_top))
    })
}

/// A row that nothing is asked of but what every row gives.
pub fn nothing(n_top: Option<usize>) -> SampleRow<'static> {
    SampleRow {
        ask: Ask::Greedy,
        changes: Vec::new(),
        repetition: 1.0,
        allowed: None,
        n_top,
    }
}

/// What [`super::penalties`] does, token by token.
fn changes(spec: &SampleSpec) -> Result<Vec<LogitChange>, OnHost> {
    let params = &*spec.params;
    let of = |token: TokenId| LogitChange {
        token,
        ..LogitChange::default()
    };
    let mut all: Vec<LogitChange> = params
        .logit_bias
        .iter()
        .map(|&(token, bias)| LogitChange { bias, ..of(token) })
        .collect();
    all.sort_unstable_by_key(|change| change.token);
    if all.array_windows().any(|[a, b]| a.token == b.token) {
        return Err(OnHost::TwoBiases);
    }
    if params.needs_history() {
        let n_prompt = spec.n_prompt as usize;
        let generated = spec.history.get(n_prompt..).ok_or(OnHost::Invalid)?;
        if params.repetition_penalty != 1.0 {
            let each = counted(&spec.history);
            all.extend(each.map(|(token, _)| LogitChange {
                is_repeated: true,
                ..of(token)
            }));
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            let cost = |n: usize| params.presence_penalty + n as f32 * params.frequency_penalty;
            let each = counted(generated);
            all.extend(each.map(|(token, n)| LogitChange {
                cost: cost(n),
                ..of(token)
            }));
        }
    }
    all.extend(spec.banned.iter().map(|&token| LogitChange {
        is_banned: true,
        ..of(token)
    }));
    all.sort_unstable_by_key(|change| change.token);
    // Of each field one is given at most, and the others are zero.
    all.dedup_by(|next, kept| {
        let is_same = next.token == kept.token;
        if is_same {
            kept.bias += next.bias;
            kept.cost += next.cost;
            kept.is_repeated |= next.is_repeated;
            kept.is_banned |= next.is_banned;
        }
        is_same
    });
    Ok(all)
}

/// Tokens and how often they occur.
fn counted(tokens: &[TokenId]) -> impl Iterator<Item = (TokenId, usize)> {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    let mut counts: Vec<(TokenId, usize)> = Vec::new();
    for same in sorted.chunk_by(|a, b| a == b) {
        counts.push((same[0], same.len()));
    }
    counts.into_iter()
}

/// A token as the device drew it.
pub fn drawn(row: SampledRow) -> SampledToken {
    let logprobs = row.logprobs.map(|logprobs| reported(row.token, &logprobs));
    SampledToken {
        token: row.token,
        logprobs,
    }
}

/// Log-probabilities from what the device added up.
pub fn reported(token: TokenId, row: &RowLogprobs) -> TokenLogprobs {
    let of = logprobs::Normalizer::new(row.greatest, row.total);
    let entry = |token, logit| TokenLogprob {
        token,
        logprob: of.logprob(logit),
    };
    TokenLogprobs {
        chosen: entry(token, row.chosen),
        top: row.top.iter().map(|&(id, x)| entry(id, x)).collect(),
    }
}
