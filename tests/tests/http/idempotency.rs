//! `Idempotency-Key`, and pages of other origins.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::errors::check;
use crate::server::{Answer, Options, Server, chat_body, request};

fn keyed(key: &str, path: &str, body: &Value) -> Request<Body> {
    let mut request = request(Method::POST, path, body.to_string());
    request
        .headers_mut()
        .insert("idempotency-key", key.parse().unwrap());
    request
}

async fn chat(server: &Server, key: &str, more: Value) -> Answer {
    let body = chat_body(more);
    server.call(keyed(key, "/v1/chat/completions", &body)).await
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let server = Server::start(Options::default());
    for stream in [false, true] {
        let key = format!("k-{stream}");
        let first = chat(&server, &key, json!({"stream": stream})).await;
        let again = chat(&server, &key, json!({"stream": stream})).await;
        assert_eq!(first.text, again.text);
        assert_eq!(first.header("content-type"), again.header("content-type"));
        assert_eq!(first.header("idempotent-replayed"), None);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_ne!(first.header("x-request-id"), again.header("x-request-id"));
        let other = chat(&server, &key, json!({"stream": stream, "temperature": 0})).await;
        check(
            &other,
            409,
            None,
            Some("idempotency_key_in_use"),
            "same endpoint and body",
        );
        assert_eq!(other.header("x-should-retry"), Some("false"));
    }
    let body = json!({"model": "alias", "input": "Hi", "stream": true});
    let first = server.call(keyed("r", "/v1/responses", &body)).await;
    let again = server.call(keyed("r", "/v1/responses", &body)).await;
    assert_eq!(first.named_events(), again.named_events());
}

#[tokio::test]
async fn a_second_request_waits_for_the_first() {
    let server = Server::start(Options::default());
    server.gate.close();
    let (first, second, ()) = tokio::join!(
        chat(&server, "k", json!({})),
        chat(&server, "k", json!({})),
        async {
            // The first is being computed; the second was let in and waits for it.
            server.wait_for_started(1).await;
            server.wait_for("understudy_requests_receiving", 1.0).await;
            let other = chat(&server, "k", json!({"n": 2})).await;
            check(&other, 409, None, Some("idempotency_key_in_use"), "");
            server.gate.open();
        }
    );
    assert_eq!(first.json()["id"], second.json()["id"]);
    server.wait_until_idle().await;
}

#[tokio::test]
async fn failures_are_not_kept() {
    let server = Server::start(Options::default());
    let refused = chat(&server, "k", json!({"temperature": 9})).await;
    assert_eq!(refused.status, 400);
    assert_eq!(chat(&server, "k", json!({})).await.status, 200);
    let long = "x".repeat(300);
    check(
        &chat(&server, &long, json!({})).await,
        400,
        None,
        None,
        "255 characters",
    );
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_answers() {
    let server = Server::start(Options {
        keys: vec!["one"],
        cors_origins: vec!["https://a.example"],
        ..Options::default()
    });
    for (origin, allowed) in [("https://a.example", true), ("https://b.example", false)] {
        let asked = Request::builder()
            .method(Method::OPTIONS)
            .uri("/v1/chat/completions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,x-stainless-os",
            );
        let answer = server.call(asked.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "no key is needed to ask");
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin));
    }
    let mut refused = request(Method::GET, "/v1/models", String::new());
    refused
        .headers_mut()
        .insert("origin", "https://a.example".parse().unwrap());
    let answer = server.call(refused).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://a.example")
    );
}
