//! Captured steps.

use serde_json::json;

use crate::answers::ask;
use crate::machine::{Server, Setup, is_real, model};

/// A replay gives the bits that single starts give.
#[test]
fn replay_equals_eager() {
    let dir = model("gemma3");
    let greedy = json!({"temperature": 0});
    let mut answers = Vec::new();
    let mut fingerprints = Vec::new();
    for args in [&[][..], &["--enforce-eager"]] {
        let server = Setup::with_gpu(dir.path(), args).start();
        // Each prompt alone would do; together they need not come in the same batches, which
        // changes no bit either.
        answers.push(ask(&server, &["base"], &greedy));
        let n_graphs = server
            .trace()
            .lines()
            .filter(|line| line.contains("graph"))
            .count();
        let is_right = (n_graphs > 0) == args.is_empty();
        assert!(is_real() || is_right, "{n_graphs} graphs");
        fingerprints.push(fingerprint(&server));
        server.end_clean();
    }
    assert_eq!(answers[0], answers[1]);
    // The CPU gives other bits, and says so.
    fingerprints.push(fingerprint(
        &Setup::without_gpu(dir.path(), &["--device", "cpu"]).start(),
    ));
    assert_eq!(fingerprints[0], fingerprints[1]);
    assert_ne!(fingerprints[0], fingerprints[2]);
}

fn fingerprint(server: &Server) -> String {
    let body = json!({"model": "base", "prompt": [5], "max_tokens": 1});
    let (_, answer) = server.post("/v1/completions", &body);
    answer["system_fingerprint"].as_str().unwrap().to_owned()
}
