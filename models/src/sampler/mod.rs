//! Drawing tokens from logits.
//!
//! The order is that of [`SamplingParams`]. Log-probabilities that are reported are the model's
//! own, before any parameter acts. Nothing here knows of other rows: a draw is a function of the
//! row's logits, its parameters, its history, and a random number that depends only on seed,
//! choice and number of tokens generated so far ([`random::uniform`]).
//!
//! All ids of the embedding can be drawn. Where the vocabulary is padded beyond the tokenizer's,
//! it is the model's own weights that make the padding improbable.

pub mod ask;
mod exp;
mod filter;
mod logprobs;
mod penalties;
mod random;
mod scan;

use scheduler::{ExecutorError, SampleSpec, SampledToken, SamplingParams, TokenId, TokenLogprobs};

use filter::Candidates;

/// Draws and scores; keeps its memory from call to call.
#[derive(Debug, Default)]
pub struct Sampler {
    adjusted: Vec<f32>,
    candidates: Candidates,
    penalties: penalties::Penalties,
    top: Vec<(f32, u32)>,
}

impl Sampler {
    /// Draws the next token of choice `choice` of a request.
    ///
    /// # Errors
    /// Logits that are not numbers, ids that are not in the vocabulary, or no token left to draw.
    pub fn sample(
        &mut self,
        logits: &[f32],
        choice: u32,
        spec: &SampleSpec,
    ) -> Result<SampledToken, ExecutorError> {
        check_numbers(logits)?;
        let params = &*spec.params;
        let token = if is_plain(params) && spec.banned.is_empty() && spec.allowed.is_none() {
            draw(&mut self.candidates, logits, choice, spec)?
        } else {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            self.penalties.apply(&mut self.adjusted, spec)?;
            draw(&mut self.candidates, &self.adjusted, choice, spec)?
        };
        let logprobs = params
            .logprobs
            .map(|n_top| logprobs::of(logits, token, n_top, &mut self.top));
        Ok(SampledToken { token, logprobs })
    }

    /// How probable `target` is by the model's own distribution, with the `n_top` best.
    ///
    /// # Errors
    /// Logits that are not numbers, or a target that is not in the vocabulary.
    pub fn score(
        &mut self,
        logits: &[f32],
        target: TokenId,
        n_top: u8,
    ) -> Result<TokenLogprobs, ExecutorError> {
        check_numbers(logits)?;
        if target as usize >= logits.len() {
            return Err(ExecutorError(format!(
                "token {target} is not in the vocabulary"
            )));
        }
        Ok(logprobs::of(logits, target, n_top, &mut self.top))
    }
}

/// Whether the model's logits are drawn from as they are.
fn is_plain(params: &SamplingParams) -> bool {
    params.logit_bias.is_empty() && !params.needs_history()
}

fn draw(
    candidates: &mut Candidates,
    logits: &[f32],
    choice: u32,
    spec: &SampleSpec,
) -> Result<TokenId, ExecutorError> {
    let params = &*spec.params;
    let best = greatest(logits)?;
    if params.temperature == 0.0 {
        return Ok(best);
    }
    let u = random::uniform(params.seed, choice, spec.n_generated);
    Ok(candidates.draw(logits, best, params, u))
}

/// The id of the greatest logit, the lowest on a tie.
fn greatest(logits: &[f32]) -> Result<TokenId, ExecutorError> {
    let greatest = scan::greatest(logits);
    let first = logits.iter().position(|&logit| logit == greatest);
    match first {
        Some(id) if greatest > f32::NEG_INFINITY => Ok(id as TokenId),
        _ => Err(ExecutorError("no token is left to draw".to_string())),
    }
}

fn check_numbers(logits: &[f32]) -> Result<(), ExecutorError> {
    if scan::are_usable(logits) {
        return Ok(());
    }
    let is_bad = |x: &f32| x.is_nan() || *x == f32::INFINITY;
    let id = logits.iter().position(is_bad).unwrap_or(0);
    Err(ExecutorError(format!(
        "the logit of token {id} is {}",
        logits[id]
    )))
}

#[cfg(test)]
mod tests;
