//! A server in this process, and the few words of HTTP that the tests speak.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use scheduler::{Executor, Scheduler, SchedulerConfig};
use serde_json::{Map, Value, json};
use tests::fake::FakeConfig;
use tower::ServiceExt;
use understudy::app::{access, router};
use understudy::auth::{AccessTable, ApiKeys};
use understudy::engine::{Engine, EngineOptions, QueueLimits};
use understudy::files::{Files, FilesOptions};
use understudy::handlers::UnknownParams;
use understudy::metrics::Metrics;
use understudy::state::{AppOptions, AppState, ServedModel};
use understudy::store::{Store, StoreOptions};
use understudy::telemetry::Traces;
use understudy::text::{ChatTemplate, Tokenizer};

use crate::model::{Fault, Gate, ScriptedModel};

pub(crate) const MODEL: &str = "org/mini:v1";
pub(crate) const N_VOCAB: u32 = 512;
/// `<|im_end|>` of the tokenizer used here.
pub(crate) const EOS: u32 = 2;
pub(crate) const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
    <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// How a test wants its server.
pub(crate) struct Options {
    /// What the model says; `None`: whatever the fake draws.
    pub(crate) says: Option<&'static str>,
    pub(crate) fault: Option<&'static str>,
    pub(crate) fault_kind: fn(u32) -> Fault,
    pub(crate) keys: Vec<&'static str>,
    /// Instead of `keys`.
    pub(crate) key_ring: Option<ApiKeys>,
    pub(crate) traces: Option<Traces>,
    pub(crate) queue: QueueLimits,
    pub(crate) allow_priority: bool,
    pub(crate) max_sequences: usize,
    pub(crate) forces_tokens: bool,
    pub(crate) max_model_len: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_choices: u32,
    pub(crate) seed: Option<u64>,
    pub(crate) has_template: bool,
    pub(crate) template: &'static str,
    pub(crate) cors_origins: Vec<&'static str>,
    pub(crate) tokenizer: &'static str,
    pub(crate) unknown_params: UnknownParams,
    /// Where the store lies, and how large files may be; `None`: in memory, without files.
    pub(crate) files: Option<(PathBuf, FilesOptions)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            says: Some("Hello there"),
            fault: None,
            fault_kind: Fault::Panic,
            keys: Vec::new(),
            key_ring: None,
            traces: None,
            queue: QueueLimits {
                max_requests: 100,
                max_tokens: 10_000,
                timeout: None,
            },
            allow_priority: false,
            max_sequences: 8,
            forces_tokens: true,
            max_model_len: 256,
            max_body_bytes: 1 << 20,
            max_choices: 2048,
            seed: None,
            has_template: true,
            template: TEMPLATE,
            cors_origins: Vec::new(),
            tokenizer: "gpt2",
            unknown_params: UnknownParams::Refuse,
            files: None,
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) app: Router,
    pub(crate) access: AccessTable,
    pub(crate) engine: Option<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Gate,
    pub(crate) tokenizer: Tokenizer,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The data of all events of a stream, `[DONE]` included.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.text.split("\n\n").filter(|event| !event.is_empty());
        events
            .map(|event| {
                event
                    .strip_prefix("data: ")
                    .expect("data lines only")
                    .to_owned()
            })
            .collect()
    }

    /// The events of a response: named, and each named as its data says.
    pub(crate) fn named_events(&self) -> Vec<Value> {
        let events = self.text.split("\n\n").filter(|event| !event.is_empty());
        let parse = |event: &str| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data = data.strip_prefix("data: ").expect("data behind the name");
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        events.map(parse).collect()
    }

    /// The chunks of a stream.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let events = self.events();
        let (done, chunks) = events.split_last().expect("a stream has events");
        assert_eq!(done, "[DONE]");
        chunks
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }
}

