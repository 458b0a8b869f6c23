//! Bodies of requests to every route that reads one.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use tests::fuzz::{Taken, mutate_bytes, mutate_json, mutate_text};
use tests::rng::Rng;
use understudy::files::FilesOptions;

use crate::run;
use crate::server::{MODEL, Options, Server};

const NAMES: [&str; 44] = [
    "model",
    "messages",
    "prompt",
    "input",
    "content",
    "role",
    "n",
    "best_of",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "stop",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "temperature",
    "top_p",
    "seed",
    "tools",
    "tool_choice",
    "response_format",
    "text",
    "guided_regex",
    "suffix",
    "echo",
    "user",
    "metadata",
    "store",
    "previous_response_id",
    "conversation",
    "instructions",
    "reasoning",
    "truncation",
    "background",
    "min_p",
    "top_k",
    "ignore_eos",
    "prompt_logprobs",
    "parallel_tool_calls",
    "service_tier",
    "encoding_format",
    "dimensions",
];

fn corpus() -> Vec<(&'static str, Value)> {
    let message = json!([{"role": "user", "content": "Hi"}]);
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"x": {"type": "integer"}}}}});
    vec![
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": message, "max_tokens": 4}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "stream": true, "stream_options": {"include_usage": true},
                   "logprobs": true, "top_logprobs": 2, "stop": ["x", "y"], "n": 2,
                   "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": MODEL, "messages": message, "tools": [tool], "max_tokens": 8,
                   "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            "/v1/completions",
            json!({"model": MODEL, "prompt": ["a b", "c"], "echo": true, "logprobs": 2,
                   "max_tokens": 4, "logit_bias": {"5": -100}}),
        ),
        (
            "/v1/responses",
            json!({"model": MODEL, "input": [{"role": "user", "content": [
                {"type": "input_text", "text": "Hi"}]}], "max_output_tokens": 8, "store": true}),
        ),
        (
            "/v1/responses",
            json!({"model": MODEL, "input": "Hi", "stream": true}),
        ),
        (
            "/v1/responses/input_tokens",
            json!({"model": MODEL, "input": "Hi"}),
        ),
        (
            "/v1/responses/compact",
            json!({"model": MODEL, "input": "Hi"}),
        ),
        (
            "/v1/conversations",
            json!({"items": [{"type": "message", "role": "user", "content": "Hi"}],
                   "metadata": {"a": "b"}}),
        ),
        (
            "/v1/embeddings",
            json!({"model": MODEL, "input": ["a", "b"]}),
        ),
        (
            "/v1/load_lora_adapter",
            json!({"lora_name": "x", "lora_path": "/tmp/x"}),
        ),
        ("/v1/unload_lora_adapter", json!({"lora_name": "x"})),
    ]
}

fn request(rng: &mut Rng, corpus: &[(&str, Value)]) -> Request<Body> {
    let (path, body) = rng.pick(corpus);
    let mut body = body.clone();
    mutate_json(rng, &mut body, &NAMES);
    let mut bytes = body.to_string().into_bytes();
    if rng.chance(200) {
        let n = bytes.len();
        mutate_bytes(rng, &mut bytes, n);
    }
    let mut request = Request::builder().method(Method::POST).uri(*path);
    if rng.chance(50) {
        request = request.header("idempotency-key", rng.range(0, 9).to_string());
    }
    if rng.chance(50) {
        let times = ["1", "0", "-1", "99999999999", "x"];
        request = request.header("x-request-timeout-ms", *rng.pick(&times));
    }
    request.body(Body::from(bytes)).unwrap()
}

#[test]
fn bodies() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(async { Server::start(Options::default()) });
    let corpus = corpus();
    run("bodies", |rng| {
        let request = request(rng, &corpus);
        let answer = runtime.block_on(server.call(request));
        let status = answer.status.as_u16();
        assert!(
            status < 500 || matches!(status, 503 | 504),
            "{status}: {}",
            answer.text
        );
        if status >= 400 {
            let error = &answer.json()["error"];
            assert!(error["message"].is_string(), "{}", answer.text);
            return Taken::Refused;
        }
        Taken::Accepted
    });
    assert_eq!(server.metric("understudy_panics_total"), 0.0);
    runtime.block_on(server.wait_until_idle());
}

const FORM: &str = "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--X\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
    Content-Type: text/plain\r\n\r\nline\r\n--Y\r\n--X--\r\n";
const FORM_WORDS: [&str; 14] = [
    "--X",
    "\r\n",
    "--X--\r\n",
    "\r\n\r\n",
    "name=\"file\"",
    "filename=\"\\\"",
    "name=\"expires_after[seconds]\"\r\n\r\n3600",
    "Content-Disposition: form-data; ",
    "Content-Transfer-Encoding: x",
    "\"",
    ";",
    "\t",
    "é",
    "purpose",
];

/// Uploads that are refused leave nothing, and those that are taken come back.
#[test]
fn uploads() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("files");
    let server = runtime.block_on(async {
        Server::start(Options {
            files: Some((dir.path().to_owned(), FilesOptions::default())),
            ..Options::default()
        })
    });
    run("uploads", |rng| {
        let mut form = FORM.to_owned();
        mutate_text(rng, &mut form, &FORM_WORDS);
        let request = Request::post("/v1/files")
            .header("content-type", "multipart/form-data; boundary=X")
            .body(Body::from(form))
            .unwrap();
        let answer = runtime.block_on(server.call(request));
        let n_kept = std::fs::read_dir(&kept).unwrap().count();
        if answer.status != 200 {
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert_eq!(n_kept, 0);
            return Taken::Refused;
        }
        assert_eq!(n_kept, 1);
        let path = format!("/v1/files/{}", answer.json()["id"].as_str().unwrap());
        assert_eq!(runtime.block_on(server.delete(&path)).status, 200);
        Taken::Accepted
    });
    assert_eq!(server.metric("understudy_panics_total"), 0.0);
}
