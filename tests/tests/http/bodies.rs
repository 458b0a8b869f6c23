//! Bodies that are refused before anything is computed for them.

use axum::http::Method;
use serde_json::json;

use crate::errors::check;
use crate::server::{Options, Server, request};

#[tokio::test]
async fn text_that_cannot_fit_is_refused_by_its_length() {
    let server = Server::start(Options::default());
    let text = "word ".repeat(20_000);
    let messages = json!([{"role": "user", "content": text}]);
    for (answer, param) in [
        (server.chat(json!({"messages": messages})).await, "messages"),
        (
            server.complete(json!({"prompt": ["a", text]})).await,
            "prompt",
        ),
    ] {
        let says = "maximum context length is 256 tokens";
        check(
            &answer,
            400,
            Some(param),
            Some("context_length_exceeded"),
            says,
        );
        assert!(answer.text.contains("at least"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused() {
    let server = Server::start(Options::default());
    let body = r#"{"model": "alias", "prompt": "a", "n": 1, "n": 2}"#;
    let answer = server
        .call(request(Method::POST, "/v1/completions", body.to_owned()))
        .await;
    check(&answer, 400, None, None, "'n' is there twice");
}

#[tokio::test]
async fn answers_of_one_request_are_bounded() {
    let server = Server::start(Options {
        max_choices: 6,
        ..Options::default()
    });
    let ok = server.complete(json!({"prompt": ["a", "b"], "n": 3, "max_tokens": 1}));
    assert_eq!(ok.await.json()["choices"].as_array().unwrap().len(), 6);
    let above = Some("integer_above_max_value");
    let many = json!({"prompt": ["a", "b"], "n": 4});
    let says = "Invalid 'n': 2 prompts with 4 choices each are 8 choices, but this server \
                generates at most 6";
    check(&server.complete(many).await, 400, Some("n"), above, says);
    let best = json!({"prompt": ["a", "b"], "n": 3, "best_of": 4});
    let says = "Invalid 'best_of': 2 prompts with 4";
    check(
        &server.complete(best).await,
        400,
        Some("best_of"),
        above,
        says,
    );
    let list = json!({"prompt": ["a", "b", "c", "d", "e", "f", "g"]});
    let says = "Invalid 'prompt': 7 prompts with 1";
    let code = Some("array_above_max_length");
    check(
        &server.complete(list).await,
        400,
        Some("prompt"),
        code,
        says,
    );
    let answer = server.chat(json!({"n": 7})).await;
    check(
        &answer,
        400,
        Some("n"),
        above,
        "Invalid 'n': 1 prompts with 7",
    );
    server.wait_until_idle().await;
}
