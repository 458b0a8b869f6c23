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
