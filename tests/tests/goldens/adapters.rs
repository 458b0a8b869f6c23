//! Adapters on micro models: alone, stacked, and in one batch with each other.

use kernels::WeightType;
use models::{Checkpoint, merge};
use scheduler::{AdapterId, Request};
use serde_json::Value;

use crate::expected::{self, Case};
use crate::micro::{AMBIGUOUS, N_GREEDY, TOLERANCE, largest_distance};
use crate::serve::{Machine, Outcome, Server, greedy};

fn start(base: &str, machine: Machine) -> Server {
    Server::start(&expected::fixtures().join("models").join(base), machine)
}

fn cases(golden: &Value) -> Vec<Case> {
    let cases = golden["cases"].as_array().expect("cases");
    cases.iter().map(expected::case).collect()
}

/// One thing that is served: the base, an adapter or a stack.
struct Served {
    name: String,
    parts: Vec<(String, f32)>,
    cases: Vec<Case>,
}

/// Everything that the goldens of a base have. PEFT's linear combination has cross terms between
/// adapters, which an exact weighted sum does not.
fn all(base: &str) -> Vec<Served> {
    let golden = expected::read(&format!("adapters/{base}.json"));
    let mut all = Vec::new();
    for (kind, own) in golden["adapters"].as_object().expect("adapters") {
        all.push(Served {
            name: kind.clone(),
            parts: vec![(format!("{base}-{kind}"), 1.0)],
            cases: cases(own),
        });
    }
    for stack in golden["stacked"].as_array().expect("stacks") {
        if stack["combination"] == "linear" {
            continue;
        }
        let names = stack["adapters"].as_array().expect("names").iter();
        let names = names.map(|name| format!("{base}-{}", name.as_str().expect("a name")));
        let weights = expected::floats(&stack["weights"]);
        all.push(Served {
            name: format!("{names:?} {weights:?}", names = stack["adapters"]),
            parts: names.zip(weights.iter().map(|w| *w as f32)).collect(),
            cases: cases(stack),
        });
    }
    all
}

/// A request for what was inserted under `id`. Its root keeps keys of adapters apart.
fn request(case: &Case, id: Option<u32>) -> Request {
    Request {
        adapter: id.map(AdapterId),
        kv_root: id.map_or(0, |id| u64::from(id) + 1),
        ..greedy(&case.ids, N_GREEDY, 20)
    }
}

fn insert_all(server: &Server, all: &[Served]) {
    for (id, served) in all.iter().enumerate() {
        let parts = served.parts.iter();
        let parts = parts.map(|(name, weight)| (server.adapter(name), *weight));
        server.insert(id as u32, parts.collect());
    }
}

/// Every golden alone; then all of them, with the base, in one batch, in chunks and preempted,
/// bit for bit the same.
fn check(base: &str) {
    let all = all(base);
    let mut server = start(base, Machine::EXACT);
    insert_all(&server, &all);
    let mut requests = Vec::new();
    for (id, served) in all.iter().enumerate() {
        for case in &served.cases {
            let request = request(case, Some(id as u32));
            let outcome = server.serve_alone(&request);
            let largest = largest_distance(case, &outcome, AMBIGUOUS);
            assert!(largest <= TOLERANCE, "{base} {}: {largest}", served.name);
            requests.push(request);
        }
    }
    let case = &all[0].cases[0];
    requests.insert(1, request(case, None));
    requests.push(request(case, None));
    check_together(base, &all, &requests);
}

fn check_together(base: &str, all: &[Served], requests: &[Request]) {
    let exact = Machine {
        max_sequences: 16,
        ..Machine::EXACT
    };
    let mut server = start(base, exact);
    insert_all(&server, all);
    let alone: Vec<Outcome> = requests.iter().map(|r| server.serve_alone(r)).collect();
    let together = server.serve(requests);
    assert_eq!(alone, together.outcomes, "in one batch");
    let machines = [
        Machine {
            max_batched_tokens: 5,
            ..exact
        },
        Machine {
            block_size: 4,
            n_blocks: 24,
            ..exact
        },
    ];
    for machine in machines {
        let mut server = start(base, machine);
        insert_all(&server, all);
        let served = server.serve(requests);
        assert!(machine.block_size > 4 || served.n_preemptions > 0);
        assert_eq!(alone, served.outcomes, "{machine:?}");
    }
}

/// Merged into a copy of the checkpoint, an adapter gives what PEFT's own merging gives.
fn check_merged(base: &str) {
    let golden = expected::read(&format!("adapters/{base}.json"));
    let models = expected::fixtures().join("models").join(base);
    let target = start(base, Machine::EXACT);
    let mut n_merged = 0;
    for (kind, own) in golden["adapters"].as_object().expect("adapters") {
        let Some(merged) = own["merged"].as_object() else {
            continue;
        };
        let scratch = tempfile::tempdir().expect("a directory for temporary files");
        let dir = scratch.path();
        std::fs::copy(models.join("config.json"), dir.join("config.json")).expect("a copy");
        let checkpoint = Checkpoint::open(&models).expect("it opens");
        let adapter = expected::fixtures()
            .join("adapters")
            .join(format!("{base}-{kind}"));
        let target = target.adapter_target();
        let ty = Some(WeightType::F32);
        merge(&checkpoint, target, &[(&adapter, 1.0)], ty, dir).expect("it can be merged");
        let mut server = Server::start(dir, Machine::EXACT);
        let ids = expected::ids(&merged["ids"]);
        let outcome = server.serve_alone(&greedy(&ids, 1, 20));
        let mut after: Vec<_> = outcome.prompt.iter().collect();
        after.push(outcome.tokens[0].logprobs.as_ref().expect("asked for"));
        let first = merged["pos0"].as_u64().expect("a position") as usize;
        let tops = merged["top"].as_array().expect("tops");
        for (top, found) in tops.iter().zip(&after[first..]) {
            let largest = expected::top(top).differences(found).fold(0.0, f64::max);
            assert!(largest <= TOLERANCE, "{base} {kind}: {largest}");
        }
        assert_eq!(tops.len(), after.len() - first);
        n_merged += 1;
    }
    assert!(n_merged >= 3, "{n_merged}");
}

#[test]
fn merged() {
    for base in ["llama31-gqa", "qwen2", "gemma3"] {
        check_merged(base);
    }
}

#[test]
fn llama() {
    check("llama31-gqa");
}

#[test]
fn qwen() {
    check("qwen2");
}

#[test]
fn gemma() {
    check("gemma3");
}
