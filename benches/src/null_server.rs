//! The whole server but for the model: every step is done at once, and draws the same token. What
//! is left is what HTTP, JSON, text and scheduling cost.

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use scheduler::{Batch, Executor, ExecutorError, Sampled, Scheduler, SchedulerConfig};
use serde_json::Map;
use understudy::app::router;
use understudy::connections::ConnectionOptions;
use understudy::engine::{Engine, EngineOptions, QueueLimits};
use understudy::metrics::Metrics;
use understudy::shutdown;
use understudy::state::{AppOptions, AppState, ServedModel};
use understudy::store::{Store, StoreOptions};
use understudy::text::ChatTemplate;

use crate::text::tokenizer;

/// Threads for HTTP, as the binary has them.
const HTTP_THREADS: usize = 2;
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";
const MAX_LEN: usize = 4_096;

/// Draws one token for ever.
struct Null {
    token: u32,
}

impl Executor for Null {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        let rows = batch.rows.iter();
        Ok(rows.map(|row| Sampled::drawn(row, self.token)).collect())
    }
}

/// Serves on a free port until it is killed; says where.
pub(crate) fn run(model: Option<&str>) -> Result<()> {
    let (tokenizer, eos_tokens) = tokenizer(model)?;
    let token = tokenizer.encode(" a", false)?;
    let token = *token.first().context("a text of no tokens")?;
    let template = ChatTemplate::from_text("null", TEMPLATE, &Map::new(), SystemTime::now)?;
    let scheduler = Scheduler::new(SchedulerConfig {
        block_size: 16,
        n_blocks: 1 << 16,
        max_batched_tokens: 8_192,
        max_sequences: 256,
        max_model_len: MAX_LEN,
        window: None,
        prefix_cache: true,
        fairness: true,
        head_start: SchedulerConfig::HEAD_START,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    })?;
    let served = ServedModel {
        names: vec!["null".to_owned()],
        vocab_size: tokenizer.vocab_size(),
        tokenizer,
        generates: true,
        template: Some(template),
        eos_tokens,
        max_model_len: u32::try_from(MAX_LEN)?,
        kv_root: 1,
        fingerprint: "fp_null".to_owned(),
        created: 0,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let metrics = Metrics::new();
        let options = EngineOptions {
            queue: QueueLimits {
                max_requests: 4_096,
                max_tokens: 1 << 24,
                timeout: None,
            },
            stretch: Some(2.0),
            forces_tokens: true,
            overlaps_steps: true,
        };
        let engine = Engine::start(
            scheduler,
            Box::new(Null { token }),
            options,
            metrics.clone(),
        )?;
        let store = Store::open(StoreOptions::default())?;
        let app_options = AppOptions::default();
        let state = AppState::new(served, engine.handle(), metrics, store, &app_options);
        let app = router(state, app_options.keys);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        writeln!(
            std::io::stdout(),
            "URL http://{}/v1",
            listener.local_addr()?
        )?;
        let listening = shutdown::listen(listener, app, ConnectionOptions::default());
        let never = std::future::pending::<()>;
        listening
            .until(engine, Duration::ZERO, never(), never())
            .await?;
        Ok(())
    })
}
