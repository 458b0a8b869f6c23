//! Keys: which routes each scope opens, what a key may use, and how much.

use std::path::PathBuf;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;
use tempfile::TempDir;
use understudy::auth::{Access, ApiKeys, Scope};

use crate::server::{Answer, MODEL, Options, Server, chat_body};

const INFERENCE: Access = Access::Needs(Scope::Inference);
const ADMIN: Access = Access::Needs(Scope::Admin);

/// What must open each route. A route that is not here fails the test: whoever adds one decides
/// here, too, who may use it.
const ROUTES: &[(&str, Access)] = &[
    ("/admin/state", ADMIN),
    ("/apply-template", INFERENCE),
    ("/detokenize", INFERENCE),
    ("/docs", Access::Open),
    ("/health", Access::Open),
    ("/health/live", Access::Open),
    ("/health/ready", Access::Open),
    ("/health/startup", Access::Open),
    ("/metrics", Access::Needs(Scope::Metrics)),
    ("/openapi.json", Access::Open),
    ("/tokenize", INFERENCE),
    ("/v1/apply-template", INFERENCE),
    ("/v1/chat/completions", INFERENCE),
    ("/v1/chat/completions/{id}", INFERENCE),
    ("/v1/chat/completions/{id}/messages", INFERENCE),
    ("/v1/completions", INFERENCE),
    ("/v1/conversations", INFERENCE),
    ("/v1/conversations/{id}", INFERENCE),
    ("/v1/conversations/{id}/items", INFERENCE),
    ("/v1/conversations/{id}/items/{item}", INFERENCE),
    ("/v1/decisions", INFERENCE),
    ("/v1/detokenize", INFERENCE),
    ("/v1/embeddings", INFERENCE),
    ("/v1/files", INFERENCE),
    ("/v1/files/{id}", INFERENCE),
    ("/v1/files/{id}/content", INFERENCE),
    ("/v1/load_lora_adapter", ADMIN),
    ("/v1/messages", INFERENCE),
    ("/v1/messages/count_tokens", INFERENCE),
    ("/v1/models", INFERENCE),
    ("/v1/models/{*id}", INFERENCE),
    ("/v1/responses", INFERENCE),
    ("/v1/responses/compact", INFERENCE),
    ("/v1/responses/input_tokens", INFERENCE),
    ("/v1/responses/{id}", INFERENCE),
    ("/v1/responses/{id}/cancel", INFERENCE),
    ("/v1/responses/{id}/input_items", INFERENCE),
    ("/v1/tokenize", INFERENCE),
    ("/v1/unload_lora_adapter", ADMIN),
];

/// Paths that no route has.
const UNKNOWN: [&str; 7] = [
    "/",
    "/admin",
    "/healthy",
    "/metrics/",
    "/v1",
    "/v1/chat/completion",
    "/v1/health",
];

const KEYS: &str = "
    [[key]]
    name = 'infers'
    key = 'sk-inference'
    [[key]]
    name = 'watches'
    key = 'sk-metrics'
    scopes = ['metrics']
    [[key]]
    name = 'rules'
    key = 'sk-admin'
    scopes = ['admin']
    [[key]]
    name = 'everything'
    key = 'sk-all'
    scopes = ['inference', 'metrics', 'admin']
";

struct KeyFile {
    _dir: TempDir,
    path: PathBuf,
    keys: ApiKeys,
}

impl KeyFile {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        let keys = ApiKeys::open([], [], Some(path.clone())).unwrap();
        Self {
            _dir: dir,
            path,
            keys,
        }
    }

    fn server(&self) -> Server {
        Server::start(Options {
            key_ring: Some(self.keys.clone()),
            ..Options::default()
        })
    }
}

async fn ask(server: &Server, method: Method, path: &str, key: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = Body::from(chat_body(json!({})).to_string());
    server.call(request.body(body).unwrap()).await
}

async fn chat(server: &Server, key: &str) -> Answer {
    ask(server, Method::POST, "/v1/chat/completions", Some(key)).await
}

#[tokio::test]
async fn every_route_needs_its_scope() {
    let file = KeyFile::new(KEYS);
    let server = file.server();
    let stated: Vec<_> = server.access.iter().map(|(p, a)| (*p, *a)).collect();
    assert_eq!(stated, ROUTES, "routes and their scopes");
    let keys: [(Option<&str>, &[Scope]); 6] = [
        (None, &[]),
        (Some("sk-unknown"), &[]),
        (Some("sk-inference"), &[Scope::Inference]),
        (Some("sk-metrics"), &[Scope::Metrics]),
        (Some("sk-admin"), &[Scope::Admin]),
        (
            Some("sk-all"),
            &[Scope::Inference, Scope::Metrics, Scope::Admin],
        ),
    ];
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    let mut n_asked = 0;
    for (pattern, access) in ROUTES {
        let path: Vec<&str> = pattern
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect();
        let path = path.join("/");
        for (key, scopes) in &keys {
            for method in &methods {
                let answer = ask(&server, method.clone(), &path, *key).await;
                let status = answer.status.as_u16();
                let context = format!("{method} {path} with {key:?}: {}", answer.text);
                let lacks = answer.text.contains("Missing scopes");
                match access {
                    Access::Open => assert!(status != 401 && status != 403, "{context}"),
                    Access::Needs(_) if scopes.is_empty() => assert_eq!(status, 401, "{context}"),
                    Access::Needs(scope) if scopes.contains(scope) => {
                        assert!(status != 401 && !lacks, "{context}");
                    }
                    Access::Needs(_) => assert!(status == 403 && lacks, "{context}"),
                }
                n_asked += 1;
            }
        }
    }
    assert_eq!(n_asked, ROUTES.len() * keys.len() * methods.len());
    for path in UNKNOWN {
        for (key, scopes) in &keys {
            for method in &methods {
                let answer = ask(&server, method.clone(), path, *key).await;
                let expected = if scopes.is_empty() { 401 } else { 404 };
                assert_eq!(answer.status, expected, "{method} {path} with {key:?}");
            }
        }
    }
}

