//! A run in figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outcome::{ErrorKind, Outcome};
use crate::quantile::Spread;
use crate::slo::Slo;

/// What a run came to. Latencies are milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// What was sent, in words.
    pub load: String,
    /// Requests (sessions, if they have turns) a second that were to come; of a closed loop, none.
    pub offered_rate: Option<f64>,
    pub n_clients: Option<usize>,
    pub n_requests: usize,
    pub n_failed: usize,
    /// From the first intended start to the last end.
    pub seconds: f64,
    pub requests_per_s: f64,
    pub output_tokens_per_s: f64,
    pub prompt_tokens_per_s: f64,
    /// Requests a second that met the SLO.
    pub goodput_per_s: Option<f64>,
    /// Share of all requests that met it.
    pub good_share: Option<f64>,
    pub n_prompt_tokens: u64,
    pub n_cached_tokens: u64,
    pub n_output_tokens: u64,
    pub prompt_tokens: Spread,
    pub output_tokens: Spread,
    pub ttft_ms: Spread,
    pub tpot_ms: Spread,
    pub gap_ms: Spread,
    pub e2e_ms: Spread,
    /// How much later than intended requests went out. It is part of the latencies; if it is
    /// large in an open loop, the machine of the generator is too slow for this load.
    pub late_ms: Spread,
    pub errors: Vec<ErrorCount>,
    /// Requests by model, if several were asked.
    pub models: BTreeMap<String, usize>,
}

/// Errors of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    pub kind: String,
    pub n: usize,
    /// Of the first.
    pub example: String,
}

impl Summary {
    /// Figures of outcomes. `slo`: what counts for goodput.
    #[must_use]
    pub fn of(outcomes: &[Outcome], slo: Option<&Slo>) -> Self {
        let good: Vec<&Outcome> = outcomes.iter().filter(|o| o.failure.is_none()).collect();
        let begin = outcomes
            .iter()
            .map(|o| o.intended)
            .fold(f64::INFINITY, f64::min);
        let end = outcomes.iter().map(|o| o.ended).fold(0.0, f64::max);
        let seconds = (end - begin).max(0.0);
        let rate = |n: u64| {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let n = n as f64;
            if seconds > 0.0 { n / seconds } else { 0.0 }
        };
        let sum = |get: fn(&Outcome) -> u64| good.iter().map(|o| get(o)).sum::<u64>();
        let n_prompt_tokens = sum(|o| o.usage.n_prompt);
        let n_output_tokens = sum(|o| o.usage.n_output);
        let n_met = slo.map(|slo| good.iter().filter(|o| slo.is_met(o)).count() as u64);
        let spread = |get: &dyn Fn(&Outcome) -> Option<f64>| {
            Spread::of(good.iter().filter_map(|o| get(o)).collect())
        };
        let ms = |get: fn(&Outcome) -> Option<f64>| spread(&|o| get(o).map(|s| s * 1e3));
        #[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
        let count = |get: fn(&Outcome) -> u64| spread(&|o| Some(get(o) as f64));
        #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
        let good_share = n_met.map(|n| n as f64 / outcomes.len().max(1) as f64);
        Self {
            n_requests: outcomes.len(),
            n_failed: outcomes.len() - good.len(),
            seconds,
            requests_per_s: rate(good.len() as u64),
            output_tokens_per_s: rate(n_output_tokens),
            prompt_tokens_per_s: rate(n_prompt_tokens),
            goodput_per_s: n_met.map(rate),
            good_share,
            n_prompt_tokens,
            n_cached_tokens: sum(|o| o.usage.n_cached),
            n_output_tokens,
            prompt_tokens: count(|o| o.usage.n_prompt),
            output_tokens: count(|o| o.usage.n_output),
            ttft_ms: ms(Outcome::ttft),
            tpot_ms: ms(Outcome::tpot),
            gap_ms: Spread::of(
                good.iter()
                    .flat_map(|o| o.gaps())
                    .map(|s| s * 1e3)
                    .collect(),
            ),
            e2e_ms: ms(Outcome::e2e),
            late_ms: Spread::of(
                outcomes
                    .iter()
                    .map(|o| (o.sent - o.intended) * 1e3)
                    .collect(),
            ),
            errors: errors(outcomes),
            models: models(outcomes),
            ..Self::default()
        }
    }
}

fn errors(outcomes: &[Outcome]) -> Vec<ErrorCount> {
    let mut found: BTreeMap<&ErrorKind, (usize, &str)> = BTreeMap::new();
    for failure in outcomes.iter().filter_map(|o| o.failure.as_ref()) {
        found.entry(&failure.kind).or_insert((0, &failure.detail)).0 += 1;
    }
    let count = |(kind, (n, example)): (&ErrorKind, (usize, &str))| ErrorCount {
        kind: kind.name(),
        n,
        example: example.to_owned(),
    };
    found.into_iter().map(count).collect()
}

fn models(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for outcome in outcomes {
        *found.entry(outcome.model.clone()).or_default() += 1;
    }
    if found.len() > 1 {
        found
    } else {
        BTreeMap::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Failure, Usage};

    /// Meant for second `intended`, sent 0.1 later, first token `first` after it was meant, then
    /// one each 0.05 seconds.
    fn outcome(intended: f64, first: f64, n_output: u64) -> Outcome {
        let at = |i: u64| intended + first + i as f64 * 0.05;
        Outcome {
            session: 0,
            turn: 0,
            model: "m".to_owned(),
            intended,
            sent: intended + 0.1,
            tokens_at: (0..n_output).map(at).collect(),
            finished: at(n_output - 1),
            ended: at(n_output - 1) + 0.01,
            is_stream: true,
            usage: Usage {
                n_prompt: 10,
                n_output,
                n_cached: 4,
            },
            failure: None,
            text: String::new(),
        }
    }

    #[test]
    fn figures_are_what_was_measured() {
        let mut failed = outcome(2.0, 9.0, 5);
        failed.failure = Some(Failure::new(
            ErrorKind::Status(429, Some("busy".into())),
            "x",
        ));
        let outcomes = [outcome(1.0, 0.2, 11), outcome(1.5, 0.6, 21), failed];
        let slo = "ttft:500,tpot:50.001".parse().unwrap();
        let summary = Summary::of(&outcomes, Some(&slo));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        // The failed request ends last: it is time that the server had.
        near(summary.seconds, 10.21);
        near(summary.output_tokens_per_s, 32.0 / summary.seconds);
        near(summary.ttft_ms.p50, 200.0);
        near(summary.ttft_ms.max, 600.0);
        near(summary.tpot_ms.max, 50.0);
        near(summary.late_ms.p50, 100.0);
        assert_eq!((summary.gap_ms.n, summary.n_failed), (30, 1));
        near(summary.e2e_ms.max, 1610.0);
        near(summary.good_share.unwrap(), 1.0 / 3.0);
        near(summary.goodput_per_s.unwrap(), 1.0 / summary.seconds);
        assert_eq!(summary.errors[0].kind, "status 429, busy");
        assert_eq!(summary.n_cached_tokens, 8);
    }

    #[test]
    fn no_requests_are_no_figures() {
        let summary = Summary::of(&[], None);
        assert_eq!((summary.n_requests, summary.requests_per_s), (0, 0.0));
    }
}
