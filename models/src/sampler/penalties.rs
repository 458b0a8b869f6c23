//! What changes logits before a draw: bias, penalties, bans, and what a grammar allows.

use scheduler::{ExecutorError, SampleSpec, TokenId};

/// Applies a row's bias and penalties. Keeps its memory from call to call.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    /// Sorted tokens of the history.
    sorted: Vec<TokenId>,
}

impl Penalties {
    /// In the order that `SamplingParams` documents: bias, repetition, presence and frequency;
    /// banned tokens and
    /// what is not allowed last, so that nothing lifts them again.
    pub(super) fn apply(
        &mut self,
        logits: &mut [f32],
        spec: &SampleSpec,
    ) -> Result<(), ExecutorError> {
        let params = &*spec.params;
        for &(token, bias) in &params.logit_bias {
            *entry(logits, token)? += bias;
        }
        if params.needs_history() {
            self.apply_history(logits, spec)?;
        }
        for &token in spec.banned.iter() {
            *entry(logits, token)? = f32::NEG_INFINITY;
        }
        if let Some(allowed) = &spec.allowed {
            keep_allowed(logits, allowed);
        }
        Ok(())
    }

    fn apply_history(
        &mut self,
        logits: &mut [f32],
        spec: &SampleSpec,
    ) -> Result<(), ExecutorError> {
        let params = &*spec.params;
        let n_prompt = spec.n_prompt as usize;
        let Some(generated) = spec.history.get(n_prompt..) else {
            return Err(ExecutorError(format!(
                "a history of {} tokens with a prompt of {n_prompt}",
                spec.history.len()
            )));
        };
        if params.repetition_penalty != 1.0 {
            self.sorted.clear();
            self.sorted.extend_from_slice(&spec.history);
            self.sorted.sort_unstable();
            for same in self.sorted.chunk_by(|a, b| a == b) {
                let logit = entry(logits, same[0])?;
                if *logit > 0.0 {
                    *logit /= params.repetition_penalty;
                } else {
                    *logit *= params.repetition_penalty;
                }
            }
        }
        if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
            self.sorted.clear();
            self.sorted.extend_from_slice(generated);
            self.sorted.sort_unstable();
            for same in self.sorted.chunk_by(|a, b| a == b) {
                let n = same.len() as f32;
                *entry(logits, same[0])? -= params.presence_penalty + n * params.frequency_penalty;
            }
        }
        Ok(())
    }
}

/// Forbids what a set of bits does not allow. Words that forbid all, or nothing, are done at once,
/// and of the others only what they forbid is touched.
fn keep_allowed(logits: &mut [f32], allowed: &[u32]) {
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (chunk, word) in logits.chunks_mut(32).zip(words) {
        if word == 0 {
            chunk.fill(f32::NEG_INFINITY);
            continue;
        }
        let mut forbidden = !word;
        while forbidden != 0 {
            // The last words may have bits beyond the vocabulary.
            if let Some(logit) = chunk.get_mut(forbidden.trailing_zeros() as usize) {
                *logit = f32::NEG_INFINITY;
            }
            forbidden &= forbidden - 1;
        }
    }
}

fn entry(logits: &mut [f32], token: TokenId) -> Result<&mut f32, ExecutorError> {
    logits
        .get_mut(token as usize)
        .ok_or_else(|| ExecutorError(format!("token {token} is not in the vocabulary")))
}
