//! What is told of requests: traces that go on, spans at a collector, and a look inside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use understudy::metrics::Metrics;
use understudy::telemetry::Traces;

use crate::server::{MODEL, Options, Server, chat_body};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes one export and hands out its path and body.
fn collect_one() -> (String, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut path, mut length) = (String::new(), 0);
        for line in reader.by_ref().lines() {
            let line = line.unwrap().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            }
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut stream = stream;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
        (path, serde_json::from_slice(&body).unwrap())
    });
    (endpoint, collector)
}

fn traced_chat(flags: &str) -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"))
        .body(Body::from(chat_body(json!({})).to_string()))
        .unwrap()
}

#[tokio::test]
async fn a_trace_goes_on_through_the_server_to_the_collector() {
    let (endpoint, collector) = collect_one();
    let (sent, dropped) = Metrics::new().of_traces();
    let traces = Traces::start(Traces::url(&endpoint).unwrap(), sent, dropped).unwrap();
    let server = Server::start(Options {
        traces: Some(traces),
        ..Options::default()
    });
    // Whoever began this trace does not record it.
    let unsampled = server.call(traced_chat("00")).await;
    assert!(unsampled.header("traceresponse").unwrap().ends_with("-00"));
    let answer = server.call(traced_chat("01")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let response = answer.header("traceresponse").unwrap().to_owned();
    assert!(response.starts_with(&format!("00-{TRACE}-")), "{response}");
    let (path, body) = tokio::task::spawn_blocking(move || collector.join().unwrap())
        .await
        .unwrap();
    assert_eq!(path, "/v1/traces");
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
        .as_array()
        .unwrap()
        .clone();
    let names: Vec<&str> = spans
        .iter()
        .map(|span| span["name"].as_str().unwrap())
        .collect();
    let chat = format!("chat {MODEL}");
    assert_eq!(names, [chat.as_str(), "queue", "prefill", "decode"]);
    assert_eq!(spans[0]["traceId"], TRACE);
    assert_eq!(spans[0]["parentSpanId"], PARENT);
    assert!(response.contains(spans[0]["spanId"].as_str().unwrap()));
    let attribute = |key: &str| {
        let all = spans[0]["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {all:?}"))["value"].clone()
    };
    let usage = &answer.json()["usage"];
    for (key, field) in [
        ("gen_ai.usage.input_tokens", "prompt_tokens"),
        ("gen_ai.usage.output_tokens", "completion_tokens"),
    ] {
        assert_eq!(
            attribute(key)["intValue"],
            usage[field].to_string(),
            "{key}"
        );
    }
    assert_eq!(attribute("gen_ai.request.model")["stringValue"], MODEL);
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(attribute("understudy.request.id")["stringValue"], id);
}

#[tokio::test]
async fn admins_see_what_the_server_is_doing() {
    let server = Server::start(Options::default());
    server.gate.close();
    let running = server.send(
        Request::post("/v1/chat/completions")
            .body(Body::from(chat_body(json!({"stream": true})).to_string()))
            .unwrap(),
    );
    let running = running.await;
    let id = running.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    server.wait_for_started(1).await;
    // It waits for the end of the step at the gate.
    let (state, ()) = tokio::join!(server.get("/admin/state"), async { server.gate.open() });
    let state = state.json();
    assert_eq!(state["object"], "server.state");
    assert_eq!(state["models"][0], MODEL);
    assert_eq!(state["engine"]["blocks"]["total"], 256);
    assert!(state["embedding_engine"].is_null());
    let requests = state["engine"]["requests"].as_array().unwrap();
    // The scripted answer has six tokens; between two of its steps it is there, and then gone.
    assert!(requests.len() <= 1, "{state}");
    for request in requests {
        assert_eq!(request["id"], id);
        assert_eq!(request["tenant"], "anonymous");
        assert_eq!(request["prompt_tokens"], 17);
    }
    drop(running);
    server.wait_until_idle().await;
    let idle = server.get("/admin/state").await.json();
    assert_eq!(idle["engine"]["requests"], json!([]));
    assert_eq!(idle["engine"]["blocks"]["in_use"], 0);
    assert!(idle["engine"]["totals"]["steps"].as_u64().unwrap() > 0);
}
