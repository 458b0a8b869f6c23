//! How far a model is from another one of the same vocabulary, on texts.
//!
//! *Perplexity* says how well a model foretells the text; the *Kullback-Leibler divergence* says
//! how much its predictions differ from those of the reference, whatever the text says, and is
//! the finer measure of what quantization loses.

use scheduler::{ExecutorError, TokenId};

use crate::ModelRunner;

/// All predictions of a reference model. It takes four bytes for every predicted token and entry
/// of the vocabulary; the model itself is not needed any more.
#[derive(Clone, Debug)]
pub struct Reference {
    /// What was predicted: windows of tokens, each a sequence of its own.
    windows: Vec<Vec<TokenId>>,
    vocab: usize,
    /// Natural-log probabilities, `vocab` for each prediction.
    logprobs: Vec<f32>,
}

/// A model beside a reference, over all predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    pub n_predictions: usize,
    /// Exponential of the mean surprise, of the model and of the reference.
    pub perplexity: f64,
    pub reference_perplexity: f64,
    /// Kullback-Leibler divergence of the model from the reference, in nats: mean, and the
    /// largest of one prediction.
    pub kl_mean: f64,
    pub kl_largest: f64,
    /// Share of predictions whose most probable token is the reference's.
    pub same_best: f64,
}

impl Reference {
    /// Runs `model` over `windows`.
    ///
    /// # Errors
    /// A window is longer than a step of the runner, or has a token that the model does not know.
    pub fn new(model: &mut ModelRunner, windows: Vec<Vec<TokenId>>) -> Result<Self, ExecutorError> {
        let vocab = model.model().config().vocab_size;
        let n_predictions: usize = windows.iter().map(|w| w.len().saturating_sub(1)).sum();
        let mut logprobs = Vec::new();
        logprobs
            .try_reserve_exact(n_predictions * vocab)
            .map_err(|error| {
                let message = format!(
                    "{n_predictions} predictions of {vocab} tokens do not fit in memory: {error}"
                );
                ExecutorError(message)
            })?;
        for window in &windows {
            model.each_logits(window, |_, logits| {
                let total = log_sum_exp(logits);
                logprobs.extend(logits.iter().map(|x| (f64::from(*x) - total) as f32));
            })?;
        }
        Ok(Self {
            windows,
            vocab,
            logprobs,
        })
    }

    /// Runs `model` over the same windows.
    ///
    /// # Errors
    /// As for [`new`](Self::new); or the vocabularies are not of one size.
    pub fn compare(&self, model: &mut ModelRunner) -> Result<Divergence, ExecutorError> {
        let vocab = model.model().config().vocab_size;
        if vocab != self.vocab {
            return Err(ExecutorError(format!(
                "a vocabulary of {vocab} tokens, but the reference has {}",
                self.vocab
            )));
        }
        let mut sums = Sums::default();
        let mut rows = self.logprobs.chunks_exact(self.vocab);
        for window in &self.windows {
            model.each_logits(window, |position, logits| {
                // There is a row for each prediction of each window.
                if let Some(reference) = rows.next() {
                    sums.add(reference, logits, window[position + 1] as usize);
                }
            })?;
        }
        Ok(sums.divergence())
    }
}

#[derive(Debug, Default)]
struct Sums {
    n: usize,
    surprise: f64,
    reference_surprise: f64,
    kl: f64,
    kl_largest: f64,
    n_same: usize,
}

impl Sums {
    /// One prediction: log-probabilities of the reference, logits of the model, the token that
    /// came.
    fn add(&mut self, reference: &[f32], logits: &[f32], token: usize) {
        let total = log_sum_exp(logits);
        let mut kl = 0.0;
        for (logprob, logit) in reference.iter().zip(logits) {
            let logprob = f64::from(*logprob);
            kl += logprob.exp() * (logprob - (f64::from(*logit) - total));
        }
        self.n += 1;
        self.surprise -= f64::from(logits[token]) - total;
        self.reference_surprise -= f64::from(reference[token]);
        self.kl += kl;
        self.kl_largest = self.kl_largest.max(kl);
        self.n_same += usize::from(best(reference) == best(logits));
    }

    fn divergence(&self) -> Divergence {
        let n = self.n.max(1) as f64;
        Divergence {
            n_predictions: self.n,
            perplexity: (self.surprise / n).exp(),
            reference_perplexity: (self.reference_surprise / n).exp(),
            kl_mean: self.kl / n,
            kl_largest: self.kl_largest,
            same_best: self.n_same as f64 / n,
        }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    most + sum.ln()
}

/// Index of the largest value, the first of equal ones.
fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_definitions() {
        // Probabilities 1/2, 1/4, 1/4 against 1/4, 1/2, 1/4; the logits have any origin.
        let logprobs = [0.5_f32, 0.25, 0.25].map(f32::ln);
        let logits = [0.25_f32, 0.5, 0.25].map(|p| p.ln() + 7.0);
        let mut sums = Sums::default();
        sums.add(&logprobs, &logits, 0);
        sums.add(&logprobs, &logprobs, 1);
        let found = sums.divergence();
        let kl = 0.5 * 2.0_f64.ln() - 0.25 * 2.0_f64.ln();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a}, not {b}");
        near(found.kl_mean, kl / 2.0);
        near(found.kl_largest, kl);
        near(found.perplexity, 4.0);
        near(found.reference_perplexity, 8.0_f64.sqrt());
        near(found.same_best, 0.5);
        assert_eq!(found.n_predictions, 2);
    }
}
