//! Drawing tokens where the logits are.

/// What is asked of a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// The log-probabilities of a token.
    Score { token: u32 },
    /// The greatest logit, the lowest id on a tie.
    Greedy,
    /// A draw from what the limits leave.
    Draw(Draw),
}

/// A draw. Weights are `exp((logit - greatest) * scale)`, added up in order of ids; the token drawn
/// is the first at which the sum is above `u` times the total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// From `[0, 1)`.
    pub u: f64,
    /// One over the temperature, finite.
    pub scale: f32,
    /// Only so many of the best; 0: all.
    pub top_k: u32,
    /// Only the best that reach this share of all weights, or of those that `top_k` leaves; 1: all.
    pub top_p: f32,
    /// Only what is at least the greatest logit plus this; minus infinity: all.
    pub depth: f32,
}

/// A change of one logit, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogitChange {
    pub token: u32,
    /// Added.
    pub bias: f32,
    /// Then divided (multiplied, unless positive) by the row's repetition penalty.
    pub is_repeated: bool,
    /// Then subtracted.
    pub cost: f32,
    /// Never drawn.
    pub is_banned: bool,
}

/// A row of logits and what is asked of it.
#[derive(Clone, Debug)]
pub struct SampleRow<'a> {
    pub ask: Ask,
    /// No token twice. They act on the draw, not on log-probabilities.
    pub changes: Vec<LogitChange>,
    pub repetition: f32,
    /// The only tokens that may be drawn, as bits; those beyond the last word may not.
    pub allowed: Option<&'a [u32]>,
    /// Report log-probabilities, with so many of the best tokens.
    pub n_top: Option<usize>,
}

/// A drawn (or scored) token.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledRow {
    pub token: u32,
    pub logprobs: Option<RowLogprobs>,
}

/// What log-probabilities are made of: `logit - greatest - ln(total)`.
#[derive(Clone, Debug, PartialEq)]
pub struct RowLogprobs {
    /// The token's logit.
    pub chosen: f32,
    pub greatest: f32,
    /// The sum of `exp(logit - greatest)`.
    pub total: f64,
    /// Best tokens and their logits, the best first, the lowest id first on a tie.
    pub top: Vec<(u32, f32)>,
}
