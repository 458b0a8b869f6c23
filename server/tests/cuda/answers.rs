//! Requests, and how answers of two back ends compare.
//!
//! The rule: as long as both have drawn the same tokens, the logarithms of probabilities differ
//! by at most a bound, and where the tokens differ, the first back end was undecided between
//! them, that is by less than twice the bound. What follows is not compared: it answers another
//! text. A mixture of experts may be beyond at a few tokens, where rounding turned the choice of an
//! expert. With `--dtype float32` nobody is undecided in these tests: all tokens are the same,
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

/// How far rounding may carry answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Of a difference between logprobs.
    pub(crate) logprob: f64,
    /// Of their mean.
    pub(crate) mean: f64,
    /// Share of tokens that may be beyond.
    pub(crate) beyond: f64,
}

/// Holds `found` against `expected`. Most tokens must have been comparable.
pub(crate) fn compare(expected: &[Vec<Drawn>], found: &[Vec<Drawn>], bound: Bound) {
    assert_eq!(expected.len(), found.len());
    let (mut n_same, mut n_beyond, mut differences) = (0, 0, Vec::new());
    for (expected, found) in expected.iter().zip(found) {
        for (a, b) in expected.iter().zip(found) {
            let there = b.top.iter().find(|(token, _)| *token == a.token);
            // A token that is not even among the likely ones there.
            let difference = there.map_or(9.0, |(_, there)| (a.logprob - there).abs());
            let is_same = a.token == b.token;
            let margin = a.top[0].1 - a.top[1].1;
            let is_beyond =
                difference > bound.logprob || (!is_same && margin > 2.0 * bound.logprob);
            n_beyond += usize::from(is_beyond);
            if !is_beyond {
                differences.push(difference);
            }
            if !is_same {
                break;
            }
            n_same += 1;
        }
    }
    let n_all = N_TOKENS * expected.len();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let worst = differences.iter().copied().fold(0.0, f64::max);
    let told = format!(
        "{n_same} of {n_all} tokens are the same, {n_beyond} beyond; logprobs differ by {mean:.4} \
         in the mean, {worst:.4} at worst; {bound:?}"
    );
    let is_right = n_beyond as f64 <= bound.beyond * n_all as f64 && mean <= bound.mean;
    assert!(is_right && 2 * n_same >= n_all, "{told}");
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
