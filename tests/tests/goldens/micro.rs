//! Micro models with random weights, one for each thing that a configuration can say.
//!
//! The weights are harsh on purpose: 2e-4 separates a right model from one that ignores any
//! single parameter.

use std::sync::Arc;

use kernels::KvType;
use scheduler::{Request, SamplingParams};

use crate::expected::{self, Case, away};
use crate::serve::{Machine, Outcome, Served, Server, greedy};

pub(crate) const TOLERANCE: f64 = 2e-4;
pub(crate) const N_GREEDY: u32 = 24;
/// A step with a smaller margin may go either way; what follows it is another text.
pub(crate) const AMBIGUOUS: f64 = 1e-3;

pub(crate) fn cases(model: &str) -> Vec<Case> {
    let golden = expected::read(&format!("models/{model}.json"));
    let cases = golden["cases"].as_array().expect("cases");
    cases.iter().map(expected::case).collect()
}

fn start(model: &str, machine: Machine) -> Server {
    Server::start(&expected::fixtures().join("models").join(model), machine)
}

/// The largest distance of any log-probability from the golden's, of prompt and continuation.
pub(crate) fn largest_distance(case: &Case, outcome: &Outcome, ambiguous: f64) -> f64 {
    let mut largest = 0.0_f64;
    let first = outcome.tokens[0].logprobs.as_ref();
    let mut after: Vec<_> = outcome.prompt.iter().collect();
    after.push(first.expect("log-probabilities were asked for"));
    assert_eq!(after.len(), case.ids.len());
    for (top, found) in case.top.iter().zip(&after[case.pos0..]) {
        largest = top.differences(found).fold(largest, f64::max);
    }
    let greedy = &case.greedy;
    for (step, token) in outcome.tokens.iter().enumerate() {
        if greedy.margins[step] < ambiguous {
            break;
        }
        assert_eq!(token.token, greedy.ids[step], "greedy step {step}");
        let found = token.logprobs.as_ref().expect("they were asked for");
        largest = largest.max(away(&found.chosen, greedy.logprobs[step]));
    }
    largest
}

/// Logits minus their log-sum-exp are log-probabilities.
fn check_last_logits(case: &Case, outcome: &Outcome) {
    let total: f64 = case.last_logits.iter().map(|x| x.exp()).sum();
    let found = outcome.tokens[0].logprobs.as_ref().expect("asked for");
    assert_eq!(found.top.len(), 255);
    for entry in &found.top {
        let logit = case.last_logits[entry.token as usize];
        assert!(away(entry, logit - total.ln()) < 5e-4, "{entry:?}: {logit}");
    }
}

/// The prompts (most models have four), greedy, and the same prompts drawn at random, as company.
fn eight_requests(cases: &[Case]) -> Vec<Request> {
    let mut requests = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let plain = greedy(&case.ids, N_GREEDY, 20);
        let params = SamplingParams {
            temperature: 1.3,
            top_p: 0.9,
            repetition_penalty: 1.1,
            seed: i as u64,
            ..(*plain.sampling).clone()
        };
        requests.push(plain.clone());
        requests.push(Request {
            sampling: Arc::new(params),
            ..plain
        });
    }
    requests
}

fn assert_same(alone: &[Outcome], served: &Served, how: &str) {
    for (i, (expected, found)) in alone.iter().zip(&served.outcomes).enumerate() {
        // Bitwise: equality of f32 here has no tolerance.
        assert_eq!(expected, found, "request {i} {how}");
    }
}

/// Everything that a model must show in f32.
fn check(model: &str) {
    // The longest needs 32 blocks, all of them some 90.
    check_cases(model, &cases(model), Machine::EXACT.max_model_len, 40);
}

/// `n_cramped`: blocks of four positions, enough for any request and too few for those that are
/// admitted with their prompts to grow.
fn check_cases(model: &str, cases: &[Case], max_model_len: usize, n_cramped: usize) {
    let exact = Machine {
        max_model_len,
        ..Machine::EXACT
    };
    let requests = eight_requests(cases);
    let mut roomy = start(model, exact);
    let alone: Vec<Outcome> = requests
        .iter()
        .map(|request| roomy.serve_alone(request))
        .collect();
    for (i, case) in cases.iter().enumerate() {
        let largest = largest_distance(case, &alone[2 * i], AMBIGUOUS);
        assert!(largest <= TOLERANCE, "{model}: {largest}");
        if !case.last_logits.is_empty() {
            let outcome = roomy.serve_alone(&greedy(&case.ids, 1, 255));
            check_last_logits(case, &outcome);
        }
    }

    let together = roomy.serve(&requests);
    assert_same(&alone, &together, "in a batch of 8");

    let in_chunks = Machine {
        max_batched_tokens: 5,
        ..exact
    };
    let chunked = start(model, in_chunks).serve(&requests);
    assert!(chunked.n_steps > 2 * together.n_steps);
    assert_same(&alone, &chunked, "in chunks of 5 tokens");

    let preempted = start(model, cramped(&roomy, exact, n_cramped)).serve(&requests);
    assert!(preempted.n_preemptions > 0, "nothing was preempted");
    assert_same(&alone, &preempted, "after preemption");
}

