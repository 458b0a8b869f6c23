//! Requests, and how answers of two back ends compare.
//!
//! The rule: as long as both have drawn the same tokens, the logarithms of probabilities differ
//! by at most a bound, and where the tokens differ, the first back end was undecided between
//! them, that is by less than twice the bound. What follows is not compared: it answers another
//! text. With `--dtype float32` nobody is undecided in these tests: all tokens are the same,
//! drawn ones as well.

use serde_json::{Value, json};

use crate::machine::Server;

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawn {
    token: String,
    logprob: f64,
    /// The most likely tokens, the likeliest first.
    top: Vec<(String, f64)>,
}

/// Prompts of tokens, from one token to several blocks of the cache.
pub(crate) fn prompts() -> Vec<Vec<u32>> {
    [1, 5, 16, 40, 70]
        .into_iter()
        .enumerate()
        .map(|(i, len)| {
            (0..len)
                .map(|k| (7 + 31 * k + 97 * i as u32) % 500)
                .collect()
        })
        .collect()
}

const N_TOKENS: usize = 8;

/// Asks for every prompt of every model at once, so that batches hold all of them.
pub(crate) fn ask(server: &Server, models: &[&str], sampling: &Value) -> Vec<Vec<Drawn>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for model in models {
            for prompt in prompts() {
                let mut body = json!({
                    "model": model, "prompt": prompt, "max_tokens": N_TOKENS, "logprobs": 4,
                    "ignore_eos": true,
                });
                for (key, value) in sampling.as_object().unwrap() {
                    body[key] = value.clone();
                }
                threads.push(scope.spawn(move || {
                    let (status, answer) = server.post("/v1/completions", &body);
                    assert_eq!(status, 200, "{answer}");
                    drawn(&answer)
                }));
            }
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
}

fn drawn(answer: &Value) -> Vec<Drawn> {
    let logprobs = &answer["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    let token = |(i, token): (usize, &Value)| {
        let top = logprobs["top_logprobs"][i].as_object().unwrap();
        let top = top.iter().map(|(t, p)| (t.clone(), p.as_f64().unwrap()));
        let mut top: Vec<(String, f64)> = top.collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        Drawn {
            token: token.as_str().unwrap().to_owned(),
            logprob: logprobs["token_logprobs"][i].as_f64().unwrap(),
            top,
        }
    };
    tokens.iter().enumerate().map(token).collect()
}

/// Holds `found` against `expected`. Most tokens must have been comparable.
pub(crate) fn compare(expected: &[Vec<Drawn>], found: &[Vec<Drawn>], bound: f64) {
    assert_eq!(expected.len(), found.len());
    let (mut n_same, mut n_all, mut worst) = (0, 0, 0.0_f64);
    for (expected, found) in expected.iter().zip(found) {
        n_all += N_TOKENS;
        for (i, (a, b)) in expected.iter().zip(found).enumerate() {
            let Some((_, there)) = b.top.iter().find(|(token, _)| *token == a.token) else {
                panic!("token {i}: {a:?} is not even likely in {b:?}");
            };
            worst = worst.max((a.logprob - there).abs());
            if a.token != b.token {
                let margin = a.top[0].1 - a.top[1].1;
                assert!(margin < 2.0 * bound, "token {i}: {a:?}, {b:?}");
                break;
            }
            n_same += 1;
        }
    }
    assert!(worst <= bound, "logprobs differ by {worst}, bound {bound}");
    assert!(4 * n_same >= 3 * n_all, "{n_same} of {n_all} are the same");
}

/// All tokens are the same, and their logprobs nearly.
pub(crate) fn compare_exactly(expected: &[Vec<Drawn>], found: &[Vec<Drawn>]) {
    assert_eq!(expected.len(), found.len());
    for (expected, found) in expected.iter().zip(found) {
        let tokens = |all: &[Drawn]| -> Vec<String> {
            all.iter().map(|drawn| drawn.token.clone()).collect()
        };
        assert_eq!(tokens(expected), tokens(found));
        for (a, b) in expected.iter().zip(found) {
            assert!((a.logprob - b.logprob).abs() < 2e-3, "{a:?}, {b:?}");
        }
    }
}
