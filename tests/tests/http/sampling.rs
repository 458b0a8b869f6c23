//! Parameters that change what is drawn, on the fake's own draws.

use serde_json::{Value, json};

use crate::server::{Options, Server};

fn drawing(seed: Option<u64>) -> Server {
    Server::start(Options {
        says: None,
        seed,
        ..Options::default()
    })
}

fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().unwrap()
}

#[tokio::test]
async fn a_seed_repeats_an_answer() {
    let server = drawing(None);
    let ask =
        |seed: Value| server.complete(json!({"prompt": "a", "seed": seed, "ignore_eos": true}));
    let (first, same, other) = (
        ask(json!(5)).await.json(),
        ask(json!(5)).await.json(),
        ask(json!(6)).await.json(),
    );
    assert_eq!(text(&first, 0), text(&same, 0));
    assert_ne!(text(&first, 0), text(&other, 0));
    let (first, second) = (ask(Value::Null).await.json(), ask(Value::Null).await.json());
    assert_ne!(
        text(&first, 0),
        text(&second, 0),
        "each request draws its own seed"
    );
}

#[tokio::test]
async fn a_server_with_a_seed_repeats_itself() {
    let mut answers = Vec::new();
    for _ in 0..2 {
        let server = drawing(Some(11));
        for _ in 0..2 {
            let answer = server
                .complete(json!({"prompt": "a", "ignore_eos": true}))
                .await
                .json();
            answers.push(text(&answer, 0).to_owned());
        }
    }
    assert_eq!(answers[..2], answers[2..]);
    assert_ne!(answers[0], answers[1]);
}

#[tokio::test]
async fn parameters_reach_the_sampler() {
    let server = drawing(None);
    // Penalties need a token that would come twice.
    let base = json!({"prompt": "a", "seed": 1, "ignore_eos": true, "max_tokens": 200});
    let plain = server.complete(base.clone()).await.json();
    for (name, value) in [
        ("temperature", json!(0)),
        ("presence_penalty", json!(2)),
        ("frequency_penalty", json!(2)),
        ("repetition_penalty", json!(9)),
        ("logit_bias", json!({"100": 100})),
    ] {
        let mut body = base.clone();
        body[name] = value;
        let answer = server.complete(body).await.json();
        assert_ne!(text(&answer, 0), text(&plain, 0), "{name} changed nothing");
    }
}

#[tokio::test]
async fn choices_differ_and_the_best_come_first() {
    let server = drawing(None);
    let body = |n: u32, best_of: u32| {
        json!({
        "prompt": "a", "seed": 3, "n": n, "best_of": best_of, "logprobs": 0, "ignore_eos": true})
    };
    let all = server.complete(body(6, 6)).await.json();
    let mean = |choice: &Value| {
        let values = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        values
            .iter()
            .map(|value| value.as_f64().unwrap())
            .sum::<f64>()
            / values.len() as f64
    };
    let mut ranked: Vec<&Value> = all["choices"].as_array().unwrap().iter().collect();
    ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = server.complete(body(2, 6)).await.json();
    assert_eq!(best["choices"].as_array().unwrap().len(), 2);
    for index in 0..2 {
        assert_eq!(best["choices"][index]["text"], ranked[index]["text"]);
        assert_eq!(best["choices"][index]["index"], index);
    }
    assert_eq!(
        best["usage"]["completion_tokens"],
        6 * 16,
        "all candidates are counted"
    );
    assert_ne!(text(&all, 0), text(&all, 1));
}
