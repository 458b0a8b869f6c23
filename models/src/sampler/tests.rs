//! Draws against probabilities worked out the long way, and what draws must not depend on.

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler::{SampleSpec, SamplingParams};

use super::Sampler;
use super::exp::exp;
use super::random::uniform;

fn spec(params: SamplingParams) -> SampleSpec {
    SampleSpec {
        params: Arc::new(params),
        n_generated: 0,
        history: Vec::new(),
        n_prompt: 0,
        banned: Arc::new([]),
        allowed: None,
        is_awaited: false,
    }
}

/// Logits without structure, the same every time.
fn noise(n: usize, spread: f32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| (uniform(7, i, 3) as f32 - 0.5) * spread)
        .collect()
}

/// Probabilities after all parameters but penalties, by a full sort in f64.
fn expected(logits: &[f32], params: &SamplingParams) -> BTreeMap<u32, f64> {
    let mut ranked: Vec<(f64, u32)> = logits
        .iter()
        .zip(0..)
        .map(|(&x, id)| (f64::from(x) / f64::from(params.temperature), id))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if params.top_k > 0 {
        ranked.truncate(params.top_k as usize);
    }
    let best = ranked[0].0;
    let weights: Vec<f64> = ranked.iter().map(|(x, _)| (x - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut reached = 0.0;
    let mut kept = Vec::new();
    for (&(_, id), &weight) in ranked.iter().zip(&weights) {
        if reached < f64::from(params.top_p) * total && weight >= f64::from(params.min_p) {
            kept.push((id, weight));
        }
        reached += weight;
    }
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    kept.iter().map(|&(id, w)| (id, w / total)).collect()
}

/// Pearson's statistic over the tokens with at least 5 expected draws (the others as one), and
/// its degrees of freedom.
fn chi_square(logits: &[f32], params: &SamplingParams, n_draws: u32) -> (f64, f64) {
    let mut sampler = Sampler::default();
    let probabilities = expected(logits, params);
    let mut spec = spec(params.clone());
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for i in 0..n_draws {
        spec.n_generated = i;
        let drawn = sampler.sample(logits, 0, &spec).unwrap().token;
        assert!(
            probabilities.contains_key(&drawn),
            "{drawn} must not be drawn"
        );
        *counts.entry(drawn).or_default() += 1;
    }
    let (mut statistic, mut n_cells) = (0.0, 0.0);
    let (mut rest_expected, mut rest_count) = (0.0, 0.0);
    for (id, p) in &probabilities {
        let count = f64::from(counts.get(id).copied().unwrap_or(0));
        let expected = p * f64::from(n_draws);
        if expected < 5.0 {
            rest_expected += expected;
            rest_count += count;
            continue;
        }
        statistic += (count - expected).powi(2) / expected;
        n_cells += 1.0;
    }
    if rest_expected > 0.0 {
        statistic += (rest_count - rest_expected).powi(2) / rest_expected;
        n_cells += 1.0;
    }
    (statistic, n_cells - 1.0)
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = noise(1000, 12.0);
    let base = SamplingParams::default();
    let cases = [
        base.clone(),
        SamplingParams {
            temperature: 0.6,
            ..base.clone()
        },
        SamplingParams {
            top_k: 20,
            ..base.clone()
        },
        SamplingParams {
            top_p: 0.8,
            ..base.clone()
        },
        SamplingParams {
            min_p: 0.05,
            ..base.clone()
        },
        SamplingParams {
            temperature: 1.7,
            top_k: 300,
            top_p: 0.9,
            min_p: 0.02,
            ..base
        },
    ];
    for params in cases {
        let (statistic, freedom) = chi_square(&logits, &params, 20_000);
        // Six standard deviations of the statistic: a wrong weight shows, chance does not.
        let bound = freedom + 6.0 * (2.0 * freedom).sqrt();
        assert!(
            statistic < bound,
            "{params:?}: {statistic} with {freedom} degrees of freedom"
        );
    }
}

#[test]
fn filters_keep_exactly_the_right_tokens() {
    // p = 0.5, 0.25, 0.125, 0.125: the last two tie.
    let logits: Vec<f32> = [0.125_f32, 0.5, 0.125, 0.25].map(f32::ln).to_vec();
    let drawn = |params: SamplingParams| {
        let mut sampler = Sampler::default();
        let mut spec = spec(params);
        let mut seen: Vec<u32> = (0..500)
            .map(|i| {
                spec.n_generated = i;
                sampler.sample(&logits, 0, &spec).unwrap().token
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let base = SamplingParams::default();
    let top_k = |top_k| SamplingParams {
        top_k,
        ..base.clone()
    };
    let top_p = |top_p| SamplingParams {
        top_p,
        ..base.clone()
    };
    let min_p = |min_p| SamplingParams {
        min_p,
        ..base.clone()
    };
    assert_eq!(drawn(top_k(1)), [1]);
    assert_eq!(drawn(top_k(2)), [1, 3]);
    assert_eq!(drawn(top_k(3)), [0, 1, 3], "the lowest id wins a tie");
    assert_eq!(drawn(top_k(99)), [0, 1, 2, 3]);
    assert_eq!(drawn(top_p(0.4)), [1]);
    assert_eq!(drawn(top_p(0.7)), [1, 3]);
    assert_eq!(drawn(top_p(0.8)), [0, 1, 3]);
    assert_eq!(drawn(top_p(0.0)), [1], "the best is always kept");
    assert_eq!(drawn(min_p(0.3)), [1, 3]);
    assert_eq!(drawn(min_p(0.2)), [0, 1, 2, 3]);
    assert_eq!(drawn(min_p(1.0)), [1]);
}

#[test]
fn shortcuts_keep_what_a_full_sort_keeps() {
    let mut candidates = super::filter::Candidates::default();
    // From nearly flat to nearly certain, with many ties, over more than one piece and chunk.
    for (n, spread) in [(70, 3.0), (1500, 0.5), (5000, 12.0), (5000, 60.0)] {
        let logits: Vec<f32> = noise(n, spread)
            .iter()
            .map(|x| (x * 8.0).round() / 8.0 + 0.0)
            .collect();
        let best = super::greatest(&logits).unwrap();
        for top_k in [0, 1, 5, 50, 700] {
            for top_p in [0.1, 0.5, 0.93, 0.9999, 1.0] {
                for (min_p, temperature) in [(0.0, 1.0), (0.07, 0.7), (0.0, 3.0), (0.3, 1.5)] {
                    let params = SamplingParams {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        ..SamplingParams::default()
                    };
                    if matches!(top_k, 0 | 700) && top_p == 1.0 && min_p == 0.0 {
                        continue;
                    }
                    candidates.draw(&logits, best, &params, 0.5);
                    let expected: Vec<u32> = expected(&logits, &params).into_keys().collect();
                    assert_eq!(candidates.kept_ids(), expected, "{n}, {spread}: {params:?}");
                }
            }
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_on_a_tie() {
    let greedy = spec(SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    });
    let mut sampler = Sampler::default();
    let drawn = sampler.sample(&[1.0, 3.0, 2.0, 3.0], 0, &greedy).unwrap();
    assert_eq!(drawn.token, 1);
}

#[test]
fn a_tiny_temperature_is_as_good_as_greedy() {
    for temperature in [1e-3, 1e-30, f32::from_bits(1)] {
        let cold = spec(SamplingParams {
            temperature,
            ..SamplingParams::default()
        });
        let drawn = Sampler::default()
            .sample(&[1.0, 2.0, 3.0, 2.5], 0, &cold)
            .unwrap();
        assert_eq!(drawn.token, 2);
    }
}

#[test]
fn a_draw_depends_on_seed_choice_and_position_only() {
    let logits = noise(5000, 6.0);
    let params = |seed| SamplingParams {
        seed,
        top_p: 0.95,
        ..SamplingParams::default()
    };
    let draws = |sampler: &mut Sampler, seed, choice| -> Vec<u32> {
        (0..50)
            .map(|n_generated| {
                let spec = SampleSpec {
                    n_generated,
                    ..spec(params(seed))
                };
                sampler.sample(&logits, choice, &spec).unwrap().token
            })
            .collect()
    };
    let first = draws(&mut Sampler::default(), 1, 0);
    let mut used = Sampler::default();
    draws(&mut used, 9, 4);
    assert_eq!(first, draws(&mut used, 1, 0), "what was drawn before");
    assert_ne!(first, draws(&mut used, 2, 0), "seed");
    assert_ne!(first, draws(&mut used, 1, 1), "choice");
    assert!(first.iter().any(|id| *id != first[0]), "position");
}

#[test]
fn bias_and_penalties_follow_their_definitions() {
    let logits = vec![1.0_f32, -1.0, 0.5, 0.0];
    let adjusted = |params: SamplingParams, banned: &[u32]| {
        let mut spec = spec(params);
        // Prompt 0, 1; generated 1, 1, 2.
        spec.history = vec![0, 1, 1, 1, 2];
        spec.n_prompt = 2;
        spec.banned = banned.into();
        let mut values = logits.clone();
        super::penalties::Penalties::default()
            .apply(&mut values, &spec)
            .unwrap();
        values
    };
    let base = SamplingParams::default();
    let repetition = SamplingParams {
        repetition_penalty: 2.0,
        ..base.clone()
    };
    assert_eq!(adjusted(repetition, &[]), [0.5, -2.0, 0.25, 0.0]);
    let presence = SamplingParams {
        presence_penalty: 0.5,
        ..base.clone()
    };
    assert_eq!(adjusted(presence, &[]), [1.0, -1.5, 0.0, 0.0]);
    let frequency = SamplingParams {
        frequency_penalty: 0.25,
        ..base.clone()
    };
    assert_eq!(adjusted(frequency, &[]), [1.0, -1.5, 0.25, 0.0]);
    // Bias comes before the repetition penalty, which then divides instead of multiplying.
    let both = SamplingParams {
        logit_bias: vec![(1, 3.0), (3, -100.0)],
        repetition_penalty: 2.0,
        ..base
    };
    assert_eq!(adjusted(both, &[2]), [0.5, 1.0, f32::NEG_INFINITY, -100.0]);
}

#[test]
fn logprobs_are_the_models_own() {
    let logits = noise(3000, 10.0);
    let greedy = spec(SamplingParams {
        temperature: 0.0,
        logit_bias: vec![(17, 50.0)],
        logprobs: Some(5),
        ..SamplingParams::default()
    });
    let sampled = Sampler::default().sample(&logits, 0, &greedy).unwrap();
    let reported = sampled.logprobs.unwrap();
    assert_eq!(sampled.token, 17);
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let exact = |id: u32| f64::from(logits[id as usize]) - total.ln();
    assert!((f64::from(reported.chosen.logprob) - exact(17)).abs() < 1e-6);
    let mut ids: Vec<u32> = (0..3000).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let top: Vec<u32> = reported.top.iter().map(|entry| entry.token).collect();
    assert_eq!(top, ids[..5]);
    for entry in &reported.top {
        assert!((f64::from(entry.logprob) - exact(entry.token)).abs() < 1e-6);
    }
}

#[test]
fn equal_logits_rank_by_id() {
    let scored = Sampler::default()
        .score(&[0.0, 1.0, 1.0, -1.0, 1.0], 3, 4)
        .unwrap();
    let top: Vec<u32> = scored.top.iter().map(|entry| entry.token).collect();
    assert_eq!(top, [1, 2, 4, 0]);
}

#[test]
fn bad_input_is_an_error() {
    let mut sampler = Sampler::default();
    let plain = spec(SamplingParams::default());
    assert!(sampler.sample(&[0.0, f32::NAN], 0, &plain).is_err());
    assert!(sampler.sample(&[0.0, f32::INFINITY], 0, &plain).is_err());
    assert!(sampler.score(&[f32::NAN, 1.0], 1, 0).is_err());
    assert!(sampler.score(&[0.0, 1.0], 2, 0).is_err());
    let banned = SampleSpec {
        banned: Arc::new([0, 1]),
        ..plain.clone()
    };
    assert!(sampler.sample(&[0.0, 1.0], 0, &banned).is_err());
    let beyond = spec(SamplingParams {
        logit_bias: vec![(2, 1.0)],
        ..SamplingParams::default()
    });
    assert!(sampler.sample(&[0.0, 1.0], 0, &beyond).is_err());
}

#[test]
fn banned_tokens_are_never_drawn() {
    let logits = [5.0, 0.0, 0.0];
    let mut sampler = Sampler::default();
    for temperature in [0.0, 1.0] {
        for n_generated in 0..100 {
            let spec = SampleSpec {
                banned: Arc::new([0]),
                n_generated,
                ..spec(SamplingParams {
                    temperature,
                    ..SamplingParams::default()
                })
            };
            assert_ne!(sampler.sample(&logits, 0, &spec).unwrap().token, 0);
        }
    }
}

#[test]
fn only_allowed_tokens_are_drawn() {
    let logits: Vec<f32> = (0..70).map(|i| if i == 3 { 50.0 } else { 0.0 }).collect();
    let mut sampler = Sampler::default();
    // Tokens 1, 33 and 34; ids from 64 on have no word.
    let allowed: Arc<[u32]> = Arc::new([0b10, 0b110]);
    let mut seen = std::collections::BTreeSet::new();
    for n_generated in 0..200 {
        let mut spec = SampleSpec {
            allowed: Some(Arc::clone(&allowed).into()),
            n_generated,
            ..spec(SamplingParams {
                logprobs: Some(1),
                // Nothing lifts what is not allowed.
                logit_bias: vec![(69, 100.0)],
                ..SamplingParams::default()
            })
        };
        let drawn = sampler.sample(&logits, 0, &spec).unwrap();
        seen.insert(drawn.token);
        // What is reported is the model's own.
        assert_eq!(drawn.logprobs.unwrap().top[0].token, 3);
        spec.params = Arc::new(SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        });
        assert_eq!(sampler.sample(&logits, 0, &spec).unwrap().token, 1);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 33, 34]);
    let nothing = SampleSpec {
        allowed: Some(vec![0, 0, 0].into()),
        ..spec(SamplingParams::default())
    };
    assert!(sampler.sample(&logits, 0, &nothing).is_err());
}

#[test]
fn random_numbers_fill_the_unit_interval_evenly() {
    let mut bins = [0_u32; 64];
    for i in 0..64_000 {
        let u = uniform(i / 1000, (i % 10) as u32, (i / 10 % 100) as u32);
        assert!((0.0..1.0).contains(&u));
        bins[(u * 64.0) as usize] += 1;
    }
    let statistic: f64 = bins
        .iter()
        .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
        .sum();
    assert!(statistic < 63.0 + 6.0 * 126.0_f64.sqrt(), "{statistic}");
}

#[test]
fn exponentials_are_accurate() {
    for i in 0..100_000 {
        let x = -(i as f32) * 8e-4;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x, 0.0, 1.0)) - exact).abs() / exact;
        // The argument's own rounding in base 2 grows with it.
        assert!(error < 3e-7 + 1.2e-7 * f64::from(-x), "exp({x}): {error}");
    }
    assert_eq!(exp(f32::NEG_INFINITY, 0.0, 1.0), 0.0);
    assert_eq!(exp(3.0, 3.0, 2.0), 1.0);
}