fn tokenizer_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/tokenizers")
        .join(name)
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        let tokenizer = Tokenizer::from_dir(&tokenizer_dir(options.tokenizer)).unwrap();
        let script = options.says.map(|text| {
            let mut tokens = tokenizer.encode(text, false).unwrap();
            tokens.push(EOS);
            tokens
        });
        let fault = options.fault.map(|text| {
            let token = *tokenizer.encode(text, false).unwrap().last().unwrap();
            (options.fault_kind)(token)
        });
        let gate = Gate::default();
        let config = FakeConfig {
            block_size: 4,
            n_blocks: 256,
            n_vocab: N_VOCAB,
            window: None,
        };
        let model = ScriptedModel::new(config, script, gate.clone(), fault);
        let metrics = Metrics::new();
        let engine = engine(&options, config, Box::new(model), &metrics);
        let app_options = AppOptions {
            keys: options
                .key_ring
                .unwrap_or_else(|| ApiKeys::new(options.keys.iter().copied())),
            max_body_bytes: options.max_body_bytes,
            max_choices: options.max_choices,
            seed: options.seed,
            allow_priority: options.allow_priority,
            unknown_params: options.unknown_params,
            cors_origins: options
                .cors_origins
                .iter()
                .map(|o| (*o).to_owned())
                .collect(),
            ..AppOptions::default()
        };
        let template =
            ChatTemplate::from_text("test", options.template, &Map::new(), SystemTime::now);
        let served = ServedModel {
            generates: true,
            names: vec![MODEL.to_owned(), "alias".to_owned()],
            tokenizer: tokenizer.clone(),
            template: options.has_template.then(|| template.unwrap()),
            eos_tokens: Arc::new([EOS]),
            vocab_size: N_VOCAB as usize,
            max_model_len: u32::try_from(options.max_model_len).unwrap(),
            kv_root: 7,
            fingerprint: "fp_test".to_owned(),
            created: 1_700_000_000,
        };
        let (store, files) = store(options.files);
        let mut state = AppState::new(
            served,
            engine.handle(),
            metrics.clone(),
            store,
            &app_options,
        )
        .with_files(files);
        if let Some(traces) = options.traces {
            state = state.with_traces(traces);
        }
        Self {
            access: access(&state),
            app: router(state, app_options.keys),
            engine: Some(engine),
            metrics,
            gate,
            tokenizer,
        }
    }

    /// Sends a request and hands out the answer as it comes.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(request(Method::GET, path, String::new())).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(request(Method::POST, path, body.to_string()))
            .await
    }

    /// A chat of one user message, with `more` parameters.
    pub(crate) async fn chat(&self, more: Value) -> Answer {
        self.post("/v1/chat/completions", &chat_body(more)).await
    }

    /// A completion, with `more` parameters.
    pub(crate) async fn complete(&self, more: Value) -> Answer {
        self.post("/v1/completions", &merge(json!({"model": MODEL}), more))
            .await
    }

    /// A response to "Hi", with `more` parameters.
    pub(crate) async fn respond(&self, more: Value) -> Answer {
        let body = merge(json!({"model": MODEL, "input": "Hi"}), more);
        self.post("/v1/responses", &body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(request(Method::DELETE, path, String::new()))
            .await
    }

    /// A metric's value, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum()
    }

    /// Waits until a metric has a value; the engine works at its own pace.
    pub(crate) async fn wait_for(&self, name: &str, value: f64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric(name) != value {
            assert!(
                Instant::now() < deadline,
                "{name} is {}, not {value}",
                self.metric(name)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until steps have begun to work on so many requests. (Their places in the queue are
    /// given back before the step is computed.)
    pub(crate) async fn wait_for_started(&self, n: u32) {
        self.wait_for("understudy_queue_seconds_count", f64::from(n))
            .await;
    }

    /// Nothing runs, waits or holds memory.
    pub(crate) async fn wait_until_idle(&self) {
        for name in [
            "understudy_sequences_running",
            "understudy_sequences_waiting",
            "understudy_tokens_running",
            "understudy_requests_receiving",
            "understudy_requests_queued",
            "understudy_tokens_queued",
            "understudy_kv_usage_ratio",
            "understudy_kv_blocks_in_use",
        ] {
            self.wait_for(name, 0.0).await;
        }
    }
}

fn store(files: Option<(PathBuf, FilesOptions)>) -> (Store, Option<Files>) {
    let (dir, sizes) = files.unzip();
    let store = Store::open(StoreOptions {
        dir,
        ..StoreOptions::default()
    });
    let store = store.unwrap();
    let files = Files::open(&store, sizes.unwrap_or_default()).unwrap();
    (store, files)
}

fn engine(
    options: &Options,
    config: FakeConfig,
    model: Box<dyn Executor + Send>,
    metrics: &Arc<Metrics>,
) -> Engine {
    let scheduler = Scheduler::new(SchedulerConfig {
        block_size: config.block_size,
        n_blocks: config.n_blocks,
        max_batched_tokens: 64,
        max_sequences: options.max_sequences,
        max_model_len: options.max_model_len,
        window: None,
        prefix_cache: true,
        fairness: true,
        head_start: SchedulerConfig::HEAD_START,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    });
    let engine_options = EngineOptions {
        queue: options.queue,
        stretch: None,
        forces_tokens: options.forces_tokens,
        overlaps_steps: true,
    };
    Engine::start(scheduler.unwrap(), model, engine_options, metrics.clone()).unwrap()
}

pub(crate) fn request(method: Method, path: &str, body: String) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn chat_body(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    merge(json!({"model": MODEL, "messages": messages}), more)
}

/// `base` with the fields of `more`, which win.
pub(crate) fn merge(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}
