//! A real model in a real GGUF file: SmolLM2-135M-Instruct, Q4_1.

use std::path::PathBuf;

use serde_json::Value;
use understudy::source::{self, SourceSettings};

use crate::expected::{self, Greedy, Top, away};
use crate::serve::{Machine, Server, greedy};

/// The demo model's file, from the caches of the server: tests fetch nothing.
fn demo_model() -> PathBuf {
    if let Some(path) = std::env::var_os("UNDERSTUDY_TEST_DEMO_GGUF") {
        return PathBuf::from(path);
    }
    let settings = SourceSettings {
        offline: true,
        python: "no-python".into(),
        ..SourceSettings::from_env().expect("a place for caches")
    };
    match source::resolve(None, &settings) {
        Ok(found) => found.path,
        Err(error) => panic!(
            "The demo model is not in the cache. Fetch it by starting the server once without \
             arguments (`cargo run --release --bin understudy`), or set \
             UNDERSTUDY_TEST_DEMO_GGUF to a copy of it. {error}"
        ),
    }
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

/// Differences from the golden log-probabilities.
struct Distances {
    largest: f64,
    root_mean_square: f64,
}

/// Compares log-probabilities at every step, and greedy tokens where the margin exceeds `safe`.
fn compare(machine: Machine, safe: f64) -> Distances {
    let mut server = Server::start(&demo_model(), machine);
    let mut differences = Vec::new();
    for case in cases() {
        // The expected continuation as a prompt: every step is compared, whatever the margins.
        let mut ids = case.ids.clone();
        ids.extend(&case.greedy.ids);
        let scored = server.serve_alone(&greedy(&ids, 0, 60));
        let continuation = &scored.prompt[case.ids.len() - 1..];
        differences.extend(case.top_first.differences(&continuation[0]));
        for (step, found) in continuation.iter().enumerate() {
            differences.push(away(&found.chosen, case.greedy.logprobs[step]));
            if case.greedy.margins[step] > safe {
                assert_eq!(found.top[0].token, case.greedy.ids[step], "step {step}");
            }
        }
        // And generated, while no step is doubtful.
        let steps = case.greedy.margins.iter();
        let n_certain = steps.take_while(|margin| **margin > safe).count();
        let generated = server.serve_alone(&greedy(&case.ids, n_certain as u32, 0));
        let tokens: Vec<u32> = generated.tokens.iter().map(|token| token.token).collect();
        assert_eq!(tokens, case.greedy.ids[..n_certain]);
    }
    let squares: f64 = differences.iter().map(|x| x * x).sum();
    Distances {
        largest: differences.iter().copied().fold(0.0, f64::max),
        root_mean_square: (squares / differences.len() as f64).sqrt(),
    }
}

#[test]
fn in_f32() {
    let found = compare(Machine::EXACT, 0.02);
    assert!(found.largest <= 5e-3, "{}", found.largest);
}

/// Rounding activations to int8 in groups of 32, in a forward that is exact otherwise, moves
/// these very log-probabilities by 0.075 in the root mean square and by 0.27 at most, and which
/// of them it moves how far is chance. The bounds leave room for that, and none for a mistake.
#[test]
fn native() {
    let found = compare(Machine::NATIVE, 0.5);
    assert!(found.root_mean_square <= 0.12, "{}", found.root_mean_square);
    assert!(found.largest <= 0.6, "{}", found.largest);
}
