//! A real model in a real GGUF file: SmolLM2-135M-Instruct, Q4_1.

use std::path::PathBuf;

use scheduler::{AdapterId, Request};
use serde_json::Value;
use understudy::source::{self, SourceSettings};

use crate::expected::{self, Greedy, Top, away};
use crate::serve::{Machine, Outcome, Server, greedy};

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

/// Of an adapter, or of the base.
fn cases(adapter: Option<&str>) -> Vec<Case> {
    let golden = expected::read("smollm2.json");
    let own = match adapter {
        Some(adapter) => &golden["adapters"][adapter],
        None => &golden["base"],
    };
    let cases = own.as_array().expect("cases").iter();
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

/// The trained adapters, each under its index as an id.
const ADAPTERS: [&str; 4] = [
    "smollm2-intent",
    "smollm2-pirate",
    "smollm2-sentiment",
    "smollm2-signoff",
];

/// The demo model with the trained adapters, and two stacks of them as ids 4 and 5.
fn start(machine: Machine) -> Server {
    let server = Server::start(&demo_model(), machine);
    let adapters = ADAPTERS.map(|name| server.adapter(name));
    let parts = |list: &[(usize, f32)]| {
        let part = |(i, weight): &(usize, f32)| (adapters[*i].clone(), *weight);
        list.iter().map(part).collect()
    };
    for id in 0..ADAPTERS.len() {
        server.insert(id as u32, parts(&[(id, 1.0)]));
    }
    server.insert(4, parts(&[(0, 0.7), (1, 0.3)]));
    server.insert(5, parts(&[(3, 1.25), (2, -0.5), (1, 0.25)]));
    server
}

/// Of what was inserted under `id`, or of the base. Its root keeps keys of adapters apart.
fn request(ids: &[u32], n_new: u32, n_top: u8, id: Option<u32>) -> Request {
    Request {
        adapter: id.map(AdapterId),
        kv_root: id.map_or(0, |id| u64::from(id) + 1),
        ..greedy(ids, n_new, n_top)
    }
}

/// Compares log-probabilities at every step, and greedy tokens where the margin exceeds `safe`.
fn compare(server: &mut Server, adapter: Option<usize>, safe: f64) -> Distances {
    let id = adapter.map(|adapter| adapter as u32);
    let mut differences = Vec::new();
    for case in cases(adapter.map(|adapter| ADAPTERS[adapter])) {
        // The expected continuation as a prompt: every step is compared, whatever the margins.
        let mut ids = case.ids.clone();
        ids.extend(&case.greedy.ids);
        let scored = server.serve_alone(&request(&ids, 0, 60, id));
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
        let generated = server.serve_alone(&request(&case.ids, n_certain as u32, 0, id));
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
    let mut server = start(Machine::EXACT);
    for adapter in [None, Some(0), Some(1), Some(2), Some(3)] {
        let found = compare(&mut server, adapter, 0.02);
        assert!(found.largest <= 5e-3, "{adapter:?}: {}", found.largest);
    }
}

/// Rounding activations to int8 in groups of 32, in a forward that is exact otherwise, moves
/// these very log-probabilities by 0.075 in the root mean square and by 0.27 at most, and which
/// of them it moves how far is chance. The bounds leave room for that, and none for a mistake.
#[test]
fn native() {
    let mut server = start(Machine::NATIVE);
    let found = compare(&mut server, None, 0.5);
    assert!(found.root_mean_square <= 0.12, "{}", found.root_mean_square);
    assert!(found.largest <= 0.6, "{}", found.largest);
}

/// What an adapter adds is computed from activations as they are; only the model's own layers
/// round theirs to int8. Trained adapters are surer of themselves than their base.
#[test]
fn adapters_on_native_weights() {
    let mut server = start(Machine::NATIVE);
    for (adapter, name) in ADAPTERS.iter().enumerate() {
        let found = compare(&mut server, Some(adapter), 2.0);
        let bound = 0.25;
        assert!(
            found.root_mean_square <= bound,
            "{name}: {}",
            found.root_mean_square
        );
    }
}

/// Base, four adapters and two stacks in one batch, in chunks and preempted, as served natively:
/// bit for bit what each request gives alone.
#[test]
fn sixteen_requests_of_seven_kinds() {
    let machine = Machine {
        max_sequences: 16,
        n_blocks: 160,
        ..Machine::NATIVE
    };
    let prompts = cases(None);
    let ids = [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)];
    let requests: Vec<Request> = (0..16)
        .map(|i| request(&prompts[i % prompts.len()].ids, 16, 3, ids[i % ids.len()]))
        .collect();
    let mut server = start(machine);
    let alone: Vec<Outcome> = requests.iter().map(|r| server.serve_alone(r)).collect();
    let kinds: std::collections::BTreeSet<String> = alone[..7]
        .iter()
        .map(|outcome| format!("{:?}", outcome.tokens))
        .collect();
    assert_eq!(kinds.len(), 7, "an adapter or a stack changes nothing");
    assert_eq!(alone, server.serve(&requests).outcomes, "in one batch");
    let in_chunks = Machine {
        max_batched_tokens: 24,
        ..machine
    };
    assert_eq!(
        alone,
        start(in_chunks).serve(&requests).outcomes,
        "in chunks"
    );
    let cramped = Machine {
        block_size: 4,
        n_blocks: 60,
        ..machine
    };
    let served = start(cramped).serve(&requests);
    assert!(served.n_preemptions > 0, "nothing was preempted");
    assert_eq!(alone, served.outcomes, "after preemption");
}
