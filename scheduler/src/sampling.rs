//! How the next token is drawn. The scheduler carries these numbers and never looks at them,
//! but for [`SamplingParams::needs_history`] and [`SamplingParams::needs_every_draw`].

use crate::TokenId;

/// Sampling parameters of one request, validated by whoever makes them.
///
/// The order of application is: logit bias, repetition penalty, presence and frequency
/// penalties, temperature, top-k, top-p, min-p, draw.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// `0.0` is greedy: the most probable token, the lowest id on a tie.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches `top_p`; `1.0` keeps all.
    pub top_p: f32,
    /// Keep the `top_k` most probable tokens; `0` keeps all.
    pub top_k: u32,
    /// Keep tokens with at least `min_p` times the probability of the best; `0.0` keeps all.
    pub min_p: f32,
    /// Subtracted once for each generated token that has occurred.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence of a generated token.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; `1.0` is off.
    pub repetition_penalty: f32,
    /// Added to the logits before anything else.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed of the request. Choice and position are mixed in, so that a draw depends on nothing
    /// else: not on the batch, not on preemption.
    pub seed: u64,
    /// `Some(k)`: report the log-probability of the chosen token and of the `k` best, from the
    /// model's own distribution (before any parameter above is applied).
    pub logprobs: Option<u8>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Whether every token must be drawn, though it is known beforehand: its log-probability is
    /// reported.
    pub fn needs_every_draw(&self) -> bool {
        self.logprobs.is_some()
    }

    /// Whether a draw depends on the tokens before it (penalties), so that they must travel
    /// with the batch.
    pub fn needs_history(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
    }
}
