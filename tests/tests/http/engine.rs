//! What the engine does when things go wrong.

use axum::http::{Method, StatusCode};
use futures::StreamExt;
use serde_json::json;

use understudy::engine::QueueLimits;

use crate::model::Fault;
use crate::server::{Options, Server, chat_body, request};

#[tokio::test]
async fn a_dropped_stream_frees_its_blocks() {
    let server = Server::start(Options {
        says: None,
        max_model_len: 1000,
        ..Options::default()
    });
    let body = chat_body(json!({"stream": true, "n": 4, "ignore_eos": true}));
    let response = server
        .send(request(
            Method::POST,
            "/v1/chat/completions",
            body.to_string(),
        ))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut frames = response.into_body().into_data_stream();
    // Its end is what counts.
    assert_eq!(server.metric("understudy_http_requests_total"), 0.0);
    for _ in 0..12 {
        frames.next().await.unwrap().unwrap();
    }
    drop(frames);
    server.wait_until_idle().await;
    assert_eq!(server.metric("understudy_disconnects_total"), 1.0);
    assert_eq!(server.metric("understudy_http_requests_total"), 1.0);
    assert!(
        server.metric("understudy_generated_tokens_total") < 4.0 * 900.0,
        "it ran to its end"
    );
}

#[tokio::test]
async fn a_dropped_request_frees_its_blocks() {
    let server = Server::start(Options::default());
    server.gate.close();
    let request = request(
        Method::POST,
        "/v1/chat/completions",
        chat_body(json!({})).to_string(),
    );
    let call = tokio::spawn({
        let app = server.app.clone();
        async move { tower::ServiceExt::oneshot(app, request).await }
    });
    server.wait_for_started(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    server.gate.open();
    server.wait_until_idle().await;
    let line = "{route=\"/v1/chat/completions\",status=\"499\"} 1";
    assert!(server.metrics.render().contains(line), "hung up");
}

#[tokio::test]
async fn a_panic_fails_one_step_and_nothing_else() {
    for fault_kind in [Fault::Panic, Fault::Error, Fault::Misscore] {
        let server = Server::start(Options {
            fault: Some("Z"),
            fault_kind,
            ..Options::default()
        });
        let bad = json!([{"role": "user", "content": "Z"}]);
        let answer = server.chat(json!({"messages": bad.clone()})).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.json()["error"]["type"], "server_error");
        let stream = server.chat(json!({"messages": bad, "stream": true})).await;
        assert_eq!(stream.status, StatusCode::OK);
        let events = stream.events();
        let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(
            last["error"]["type"], "server_error",
            "a failed stream ends in an error"
        );
        assert_eq!(server.metric("understudy_steps_failed_total"), 2.0);
        let answer = server.chat(json!({})).await;
        assert_eq!(
            answer.json()["choices"][0]["message"]["content"],
            "Hello there"
        );
        assert_eq!(server.get("/health").await.status, StatusCode::OK);
        server.wait_until_idle().await;
    }
}

#[tokio::test]
async fn too_many_requests_are_refused_at_once() {
    let server = Server::start(Options {
        queue: QueueLimits {
            max_requests: 2,
            max_tokens: 1_000,
            timeout: None,
        },
        max_sequences: 1,
        ..Options::default()
    });
    server.gate.close();
    let call = |more| {
        let app = server.app.clone();
        let request = request(
            Method::POST,
            "/v1/chat/completions",
            chat_body(more).to_string(),
        );
        tokio::spawn(async move {
            tower::ServiceExt::oneshot(app, request)
                .await
                .unwrap()
                .status()
        })
    };
    // The first is taken into a step that hangs at the gate.
    let running = call(json!({}));
    server.wait_for_started(1).await;
    let waiting = [call(json!({})), call(json!({}))];
    server.wait_for("understudy_requests_queued", 2.0).await;
    let refused = server.chat(json!({})).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    // One request has left the queue so far, and two are in it.
    let ms: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1_000..=120_000).contains(&ms), "{ms}");
    assert_eq!(seconds, ms.div_ceil(1_000));
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(server.metric("understudy_requests_rejected_total"), 1.0);
    assert_eq!(
        server.get("/health").await.status,
        StatusCode::OK,
        "health does not wait"
    );
    server.gate.open();
    assert_eq!(running.await.unwrap(), StatusCode::OK);
    for call in waiting {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
    server.wait_until_idle().await;
    assert_eq!(server.chat(json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn many_at_once_say_the_same_as_alone() {
    let server = Server::start(Options {
        says: None,
        ..Options::default()
    });
    let body = |i: u64| json!({"prompt": [i % 7 + 20, 30, 40, 50, 60, 61, 62], "seed": i, "max_tokens": 30});
    let mut alone = Vec::new();
    for i in 0..24 {
        alone.push(server.complete(body(i)).await.json()["choices"].take());
    }
    let together = futures::future::join_all((0..24).map(|i| server.complete(body(i)))).await;
    for (i, answer) in together.into_iter().enumerate() {
        assert_eq!(answer.json()["choices"], alone[i], "request {i}");
    }
    server.wait_until_idle().await;
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let server = Server::start(Options::default());
    assert_eq!(server.chat(json!({})).await.status, StatusCode::OK);
    assert_eq!(
        server.chat(json!({"n": 0})).await.status,
        StatusCode::BAD_REQUEST
    );
    let text = server.get("/metrics").await.text;
    for line in [
        "understudy_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "understudy_http_requests_total{route=\"/v1/chat/completions\",status=\"400\"} 1",
        "understudy_sequences_finished_total{reason=\"stop\"} 1",
        "understudy_time_to_first_token_seconds_count 1",
        "understudy_request_seconds_count 1",
        "understudy_queue_seconds_bucket{le=\"300\"} 1",
        "understudy_kv_blocks 256",
        "# TYPE understudy_step_seconds histogram",
        "# HELP understudy_generated_tokens_total Tokens drawn",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
}
