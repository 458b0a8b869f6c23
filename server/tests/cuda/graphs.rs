//! Captured steps.

use serde_json::json;

use crate::answers::ask;
use crate::machine::{Setup, is_real, model};

/// A replay gives the bits that single starts give.
#[test]
fn replay_equals_eager() {
    let dir = model("gemma3");
    let greedy = json!({"temperature": 0});
    let mut answers = Vec::new();
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
        server.end_clean();
    }
    assert_eq!(answers[0], answers[1]);
}
