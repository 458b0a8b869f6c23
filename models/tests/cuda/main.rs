//! What a GPU draws, by the kernel that ships on the simulator, is what the host draws: the same
//! tokens and the same bits of log-probabilities.

use std::sync::Arc;

use kernels::cuda::{self, MOST_TOP, MOST_TOP_K};
use kernels::{SampleLimits, SampleRow, SampledRow};
use scheduler::{PromptScoring, SampleSpec, SampledToken, SamplingParams};

#[path = "../../../kernels/tests/cuda/gpu.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod gpu;

use gpu::Gpu;
use models::Sampler;
use models::ask::{self, OnHost};

const LIMITS: SampleLimits = SampleLimits {
    n_top: MOST_TOP,
    top_k: MOST_TOP_K,
};

/// Of rows of `n` logits each, one after the other. The logits must be as before.
fn on_device(logits: &[f32], n: usize, rows: &[SampleRow<'_>]) -> Vec<Option<SampledRow>> {
    let mut gpu = Gpu::new();
    let (bytes, n_changes) = cuda::pack_rows(rows);
    let at = gpu.upload(logits);
    let (wanted, saved) = (gpu.upload(&bytes), gpu.alloc(4 * n_changes.max(1)));
    let answers = gpu.alloc(rows.len() * cuda::ANSWER_BYTES);
    gpu.write(answers, &vec![0; rows.len() * cuda::ANSWER_BYTES]);
    gpu.run(&cuda::sample_rows(
        at,
        n,
        rows.len(),
        wanted,
        saved,
        answers,
    ));
    let after: Vec<f32> = gpu.download(at, logits.len());
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    assert_eq!(bits(&after), bits(logits), "logits are as before");
    let words: Vec<u32> = gpu.download(answers, rows.len() * cuda::ANSWER_BYTES / 4);
    let each = words.chunks_exact(cuda::ANSWER_BYTES / 4).zip(rows);
    each.map(|(words, row)| cuda::unpack_answer(words, row.n_top.is_some()))
        .collect()
}

fn plain(params: &SamplingParams, n_generated: u32) -> SampleSpec {
    SampleSpec {
        params: Arc::new(params.clone()),
        n_generated,
        history: Vec::new(),
        n_prompt: 0,
        banned: Arc::new([]),
        allowed: None,
        is_awaited: false,
    }
}

/// Parameters with every way to limit a draw, alone and together.
fn limits() -> Vec<SamplingParams> {
    let base = SamplingParams::default();
    let mut all = Vec::new();
    for (temperature, top_k, top_p, min_p) in [
        (0.0, 0, 1.0, 0.0),
        (1.0, 0, 1.0, 0.0),
        (0.3, 0, 1.0, 0.0),
        (1e-30, 0, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 40, 1.0, 0.0),
        (1.7, 700, 1.0, 0.0),
        (1.0, 0, 0.0, 0.0),
        (1.0, 0, 0.9, 0.0),
        (0.7, 0, 0.5, 0.0),
        (1.0, 0, 1.0, 0.05),
        (1.0, 0, 1.0, 1.0),
        (0.9, 50, 0.95, 0.0),
        (1.3, 64, 0.8, 0.02),
        (0.8, 0, 0.97, 0.1),
    ] {
        all.push(SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed: all.len() as u64,
            logprobs: [None, Some(0), Some(5), Some(20)][all.len() % 4],
            ..base.clone()
        });
    }
    all
}

/// Logits without structure, the same every time.
fn noise(n: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z >> 40) as f32 / (1 << 24) as f32 - 0.5) * spread
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of logits: spread out, with many ties, peaked, with tokens that never come.
fn rows_of(n: usize) -> Vec<Vec<f32>> {
    let ties = |x: f32| (x * 4.0).round() / 4.0;
    let mut never = noise(n, 20.0, 3);
    never
        .iter_mut()
        .step_by(3)
        .for_each(|x| *x = f32::NEG_INFINITY);
    never[n / 2] = 9.0;
    let mut peaked = noise(n, 6.0, 4);
    peaked[n / 2] = 30.0;
    let mut zeros = noise(n, 8.0, 5);
    zeros.iter_mut().for_each(|x| *x = x.min(0.0) * 0.5);
    zeros[n - 1] = -0.0;
    vec![
        noise(n, 30.0, 1),
        noise(n, 24.0, 2).into_iter().map(ties).collect(),
        never,
        peaked,
        zeros,
    ]
}

