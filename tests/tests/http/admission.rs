//! Who is let in, in which order, for how long, and with whom blocks are shared.

use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt;
use understudy::engine::QueueLimits;

use crate::server::{Options, Server, chat_body, request};

const CHAT: &str = "/v1/chat/completions";

/// One request runs, held at the gate.
async fn hold_one(server: &Server) -> JoinHandle<StatusCode> {
    server.gate.close();
    let call = spawn(
        server,
        request(Method::POST, CHAT, chat_body(json!({})).to_string()),
    );
    server.wait_for("understudy_queue_seconds_count", 1.0).await;
    call
}

fn spawn(server: &Server, request: Request<axum::body::Body>) -> JoinHandle<StatusCode> {
    let app = server.app.clone();
    tokio::spawn(async move { app.oneshot(request).await.unwrap().status() })
}

fn with_header(name: &str, value: &str, more: Value) -> Request<axum::body::Body> {
    let mut request = request(Method::POST, CHAT, chat_body(more).to_string());
    let name: axum::http::HeaderName = name.parse().unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn tokens_that_wait_are_bounded() {
    let server = Server::start(Options {
        queue: QueueLimits {
            max_requests: 100,
            max_tokens: 30,
            timeout: None,
        },
        max_sequences: 1,
        ..Options::default()
    });
    let running = hold_one(&server).await;
    let waiting = spawn(
        &server,
        request(Method::POST, "/v1/completions", long_prompt(25).to_string()),
    );
    server.wait_for("understudy_tokens_queued", 25.0).await;
    let refused = server.post("/v1/completions", &long_prompt(10)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        refused.text.contains("1 requests with 25 tokens"),
        "{}",
        refused.text
    );
    assert!(refused.header("retry-after-ms").is_some());
    let rejected = "understudy_requests_rejected_total{reason=\"tokens\"} 1";
    assert!(server.get("/metrics").await.text.contains(rejected));
    server.gate.open();
    assert_eq!(running.await.unwrap(), StatusCode::OK);
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    server.wait_until_idle().await;
    // Alone it may exceed the bound.
    let alone = server.post("/v1/completions", &long_prompt(50)).await;
    assert_eq!(alone.status, StatusCode::OK);
    server.wait_until_idle().await;
}

fn long_prompt(n: usize) -> Value {
    json!({"model": crate::server::MODEL, "prompt": vec![40; n], "max_tokens": 2})
}

#[tokio::test]
async fn a_refused_request_is_not_parsed_and_its_body_is_read() {
    let server = Server::start(Options {
        queue: QueueLimits {
            max_requests: 1,
            max_tokens: 1_000,
            timeout: None,
        },
        max_sequences: 1,
        ..Options::default()
    });
    let running = hold_one(&server).await;
    let waiting = spawn(
        &server,
        request(Method::POST, CHAT, chat_body(json!({})).to_string()),
    );
    server.wait_for("understudy_sequences_waiting", 0.0).await;
    server.wait_for("understudy_requests_queued", 1.0).await;
    let refused = server
        .call(request(Method::POST, CHAT, "{no json".repeat(1000)))
        .await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    server.gate.open();
    running.await.unwrap();
    waiting.await.unwrap();
    // A request that turns out to be wrong gives its place back.
    for _ in 0..3 {
        assert_eq!(
            server.chat(json!({"n": 0})).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    server.wait_until_idle().await;
}

#[tokio::test]
async fn who_waits_too_long_is_sent_away() {
    let server = Server::start(Options {
        queue: QueueLimits {
            max_requests: 10,
            max_tokens: 1_000,
            timeout: Some(Duration::from_millis(30)),
        },
        max_sequences: 1,
        says: None,
        ..Options::default()
    });
    let running = hold_one(&server).await;
    let waiting = tokio::spawn({
        let app = server.app.clone();
        let call = request(Method::POST, CHAT, chat_body(json!({})).to_string());
        async move { app.oneshot(call).await.unwrap() }
    });
    server.wait_for("understudy_requests_queued", 1.0).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    server.gate.open();
    let refused = waiting.await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        running.await.unwrap(),
        StatusCode::OK,
        "who runs is not waiting"
    );
    server.wait_until_idle().await;
    let counted = "understudy_sequences_finished_total{reason=\"queue_timeout\"} 1";
    assert!(server.get("/metrics").await.text.contains(counted));
}

#[tokio::test]
async fn a_deadline_ends_what_runs() {
    let server = Server::start(Options {
        says: None,
        max_model_len: 1_000,
        ..Options::default()
    });
    server.gate.close();
    let more = json!({"ignore_eos": true, "n": 2});
    let whole = tokio::spawn({
        let app = server.app.clone();
        let call = with_header("x-request-timeout-ms", "40", more.clone());
        async move { app.oneshot(call).await.unwrap() }
    });
    let streamed = tokio::spawn({
        let app = server.app.clone();
        let mut more = more.clone();
        more["stream"] = json!(true);
        let call = with_header("x-request-timeout-ms", "40", more);
        async move {
            let body = app.oneshot(call).await.unwrap().into_body();
            axum::body::to_bytes(body, usize::MAX).await.unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(80)).await;
    server.gate.open();
    let whole = whole.await.unwrap();
    assert_eq!(whole.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(whole.headers()["x-should-retry"], "false");
    let streamed = String::from_utf8(streamed.await.unwrap().to_vec()).unwrap();
    assert!(streamed.contains("deadline_exceeded"), "{streamed}");
    assert!(!streamed.contains("[DONE]"));
    // Its status had been told, so it is counted apart.
    server
        .wait_for("understudy_streams_failed_total", 1.0)
        .await;
    server.wait_until_idle().await;
    for wrong in ["0", "-1", "soon", "1.5"] {
        let answer = server
            .call(with_header("x-request-timeout-ms", wrong, json!({})))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn salts_and_cache_keys_keep_blocks_apart() {
    let server = Server::start(Options::default());
    let cached = async |more: Value| {
        let body = json!({"messages": [{"role": "user", "content": "a long enough prompt to fill a block"}]});
        let mut body = body;
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = server.chat(body).await.json();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    for more in [
        json!({}),
        json!({"cache_salt": "a"}),
        json!({"cache_salt": "b"}),
        json!({"prompt_cache_key": "a"}),
    ] {
        assert_eq!(cached(more.clone()).await, 0, "{more}: cold");
        assert!(cached(more.clone()).await > 0, "{more}: warm");
    }
}

#[tokio::test]
async fn classes_are_answered_and_guarded() {
    let server = Server::start(Options::default());
    for (more, tier) in [
        (json!({}), "default"),
        (json!({"service_tier": "auto"}), "default"),
        (json!({"service_tier": "flex"}), "flex"),
        (json!({"priority": 5}), "default"),
    ] {
        let answer = server.chat(more).await.json();
        assert_eq!(answer["service_tier"], tier);
    }
    for more in [json!({"service_tier": "priority"}), json!({"priority": -1})] {
        let answer = server.chat(more).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["error"]["code"], "unsupported_value");
    }
    let server = Server::start(Options {
        allow_priority: true,
        ..Options::default()
    });
    let answer = server.chat(json!({"service_tier": "priority"})).await;
    assert_eq!(answer.json()["service_tier"], "priority");
}

#[tokio::test]
async fn the_higher_class_goes_first() {
    let server = Server::start(Options {
        max_sequences: 1,
        allow_priority: true,
        ..Options::default()
    });
    let running = hold_one(&server).await;
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut calls = Vec::new();
    for (n_waiting, priority) in [(1.0, 1), (2.0, 0), (3.0, -1)] {
        let app = server.app.clone();
        let order = std::sync::Arc::clone(&order);
        let call = request(
            Method::POST,
            CHAT,
            chat_body(json!({"priority": priority})).to_string(),
        );
        calls.push(tokio::spawn(async move {
            assert_eq!(app.oneshot(call).await.unwrap().status(), StatusCode::OK);
            order.lock().unwrap().push(priority);
        }));
        server
            .wait_for("understudy_requests_queued", n_waiting)
            .await;
    }
    server.gate.open();
    running.await.unwrap();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [-1, 0, 1]);
}

#[tokio::test]
async fn keys_are_tenants_and_users_are_not() {
    let server = Server::start(Options {
        keys: vec!["one", "two"],
        ..Options::default()
    });
    for (key, user) in [("one", "x"), ("one", "y"), ("two", "x")] {
        let call = with_header(
            "authorization",
            &format!("Bearer {key}"),
            json!({"user": user}),
        );
        assert_eq!(server.call(call).await.status, StatusCode::OK);
    }
    let text = server.metrics.render();
    let tenants: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("understudy_tenant_prompt_tokens_total{"))
        .collect();
    assert_eq!(tenants.len(), 2, "{tenants:?}");
    assert!(
        tenants
            .iter()
            .all(|line| line.contains("tenant=\"key-") && line.contains("adapter=\"none\""))
    );
    assert!(!text.contains("\"one\"") && !text.contains("\"two\""));
}

#[tokio::test]
async fn probes_need_no_key_and_tell_apart() {
    let mut server = Server::start(Options {
        keys: vec!["one"],
        ..Options::default()
    });
    for path in [
        "/health",
        "/health/ready",
        "/health/live",
        "/health/startup",
    ] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(
        server.get("/metrics").await.status,
        StatusCode::UNAUTHORIZED
    );
    let engine = server.engine.take().unwrap();
    engine.handle().close();
    assert_eq!(
        server.get("/health/ready").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        server.get("/health/live").await.status,
        StatusCode::OK,
        "draining is alive"
    );
    engine.stop();
    assert_eq!(
        server.get("/health/live").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn routers_find_the_names_they_know() {
    let server = Server::start(Options::default());
    server.metrics.describe_served(understudy::metrics::Served {
        model: "m".to_owned(),
        block_size: 4,
        n_blocks: 256,
    });
    assert_eq!(server.chat(json!({})).await.status, StatusCode::OK);
    server.wait_until_idle().await;
    let text = server.get("/metrics").await.text;
    for line in [
        "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 0",
        "vllm:num_requests_waiting{model_name=\"m\",engine=\"0\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0",
        "vllm:cache_config_info{model_name=\"m\",engine=\"0\",block_size=\"4\",num_gpu_blocks=\"256\"} 1",
        "vllm:time_to_first_token_seconds_count{model_name=\"m\",engine=\"0\"} 1",
        "# TYPE vllm:inter_token_latency_seconds histogram",
        "vllm:e2e_request_latency_seconds_count{model_name=\"m\",engine=\"0\"} 1",
        "vllm:request_queue_time_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"300\"} 1",
        "vllm:prefix_cache_hits_total{model_name=\"m\",engine=\"0\"} 0",
        "vllm:num_preemptions_total{model_name=\"m\",engine=\"0\"} 0",
        "# TYPE vllm:lora_requests_info gauge",
        "# TYPE vllm:generation_tokens_total counter",
        "understudy_lost_tokens_total 0",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
}
