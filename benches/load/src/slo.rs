//! What is good enough: a request counts for goodput if it meets all of it.

use std::str::FromStr;

use serde::Serialize;

use crate::outcome::Outcome;

/// Bounds in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Slo {
    pub ttft: Option<f64>,
    pub tpot: Option<f64>,
    pub e2e: Option<f64>,
}

impl Slo {
    /// Whether a request was answered well enough. A figure that a request does not have (no
    /// stream, or one token) cannot miss its bound.
    #[must_use]
    pub fn is_met(&self, outcome: &Outcome) -> bool {
        let within = |value: Option<f64>, bound: Option<f64>| match (value, bound) {
            (Some(value), Some(bound)) => value <= bound,
            _ => true,
        };
        outcome.failure.is_none()
            && within(outcome.ttft(), self.ttft)
            && within(outcome.tpot(), self.tpot)
            && within(outcome.e2e(), self.e2e)
    }
}

/// `ttft:500,tpot:50,e2e:10000`, in milliseconds.
impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',') {
            let wrong = || format!("{part:?}: write ttft:500,tpot:50,e2e:10000 (milliseconds)");
            let (name, value) = part.split_once(':').ok_or_else(wrong)?;
            let ms: f64 = value.trim().parse().map_err(|_| wrong())?;
            let bound = match name.trim() {
                "ttft" => &mut slo.ttft,
                "tpot" => &mut slo.tpot,
                "e2e" => &mut slo.e2e,
                _ => return Err(wrong()),
            };
            if !(ms.is_finite() && ms > 0.0) || bound.replace(ms / 1e3).is_some() {
                return Err(wrong());
            }
        }
        Ok(slo)
    }
}
