//! Tokens that a grammar leaves no choice about need no step, and change nothing else.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{Answer, Options, Server, merge};

fn server(forces_tokens: bool, says: Option<&'static str>) -> Server {
    Server::start(Options {
        says,
        forces_tokens,
        max_model_len: 1000,
        ..Options::default()
    })
}

fn order() -> Value {
    let address = json!({"type": "object", "properties": {"shipping street": {"enum": ["Elm", "Oak"]},
        "house number": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["shipping street", "house number"]});
    let schema = json!({"type": "object", "properties": {"delivery address": address,
        "is a wonderful present": {"type": "boolean"}},
        "required": ["delivery address", "is a wonderful present"]});
    json!({"type": "json_schema", "json_schema": {"name": "order", "schema": schema}})
}

fn cases() -> Vec<Value> {
    let order = |more: Value| merge(json!({"response_format": order(), "n": 3}), more);
    let choice = json!({"choice": ["the first of them", "the second of them", "neither"]});
    let long = json!({"regex": "(so it goes on and on, [a-f]{3} ){20}"});
    vec![
        order(json!({})),
        order(json!({"temperature": 0})),
        order(
            json!({"frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.2}),
        ),
        order(json!({"logprobs": true, "top_logprobs": 2})),
        order(json!({"max_tokens": 13})),
        order(json!({"stop": "wonderful"})),
        order(json!({"min_tokens": 8})),
        json!({"structured_outputs": choice, "n": 4}),
        json!({"structured_outputs": choice, "n": 4, "return_tokens_as_token_ids": true, "logprobs": true}),
        merge(json!({"max_tokens": 100}), long.clone()),
        merge(
            json!({"stop": ["goes on", "c"], "n": 4, "min_tokens": 3}),
            long,
        ),
        json!({"regex": "a fixed text, and nothing else"}),
        // More than is walked at a time, and more than is appended in a step.
        json!({"regex": "(yes|no)x{40000}", "max_tokens": 300}),
        json!({"regex": "(on (and|or) on ){9}(a very long text, ){4000}", "max_tokens": 300, "n": 2}),
    ]
}

/// The choices, and how many tokens they are.
fn said(answer: &Answer) -> (Value, Value) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    (
        body["choices"].clone(),
        body["usage"]["completion_tokens"].clone(),
    )
}

#[tokio::test]
async fn answers_are_those_of_tokens_drawn_one_by_one() {
    for says in [None, Some("delivery \"Oak\" 17 true")] {
        let (forcing, drawing) = (server(true, says), server(false, says));
        let mut cases = cases();
        for (seed, case) in cases.iter_mut().enumerate() {
            case["seed"] = json!(seed);
            // Both alone and beside others, which compute other chunks then.
            let (alone, beside, expected) = tokio::join!(
                forcing.chat(case.clone()),
                forcing.chat(case.clone()),
                drawing.chat(case.clone()),
            );
            let expected = said(&expected);
            assert_eq!(said(&alone), expected, "{case}");
            assert_eq!(said(&beside), expected, "{case}");
        }
        let n_forced = forcing.metric("understudy_forced_tokens_total");
        assert!(n_forced > 500.0, "{n_forced}");
        assert_eq!(drawing.metric("understudy_forced_tokens_total"), 0.0);
        forcing.wait_until_idle().await;
        let n_steps = |server: &Server| server.metric("understudy_step_seconds_count");
        let (n_forcing, n_drawing) = (n_steps(&forcing), n_steps(&drawing));
        assert!(n_forcing < n_drawing, "{n_forcing} and {n_drawing}");
    }
}

#[tokio::test]
async fn what_is_forced_needs_no_step_and_is_counted() {
    let server = server(true, None);
    let fixed = json!({"regex": "a fixed text, and nothing else", "stream": true,
        "stream_options": {"include_usage": true}});
    let answer = server.chat(fixed).await;
    let chunks = answer.chunks();
    let text = |chunk: &Value| {
        let delta = &chunk["choices"][0]["delta"]["content"];
        delta.as_str().unwrap_or_default().to_owned()
    };
    let whole: String = chunks.iter().map(text).collect();
    assert_eq!(whole, "a fixed text, and nothing else");
    let usage = &chunks.last().unwrap()["usage"];
    let n_tokens = server.tokenizer.encode(&whole, false).unwrap().len() as u64;
    server.wait_until_idle().await;
    // The end token is one of them.
    assert_eq!(usage["completion_tokens"], n_tokens + 1, "{usage}");
    assert_eq!(
        server.metric("understudy_generated_tokens_total"),
        (n_tokens + 1) as f64
    );
    // The first is drawn, and everything else follows from it.
    assert_eq!(
        server.metric("understudy_forced_tokens_total"),
        n_tokens as f64
    );
    assert_eq!(server.metric("understudy_step_seconds_count"), 1.0);
}