/// Draws on both; gives how many rows were left to the host.
fn compare(logits: &[Vec<f32>], specs: &[SampleSpec]) -> usize {
    let n = logits[0].len();
    let pairs: Vec<(&Vec<f32>, &SampleSpec)> = logits
        .iter()
        .flat_map(|row| specs.iter().map(move |spec| (row, spec)))
        .collect();
    let rows: Vec<SampleRow<'_>> = pairs
        .iter()
        .map(|(_, spec)| ask::draw(spec, 2, n, LIMITS).expect("within the limits"))
        .collect();
    let all: Vec<f32> = pairs.iter().flat_map(|(row, _)| (*row).clone()).collect();
    let found = on_device(&all, n, &rows);
    let mut sampler = Sampler::default();
    let mut n_host = 0;
    for ((row, spec), found) in pairs.iter().zip(found) {
        let expected = sampler.sample(row, 2, spec);
        let Some(found) = found else {
            n_host += 1;
            continue;
        };
        let found = ask::drawn(found);
        assert_same(&found, &expected.expect("a token"), spec);
    }
    n_host
}

fn assert_same(found: &SampledToken, expected: &SampledToken, spec: &SampleSpec) {
    assert_eq!(found, expected, "{spec:?}");
    let bits = |token: &SampledToken| -> Vec<u32> {
        let entries = token.logprobs.iter().flat_map(|all| {
            let top = all.top.iter().map(|entry| entry.logprob);
            top.chain([all.chosen.logprob])
        });
        entries.map(f32::to_bits).collect()
    };
    assert_eq!(bits(found), bits(expected), "{spec:?}");
}

#[test]
fn every_limit_draws_the_tokens_of_the_host() {
    for n in [1, 70, 1003, 2048] {
        let specs: Vec<SampleSpec> = limits()
            .iter()
            .flat_map(|params| (0..2).map(|i| plain(params, 7 * i)))
            .collect();
        assert_eq!(compare(&rows_of(n), &specs), 0, "{n} logits");
    }
}

/// A vocabulary beyond what a list holds, where only the likely ones are listed.
#[test]
fn large_vocabularies_are_drawn_from_without_the_host() {
    let specs: Vec<SampleSpec> = limits().iter().map(|params| plain(params, 5)).collect();
    let n_host = compare(&rows_of(9001)[..4], &specs);
    assert_eq!(n_host, 0);
}

/// Where more have a chance than a list holds, the host draws.
#[test]
fn flat_rows_are_left_to_the_host_where_they_must_be() {
    let flat = vec![vec![0.25; 9001], noise(9001, 1.0, 8)];
    let of = |top_k, top_p, min_p| {
        plain(
            &SamplingParams {
                top_k,
                top_p,
                min_p,
                ..SamplingParams::default()
            },
            3,
        )
    };
    // A draw from all needs no list.
    assert_eq!(compare(&flat, &[of(0, 1.0, 0.0)]), 0);
    assert_eq!(compare(&flat, &[of(0, 0.9, 0.0), of(0, 1.0, 0.1)]), 4);
    // The best of equals are among all of them.
    assert_eq!(compare(&flat, &[of(20, 1.0, 0.0)]), 1);
}

