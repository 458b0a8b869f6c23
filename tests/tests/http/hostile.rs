//! What nobody should send is refused, in time, and nobody else notices.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use tests::hostile::hostile;

use crate::server::{Options, Server};

/// Longest that an answer may take. What it should take is measured in benches.
const LIMIT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn fifty_hostile_grammars_are_each_refused() {
    let server = Server::start(Options {
        says: Some("I am still here"),
        max_body_bytes: 16 << 20,
        ..Options::default()
    });
    // The tables of the tokenizer are built by the first grammar, hostile or not.
    assert_eq!(
        server.chat(json!({"regex": "a"})).await.status,
        StatusCode::OK
    );
    let all = hostile();
    assert!(all.len() >= 50, "{}", all.len());
    for one in all {
        let started = Instant::now();
        let other = json!({"temperature": 0});
        let (refused, other) = tokio::join!(server.chat(one.parameters), server.chat(other));
        let took = started.elapsed();
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{}: {:.300}",
            one.name,
            refused.text
        );
        let error = &refused.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && message.len() < 2_000,
            "{}: {message}",
            one.name
        );
        assert!(took < LIMIT, "{} took {took:?}", one.name);
        assert_eq!(
            other.json()["choices"][0]["message"]["content"],
            "I am still here",
            "{}: {}",
            one.name,
            other.text
        );
    }
    server.wait_until_idle().await;
}

/// All at once: what has no room is told so, and what is right gets through again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_them_passes() {
    let server = Server::start(Options {
        max_body_bytes: 16 << 20,
        ..Options::default()
    });
    let all = hostile().into_iter().cycle().take(200);
    let answers = all.map(|one| server.chat(one.parameters));
    let answers = futures::future::join_all(answers).await;
    for answer in &answers {
        let is_told =
            [StatusCode::BAD_REQUEST, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status);
        assert!(is_told, "{:.300}", answer.text);
    }
    let good = server.chat(json!({"regex": "(yes|no)"})).await;
    assert_eq!(good.status, StatusCode::OK, "{}", good.text);
    server.wait_until_idle().await;
}
