//! What all handlers share: the served model, the way to the engine, and what the operator chose.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::answer::ToolSyntax;
use crate::auth::ApiKeys;
use crate::dialect::Dialect;
use crate::engine::EngineHandle;
use crate::grammar::GrammarCompiler;
use crate::identity::Numbers;
use crate::metrics::Metrics;
use crate::openai::{ApiError, Head};
use crate::text::{ChatTemplate, Tokenizer};

/// The model that requests are answered by.
#[derive(Debug)]
pub struct ServedModel {
    /// Names that requests may call it by; never empty.
    pub names: Vec<String>,
    pub tokenizer: Tokenizer,
    /// `None`: a base model, which cannot chat.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub eos_tokens: Arc<[u32]>,
    /// Rows of the logits: ids that may be drawn, biased or sent as a prompt.
    pub vocab_size: usize,
    /// Most tokens of prompt and answer together.
    pub max_model_len: u32,
    /// Root of all KV-cache keys: identity of the weights by content.
    pub kv_root: u64,
    /// `system_fingerprint` of all answers.
    pub fingerprint: String,
    /// When it was loaded, in seconds of Unix time.
    pub created: u64,
}

/// Limits and keys of the HTTP side.
#[derive(Clone, Debug)]
pub struct AppOptions {
    pub keys: ApiKeys,
    pub max_body_bytes: usize,
    /// Answers that one request may ask for, over all its prompts.
    pub max_choices: u32,
    /// Base of the seeds of requests that bring none; `None` draws one.
    pub seed: Option<u64>,
    /// How the model writes tool calls; `None`: as its chat template tells.
    pub tool_syntax: Option<ToolSyntax>,
    /// Time for requests that bring none of their own; `None`: as long as it takes.
    pub request_timeout: Option<Duration>,
    /// Whether requests may ask to go before others.
    pub allow_priority: bool,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            max_body_bytes: 32 << 20,
            max_choices: 2048,
            seed: None,
            tool_syntax: None,
            request_timeout: None,
            allow_priority: false,
        }
    }
}

/// What all handlers share. Clones are cheap.
#[derive(Clone, Debug)]
pub struct AppState {
    pub model: Arc<ServedModel>,
    pub engine: EngineHandle,
    pub metrics: Arc<Metrics>,
    pub max_body_bytes: usize,
    pub max_choices: u32,
    pub request_timeout: Option<Duration>,
    pub allow_priority: bool,
    pub grammars: Arc<GrammarCompiler>,
    pub dialect: Dialect,
    /// Requests that may be read and tokenized at a time. More would only slow each other down
    /// and pile up; those that wait notice when their client hangs up.
    pub(crate) preparing: Arc<Semaphore>,
    ids: Arc<Numbers>,
    seeds: Arc<Numbers>,
}

impl AppState {
    pub fn new(
        model: ServedModel,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        options: &AppOptions,
    ) -> Self {
        let seeds = options
            .seed
            .map_or_else(Numbers::from_entropy, Numbers::from_seed);
        let grammars = GrammarCompiler::new(model.tokenizer.clone(), model.eos_tokens.clone());
        let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            preparing: Arc::new(Semaphore::new(n_cores)),
            grammars: Arc::new(grammars),
            dialect: Dialect::new(model.template.as_ref(), options.tool_syntax),
            model: Arc::new(model),
            engine,
            metrics,
            max_body_bytes: options.max_body_bytes,
            max_choices: options.max_choices,
            request_timeout: options.request_timeout,
            allow_priority: options.allow_priority,
            ids: Arc::new(Numbers::from_entropy()),
            seeds: Arc::new(seeds),
        }
    }

    /// The beginning of an answer to a request that called the model `name`.
    pub fn head(&self, prefix: &str, name: String) -> Head {
        Head {
            id: self.ids.id(prefix),
            created: crate::identity::unix_seconds(),
            service_tier: "default",
            model: name,
            system_fingerprint: self.model.fingerprint.clone(),
        }
    }

    /// Where ids come from.
    pub(crate) fn ids(&self) -> Arc<Numbers> {
        Arc::clone(&self.ids)
    }

    /// An id for a request.
    pub(crate) fn request_id(&self) -> String {
        self.ids.id("req_")
    }

    /// A seed for a request that brings none.
    pub fn draw_seed(&self) -> u64 {
        self.seeds.next()
    }

    /// Refuses names that are not served.
    pub fn check_model(&self, name: &str) -> Result<(), ApiError> {
        if self.model.names.iter().any(|served| served == name) {
            Ok(())
        } else {
            Err(ApiError::model_not_found(name, &self.model.names))
        }
    }
}