#[test]
fn biases_penalties_bans_and_grammars_act_as_on_the_host() {
    let mut specs = Vec::new();
    for params in limits() {
        let params = SamplingParams {
            logit_bias: vec![(0, 4.5), (33, -7.0), (69, 6.0)],
            presence_penalty: 0.4,
            frequency_penalty: 0.3,
            repetition_penalty: 1.2,
            ..params
        };
        let allowed: Vec<u32> = vec![0x0f0f_ff01, 0x8000_0003];
        for (banned, allowed) in [
            (vec![], None),
            (vec![1, 33, 68], None),
            (vec![40], Some(allowed.clone())),
        ] {
            specs.push(SampleSpec {
                history: (0..90).map(|i| i * i % 67).collect(),
                n_prompt: 30,
                banned: banned.into(),
                allowed: allowed.map(Into::into),
                ..plain(&params, 4)
            });
            // Of each alone.
            let last = specs[specs.len() - 1].clone();
            specs.push(SampleSpec {
                params: Arc::new(SamplingParams {
                    logit_bias: Vec::new(),
                    presence_penalty: 0.0,
                    frequency_penalty: 0.0,
                    repetition_penalty: 1.0,
                    ..params.clone()
                }),
                ..last
            });
        }
    }
    assert_eq!(compare(&rows_of(70), &specs), 0);
    assert_eq!(compare(&rows_of(3001)[..2], &specs[..24]), 0);
}

#[test]
fn scores_are_those_of_the_host() {
    let n = 3000;
    let logits = rows_of(n);
    let scoring = PromptScoring {
        first: 0,
        targets: vec![0, 1, 1500, 2999, 700],
        n_top: 7,
    };
    let rows: Vec<SampleRow<'_>> = (0..logits.len())
        .map(|i| ask::score(&scoring, i, n, LIMITS).expect("within the limits"))
        .collect();
    let found = on_device(&logits.concat(), n, &rows);
    let mut sampler = Sampler::default();
    for (i, found) in found.into_iter().enumerate() {
        let expected = sampler
            .score(&logits[i], scoring.targets[i], 7)
            .expect("numbers");
        let found = found.expect("few of them are equal");
        let logprobs = found.logprobs.expect("asked for");
        assert_eq!(ask::reported(found.token, &logprobs), expected);
    }
}

#[test]
fn what_is_no_number_is_left_to_the_host_to_name() {
    let n = 300;
    let mut rows = vec![noise(n, 3.0, 1); 3];
    rows[0][299] = f32::NAN;
    rows[1][0] = f32::INFINITY;
    rows[2].fill(f32::NEG_INFINITY);
    let spec = plain(&SamplingParams::default(), 0);
    assert_eq!(
        rows.iter()
            .filter(|row| Sampler::default().sample(row, 2, &spec).is_err())
            .count(),
        3
    );
    assert_eq!(compare(&rows, &[spec]), 3);
    // What is banned is looked at as well.
    let banned = SampleSpec {
        banned: Arc::new([299]),
        ..plain(&SamplingParams::default(), 0)
    };
    assert_eq!(compare(&rows[..1], &[banned]), 1);
    let nothing = SampleSpec {
        allowed: Some(Vec::new().into()),
        ..plain(&SamplingParams::default(), 0)
    };
    assert_eq!(compare(&[noise(n, 3.0, 1)], &[nothing]), 1);
}

#[test]
fn what_the_device_does_not_do_is_known_before() {
    let n = 5000;
    let refused = |params: SamplingParams| ask::draw(&plain(&params, 0), 0, n, LIMITS).err();
    let base = SamplingParams::default();
    let top_k = |top_k| SamplingParams {
        top_k,
        ..base.clone()
    };
    assert_eq!(refused(top_k(MOST_TOP_K)), None);
    assert_eq!(refused(top_k(MOST_TOP_K + 1)), Some(OnHost::TopK));
    assert_eq!(refused(top_k(5000)), None, "all of them");
    let bias = |logit_bias| SamplingParams {
        logit_bias,
        ..base.clone()
    };
    assert_eq!(
        refused(bias(vec![(1, 1.0), (1, 1.0)])),
        Some(OnHost::TwoBiases)
    );
    assert_eq!(refused(bias(vec![(5000, 1.0)])), Some(OnHost::Invalid));
    let logprobs = SamplingParams {
        logprobs: Some(21),
        ..base
    };
    assert_eq!(refused(logprobs), Some(OnHost::Logprobs));
}