#[tokio::test]
async fn keys_of_other_dialects_are_read_as_well() {
    let file = KeyFile::new(KEYS);
    let server = file.server();
    for (key, status) in [("sk-inference", 200), ("sk-unknown", 401), ("", 401)] {
        let request = Request::get("/v1/models").header("x-api-key", key);
        let answer = server.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{key}");
    }
}

#[tokio::test]
async fn keys_change_while_the_server_runs() {
    let file = KeyFile::new(KEYS);
    let server = file.server();
    assert_eq!(chat(&server, "sk-inference").await.status, 200);
    std::fs::write(&file.path, "[[key]]\nname = 'new'\nkey = 'sk-new'\n").unwrap();
    assert_eq!(file.keys.reload().unwrap(), 1);
    assert_eq!(chat(&server, "sk-inference").await.status, 401);
    assert_eq!(chat(&server, "sk-new").await.status, 200);
    std::fs::write(&file.path, "[[key]]\nname = 'half").unwrap();
    assert!(file.keys.reload().is_err());
    assert_eq!(chat(&server, "sk-new").await.status, 200);
    // No keys at all lock the server; they do not open it.
    std::fs::write(&file.path, "").unwrap();
    assert_eq!(file.keys.reload().unwrap(), 0);
    assert_eq!(chat(&server, "sk-new").await.status, 401);
    let answer = ask(&server, Method::GET, "/v1/models", None).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn what_a_key_may_not_use_does_not_exist_for_it() {
    let file = KeyFile::new(
        "[[key]]\nname = 'other'\nkey = 'sk-other'\nmodels = ['something-else']\n\
         [[key]]\nname = 'own'\nkey = 'sk-own'\nmodels = ['org/*']\n",
    );
    let server = file.server();
    for (key, status, n_models) in [("sk-other", 404, 0), ("sk-own", 200, 1)] {
        let answer = chat(&server, key).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        if status == 404 {
            assert_eq!(answer.json()["error"]["code"], "model_not_found");
            assert!(!answer.text.contains("serves"), "{}", answer.text);
        }
        let models = ask(&server, Method::GET, "/v1/models", Some(key)).await;
        let listed = models.json()["data"].as_array().unwrap().len();
        assert_eq!(listed, n_models, "{}", models.text);
        let path = format!("/v1/models/{MODEL}");
        let one = ask(&server, Method::GET, &path, Some(key)).await;
        assert_eq!(one.status, status, "{}", one.text);
    }
}

#[tokio::test]
async fn requests_by_minute_are_limited_and_told() {
    let file = KeyFile::new(
        "[[key]]\nname = 'few'\nkey = 'sk-few'\nrequests_per_minute = 2\n\
         [[key]]\nname = 'free'\nkey = 'sk-free'\n",
    );
    let server = file.server();
    for left in ["1", "0"] {
        let answer = chat(&server, "sk-few").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), None);
    }
    let refused = chat(&server, "sk-few").await;
    assert_eq!(refused.status, 429);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "rate_limit_exceeded");
    assert_eq!(error["type"], "requests");
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((25_000..=30_000).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(server.metric("understudy_requests_rejected_total"), 1.0);
    // Reading what is served costs nothing, and others have their own.
    let list = ask(&server, Method::GET, "/v1/models", Some("sk-few")).await;
    assert_eq!(list.status, 200);
    let free = chat(&server, "sk-free").await;
    assert_eq!(free.status, 200);
    assert_eq!(free.header("x-ratelimit-limit-requests"), None);
}

#[tokio::test]
async fn tokens_are_charged_as_they_are_used() {
    let file = KeyFile::new(
        "[[key]]\nname = 'minute'\nkey = 'sk-minute'\ntokens_per_minute = 60\n\
         [[key]]\nname = 'day'\nkey = 'sk-day'\ntokens_per_day = 39\n",
    );
    let server = file.server();
    let answer = chat(&server, "sk-day").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let used = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!((20..39).contains(&used), "{used}");
    let left = answer.header("x-ratelimit-remaining-tokens-day").unwrap();
    assert_eq!(left.parse::<u64>().unwrap(), 39 - used);
    let refused = chat(&server, "sk-day").await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert_eq!(refused.json()["error"]["code"], "insufficient_quota");
    assert_eq!(refused.json()["error"]["type"], "insufficient_quota");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    // A prompt beyond the limit would never be taken; one beyond what is left, later.
    let long = vec!["word"; 20].join(" ");
    let body = json!({"model": MODEL, "prompt": long}).to_string();
    let request = Request::post("/v1/completions").header("authorization", "Bearer sk-minute");
    let answer = server.call(request.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert_eq!(answer.json()["error"]["type"], "tokens");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let mut last = chat(&server, "sk-minute").await;
    for _ in 0..4 {
        assert_eq!(last.header("x-ratelimit-limit-tokens"), Some("60"));
        if last.status == 429 {
            break;
        }
        last = chat(&server, "sk-minute").await;
    }
    assert_eq!(last.json()["error"]["code"], "rate_limit_exceeded");
    assert!(last.header("retry-after").is_some());
    server.wait_until_idle().await;
}