/// The machine with blocks of four positions, `n_blocks` of them. Where all layers have windows,
/// that is what is needed, not the whole context.
fn cramped(server: &Server, machine: Machine, n_blocks: usize) -> Machine {
    let in_windows = |window: usize| window.div_ceil(4) + 12;
    Machine {
        block_size: 4,
        n_blocks: server.window().map_or(n_blocks, in_windows),
        ..machine
    }
}

/// A guard against gross errors: the golden's own figure for bf16, twice.
fn check_native(model: &str) {
    check_native_cases(model, &cases(model), Machine::NATIVE.max_model_len);
}

fn check_native_cases(model: &str, cases: &[Case], max_model_len: usize) {
    let golden = expected::read(&format!("models/{model}.json"));
    let figure = &golden["lower_precision"]["bf16"]["max_abs_dlogprob_top10"];
    let bound = 2.0 * figure.as_f64().expect("a figure");
    let machine = Machine {
        max_model_len,
        ..Machine::NATIVE
    };
    let mut server = start(model, machine);
    for case in cases {
        let outcome = server.serve_alone(&greedy(&case.ids, N_GREEDY, 60));
        let largest = largest_distance(case, &outcome, bound);
        assert!(largest <= bound, "{model}: {largest} over {bound}");
    }
}

/// Keys and values rounded for the cache, all else exact: near the golden within so many times its
/// own figure for bf16, and the same bits in a batch, in chunks and after preemption.
fn check_cache(model: &str, kv_type: KvType, n_times: f64) {
    let golden = expected::read(&format!("models/{model}.json"));
    let figure = &golden["lower_precision"]["bf16"]["max_abs_dlogprob_top10"];
    let bound = n_times * figure.as_f64().expect("a figure");
    let exact = Machine {
        kv_type,
        ..Machine::EXACT
    };
    let cases = cases(model);
    let requests = eight_requests(&cases);
    let mut server = start(model, exact);
    let alone: Vec<Outcome> = requests
        .iter()
        .map(|request| server.serve_alone(request))
        .collect();
    for (i, case) in cases.iter().enumerate() {
        let largest = largest_distance(case, &alone[2 * i], bound);
        assert!(largest <= bound, "{model}: {largest} over {bound}");
    }
    assert_same(&alone, &server.serve(&requests), "in a batch of 8");
    let in_chunks = Machine {
        max_batched_tokens: 5,
        ..exact
    };
    let chunked = start(model, in_chunks).serve(&requests);
    assert_same(&alone, &chunked, "in chunks of 5 tokens");
    let preempted = start(model, cramped(&server, exact, 40)).serve(&requests);
    assert!(preempted.n_preemptions > 0, "nothing was preempted");
    assert_same(&alone, &preempted, "after preemption");
}

/// Plain, with windows, and with heads of another size.
const CACHED: [&str; 3] = ["llama31-gqa", "mistral-sw", "gemma3"];

#[test]
fn bf16_caches() {
    for model in CACHED {
        check_cache(model, KvType::Bf16, 1.0);
    }
}

#[test]
fn int8_caches() {
    for model in CACHED {
        check_cache(model, KvType::Int8, 3.0);
    }
}

#[test]
fn fp8_caches() {
    for model in CACHED {
        check_cache(model, KvType::Fp8, 10.0);
    }
}

macro_rules! micro_models {
    ($($test:ident: $model:literal,)*) => {
        mod exact {
            $(#[test] fn $test() { super::check($model); })*
        }
        mod native {
            $(#[test] fn $test() { super::check_native($model); })*
        }
    };
}

each_model!(micro_models, opt: "opt", falcon_alibi: "falcon-alibi",);

/// LongRope has two lists of frequencies, and which one rotates is settled by the longest
/// sequence that is served. The goldens chose by the length of each prompt, so the short ones
/// are checked on a server of short sequences.
#[test]
fn phi3_longrope() {
    let all = cases("phi3-longrope");
    check_cases("phi3-longrope", &all[..3], 64, 24);
    check_cases("phi3-longrope", &all[3..], 256, 56);
    check_native_cases("phi3-longrope", &all[..3], 64);
    check_native_cases("phi3-longrope", &all[3..], 256);
}
