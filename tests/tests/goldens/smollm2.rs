//! A real model in a real GGUF file: SmolLM2-135M-Instruct, Q4_1.

use std::path::PathBuf;

use serde_json::Value;

use crate::expected::{self, Greedy, Top, away, distance};
use crate::serve::{Machine, Server, greedy};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The demo model's file, where the server caches it.
fn demo_model() -> PathBuf {
    if let Some(path) = std::env::var_os("UNDERSTUDY_TEST_DEMO_GGUF") {
        return PathBuf::from(path);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .expect("HOME or XDG_CACHE_HOME is set");
    let path = cache.join("understudy").join(FILE);
    assert!(
        path.is_file(),
        "{} is missing. Fetch it by starting the server once without arguments (`cargo run \
         --release --bin understudy`), or set UNDERSTUDY_TEST_DEMO_GGUF to a copy of it",
        path.display()
    );
    path
}

struct Case {
    ids: Vec<u32>,
    top_first: Top,
    greedy: Greedy,
}

fn cases() -> Vec<Case> {
    let golden = expected::read("smollm2.json");
    let cases = golden["base"].as_array().expect("cases").iter();
    cases
        .map(|case: &Value| Case {
            ids: expected::ids(&case["ids"]),
            top_first: expected::top(&case["top_first"]),
            greedy: expected::greedy(&case["greedy"]),
        })
        .collect()
}

/// `tolerance` of log-probabilities; greedy tokens are compared where the margin exceeds `safe`.
fn check(machine: Machine, tolerance: f64, safe: f64) {
    let mut server = Server::start(&demo_model(), machine);
    let mut largest = 0.0_f64;
    for case in cases() {
        // The expected continuation as a prompt: every step is compared, whatever the margins.
        let mut ids = case.ids.clone();
        ids.extend(&case.greedy.ids);
        let scored = server.serve_alone(&greedy(&ids, 0, 20));
        let continuation = &scored.prompt[case.ids.len() - 1..];
        largest = largest.max(distance(&case.top_first, &continuation[0]));
        let ds: Vec<f64> = continuation
            .iter()
            .zip(&case.greedy.logprobs)
            .map(|(f, e)| f64::from(f.chosen.logprob) - e)
            .collect();
        let fs: Vec<f64> = case
            .top_first
            .ids
            .iter()
            .zip(&case.top_first.logprobs)
            .map(|(id, e)| {
                continuation[0]
                    .top
                    .iter()
                    .find(|t| t.token == *id)
                    .map_or(9.0, |t| f64::from(t.logprob) - e)
            })
            .collect();
        println!("{:.3?} first {:.3?}", ds, fs);
        for (step, (found, expected)) in continuation.iter().zip(&case.greedy.logprobs).enumerate()
        {
            largest = largest.max(away(&found.chosen, *expected));
            if case.greedy.margins[step] > safe {
                assert_eq!(found.top[0].token, case.greedy.ids[step], "step {step}");
            }
        }
        // And generated, while no step is doubtful.
        let certain = case
            .greedy
            .margins
            .iter()
            .take_while(|m| **m > safe)
            .count();
        let generated = server.serve_alone(&greedy(&case.ids, certain as u32, 0));
        let tokens: Vec<u32> = generated.tokens.iter().map(|token| token.token).collect();
        assert_eq!(tokens, case.greedy.ids[..certain]);
    }
    println!("SmolLM2 {:?}: {largest:.2e}", machine.numerics);
    assert!(largest <= tolerance, "{largest}");
}

#[test]
fn in_f32() {
    check(Machine::EXACT, 5e-3, 0.02);
}

#[test]
fn native_f32kv() {
    check(
        Machine {
            kv_type: kernels::KvType::F32,
            ..Machine::NATIVE
        },
        0.2,
        0.5,
    );
}
#[test]
fn f32_bf16kv() {
    check(
        Machine {
            kv_type: kernels::KvType::Bf16,
            ..Machine::EXACT
        },
        0.2,
        0.5,
    );
}
#[test]
fn native() {
    check(Machine::NATIVE, 0.2, 0.5);
}
