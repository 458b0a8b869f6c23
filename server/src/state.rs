//! What all handlers share: the served model, the way to the engine, and what the operator chose.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::adapters::{Adapters, Choice, Lease, Names};
use crate::aliases::{self, Alias, AliasFault, ChosenArm};
use crate::answer::{ReasoningSyntax, ToolSyntax};
use crate::auth::{ApiKeys, Grant};
use crate::dialect::Dialect;
use crate::embedder::Embedder;
use crate::engine::{EngineHandle, Hold};
use crate::files::Files;
use crate::fleet::{Fleet, Parts, Resident};
use crate::grammar::GrammarCompiler;
use crate::handlers::UnknownParams;
use crate::idempotency::Answering;
use crate::identity::{Numbers, hex};
use crate::metrics::Metrics;
use crate::openai::{ApiError, Fields, Head, MAX_TOLD_NAMES};
use crate::openapi::document;
use crate::runs::Runs;
use crate::store::{Key, Kind, Store};
use crate::telemetry::Traces;
use crate::tenant::Owner;
use crate::text::{ChatTemplate, Tokenizer};

/// The model that requests are answered by.
#[derive(Debug)]
pub struct ServedModel {
    /// Names that requests may call it by; never empty.
    pub names: Vec<String>,
    pub tokenizer: Tokenizer,
    /// Whether it generates text: an encoder only makes vectors.
    pub generates: bool,
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

impl ServedModel {
    /// Its names, which nothing beside it may have.
    pub fn own_names(&self) -> Vec<(String, &'static str)> {
        let names = self.names.iter();
        names
            .map(|name| (name.clone(), "the model itself"))
            .collect()
    }
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
    /// How the model writes down its thoughts. `None`: as its chat template tells.
    pub reasoning: Option<ReasoningSyntax>,
    /// Time for requests that bring none of their own; `None`: as long as it takes.
    pub request_timeout: Option<Duration>,
    /// Whether requests may ask to go before others.
    pub allow_priority: bool,
    /// Origins of web pages that may read answers; `*` is all.
    pub cors_origins: Vec<String>,
    /// Requests that take longer are told in the log.
    pub slow_request: Option<Duration>,
    /// Other names, and what they stand for.
    pub aliases: Vec<Alias>,
    /// What becomes of parameters that the API does not have.
    pub unknown_params: UnknownParams,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            max_body_bytes: 32 << 20,
            max_choices: 2048,
            seed: None,
            tool_syntax: None,
            reasoning: None,
            request_timeout: None,
            allow_priority: false,
            cors_origins: Vec::new(),
            slow_request: None,
            aliases: Vec::new(),
            unknown_params: UnknownParams::default(),
        }
    }
}

/// What all handlers share. Clones are cheap.
#[derive(Clone, Debug)]
pub struct AppState {
    pub model: Arc<ServedModel>,
    pub adapters: Adapters,
    pub(crate) aliases: Arc<[Alias]>,
    /// What an alias of several things stands for in this request; nothing outside of one.
    pub(crate) arm: Option<ChosenArm>,
    /// What this request is answered with beside the model; nothing outside of one.
    pub(crate) lease: Option<Arc<Lease>>,
    pub engine: EngineHandle,
    /// Other models beside the first.
    pub(crate) fleet: Option<Fleet>,
    /// The one of them that answers this request, which stays in memory meanwhile; nothing
    /// outside of one.
    pub(crate) resident: Option<Arc<Resident>>,
    /// What makes vectors, if anything does.
    pub embedder: Option<Arc<Embedder>>,
    pub metrics: Arc<Metrics>,
    pub max_body_bytes: usize,
    pub max_choices: u32,
    pub request_timeout: Option<Duration>,
    pub allow_priority: bool,
    pub(crate) unknown_params: UnknownParams,
    /// `/openapi.json`.
    pub(crate) description: Arc<str>,
    pub(crate) cors_origins: Vec<String>,
    pub grammars: Arc<GrammarCompiler>,
    pub dialect: Dialect,
    pub store: Store,
    /// Uploaded files; `None`: the store has no directory to keep them in.
    pub(crate) files: Option<Files>,
    /// Whose call this is; nobody in particular's outside of one.
    pub(crate) owner: Owner,
    /// What the caller may use; everything outside of a call.
    pub(crate) grant: Arc<Grant>,
    /// Responses that are made in the background.
    pub(crate) runs: Arc<Runs>,
    /// Keys under which an answer is just being made.
    pub(crate) answering: Answering,
    /// Requests that may be read and tokenized at a time. More would only slow each other down
    /// and pile up; those that wait notice when their client hangs up.
    pub(crate) preparing: Arc<Semaphore>,
    /// The same for large bodies, which take long and give way: others do not wait for them.
    pub(crate) preparing_large: Arc<Semaphore>,
    /// All keys, for what is told to admins.
    pub(crate) keys: ApiKeys,
    /// Requests that take longer are told in the log; `None`: none are.
    pub(crate) slow_request: Option<Duration>,
    /// Where spans go.
    pub(crate) traces: Option<Traces>,
    ids: Arc<Numbers>,
    seeds: Arc<Numbers>,
}

impl AppState {
    pub fn new(
        model: ServedModel,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        store: Store,
        options: &AppOptions,
    ) -> Self {
        let seeds = options
            .seed
            .map_or_else(Numbers::from_entropy, Numbers::from_seed);
        let parts = Parts::new(model, Adapters::none(), engine, metrics, options);
        let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            preparing: Arc::new(Semaphore::new(n_cores)),
            preparing_large: Arc::new(Semaphore::new(n_cores.div_ceil(2))),
            grammars: parts.grammars,
            dialect: parts.dialect,
            model: parts.model,
            adapters: parts.adapters,
            aliases: Arc::from(options.aliases.as_slice()),
            arm: None,
            lease: None,
            engine: parts.engine,
            fleet: None,
            resident: None,
            embedder: None,
            metrics: parts.metrics,
            store,
            files: None,
            owner: Owner::default(),
            grant: Arc::default(),
            runs: Arc::default(),
            answering: Answering::default(),
            max_body_bytes: options.max_body_bytes,
            max_choices: options.max_choices,
            request_timeout: options.request_timeout,
            allow_priority: options.allow_priority,
            unknown_params: options.unknown_params,
            description: Arc::from(document(options.keys.are_required()).to_string()),
            cors_origins: options.cors_origins.clone(),
            keys: options.keys.clone(),
            slow_request: options.slow_request,
            traces: None,
            ids: Arc::new(Numbers::from_entropy()),
            seeds: Arc::new(seeds),
        }
    }

    /// The same, beside other models.
    #[must_use]
    pub fn with_fleet(self, fleet: Fleet) -> Self {
        Self {
            fleet: Some(fleet),
            ..self
        }
    }

    /// What a request needs of the model.
    pub fn parts(&self) -> Parts {
        Parts {
            model: Arc::clone(&self.model),
            adapters: self.adapters.clone(),
            engine: self.engine.clone(),
            grammars: Arc::clone(&self.grammars),
            dialect: self.dialect,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// The state of a request that calls `asked`, which stands for `target`: that of one of
    /// several models, loaded if need be. The engine stays that of the call; see
    /// [`enter`](Self::enter).
    pub(crate) async fn of_model(
        &self,
        asked: &str,
        target: &str,
        names_adapters: bool,
    ) -> Result<Self, ApiError> {
        let found = self
            .fleet
            .as_ref()
            .and_then(|fleet| Some((fleet, fleet.find(target)?)));
        let Some((fleet, (i, choice))) = found else {
            return Ok(self.clone());
        };
        // Nobody makes models come and go who may not use them. Adapters that the body names are
        // looked at once their model is there.
        let alias = (asked != target).then_some(asked);
        let choice = choice.map_err(|error| match alias {
            Some(alias) => error.of_asked(alias),
            None => error,
        })?;
        let is_allowed = self.grant.allows(asked, alias, &choice)
            || names_adapters && self.grant.allows_adapters();
        self.grant.check(asked, is_allowed)?;
        let resident = self.engine.in_time(fleet.lease(i)).await??;
        let parts = resident.parts().clone();
        Ok(Self {
            model: parts.model,
            adapters: parts.adapters,
            grammars: parts.grammars,
            dialect: parts.dialect,
            metrics: parts.metrics,
            embedder: None,
            resident: Some(resident),
            ..self.clone()
        })
    }

    /// Takes a place in the queue of the model that answers, where only the body told which that
    /// is. `n_tokens` is an estimate.
    pub(crate) fn enter(&mut self, n_tokens: usize) -> Result<(), ApiError> {
        let Some(fleet) = &self.fleet else {
            return Ok(());
        };
        self.engine = match &self.resident {
            Some(resident) => {
                let hold: Hold = Arc::clone(resident) as Hold;
                let engine = &resident.parts().engine;
                self.engine.moved_to(engine, n_tokens, Some(hold))?
            }
            None => self
                .engine
                .moved_to(&fleet.first().engine, n_tokens, None)?,
        };
        Ok(())
    }

    /// The same, with something that makes vectors.
    #[must_use]
    pub fn with_embedder(self, embedder: Embedder) -> Self {
        Self {
            embedder: Some(Arc::new(embedder)),
            ..self
        }
    }

    /// The same, with files.
    #[must_use]
    pub fn with_files(self, files: Option<Files>) -> Self {
        Self { files, ..self }
    }

    /// The same, with somewhere for spans to go.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self {
            traces: Some(traces),
            ..self
        }
    }

    /// The state as requests for vectors see it: their engine is the embedder's.
    pub(crate) fn for_embeddings(&self) -> Self {
        let mut state = self.clone();
        if let Some(embedder) = &self.embedder {
            state.engine = embedder.engine.clone();
        }
        // Their engine is known before their body is read.
        state.fleet = None;
        state
    }

    /// What makes the vectors of the model `name`, which a request calls `asked`.
    pub(crate) fn embedder_of(&self, asked: &str, name: &str) -> Result<Arc<Embedder>, ApiError> {
        self.grant.check(asked, self.grant.allows_model(asked))?;
        if let Some(timeline) = self.engine.timeline() {
            timeline.note_model(asked);
        }
        let is_named = |embedder: &&Arc<Embedder>| embedder.model.names.iter().any(|n| n == name);
        match self.embedder.as_ref().filter(is_named) {
            Some(embedder) => Ok(Arc::clone(embedder)),
            None => {
                self.check_model(name)?;
                Err(ApiError::not_an_embedding_model())
            }
        }
    }

    /// All names, with the time when what they call was loaded.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = (&String, u64)> {
        let model = &self.model;
        let embedder = self.embedder.iter().map(|embedder| &embedder.model);
        let embedders = embedder.flat_map(|model| model.names.iter().map(|n| (n, model.created)));
        let own = model.names.iter().map(|name| (name, model.created));
        own.chain(embedders.filter(|(name, _)| !model.names.contains(name)))
    }

    /// The same with the names of other models beside this one.
    fn names_of_all(&self) -> impl Iterator<Item = &String> {
        let others = self.fleet.iter().flat_map(Fleet::names);
        self.all_names().map(|(name, _)| name).chain(others)
    }

    /// Refuses names of models that do not generate text.
    pub(crate) fn check_generates(&self, name: &str) -> Result<(), ApiError> {
        let is_own = self.model.names.iter().any(|served| served == name);
        let is_known = self.all_names().any(|(known, _)| known == name);
        if is_known && !(is_own && self.model.generates) {
            return Err(ApiError::not_a_generating_model());
        }
        Ok(())
    }

    /// The beginning of an answer to a request that called the model `name`.
    pub fn head(&self, prefix: &str, name: String) -> Head {
        Head {
            id: self.ids.id(prefix),
            created: crate::identity::unix_seconds(),
            service_tier: "default",
            model: name,
            system_fingerprint: self.fingerprint(),
        }
    }

    /// Where the caller's object of this id lies.
    pub(crate) fn key(&self, kind: Kind, id: impl Into<String>) -> Key {
        Key::new(self.owner, kind, id)
    }

    /// The caller's object of this id. Not for async threads.
    pub(crate) fn stored(&self, kind: Kind, id: &str) -> Result<Option<Value>, ApiError> {
        let body = self.store.get(&self.key(kind, id))?;
        let read = body.map(|body| serde_json::from_slice(&body)).transpose();
        read.map_err(|error| {
            tracing::error!(%error, ?kind, id, "a stored object cannot be read");
            ApiError::internal_for_good("A stored object cannot be read.")
        })
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

    /// Serves adapters beside the model.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Adapters) -> Self {
        self.adapters = adapters;
        self
    }

    /// Takes from a body what it says of the model it is for.
    pub(crate) fn choice(&self, fields: &mut Fields) -> Result<(String, Choice), ApiError> {
        let (name, choice) = self.chosen(fields, &|| self.told_names())?;
        if let Some(timeline) = self.engine.timeline() {
            timeline.note_model(&name);
        }
        Ok((name, choice))
    }

    /// The same without a trace. `told`: names for one who has named what is not there.
    fn chosen(
        &self,
        fields: &mut Fields,
        told: &dyn Fn() -> Vec<String>,
    ) -> Result<(String, Choice), ApiError> {
        let names = Names {
            base: &self.model.names,
            meant: &|name| self.meant(name),
            is_adapter: &|name| self.adapters.knows(name),
            told,
        };
        // An alias that is listed is listed for what it stands for, not for what is named beside it.
        let names_adapters = ["adapter", "adapters"].map(|name| fields.peek(name).is_some());
        let (name, choice) = Choice::take(fields, &names)?;
        let is_alias = self.aliases.iter().any(|alias| alias.name == name);
        let alias = (is_alias && names_adapters == [false; 2]).then_some(name.as_str());
        self.grant
            .check(&name, self.grant.allows(&name, alias, &choice))?;
        Ok((name, choice))
    }

    /// What is wrong with the aliases. `is_adapter` tells of adapters that requests may name.
    pub fn alias_faults(&self, is_adapter: &dyn Fn(&str) -> bool) -> Vec<AliasFault> {
        let is_model = |name: &str| self.names_of_all().any(|known| known == name);
        let of_member = |name: &str| {
            let found = self.fleet.as_ref().and_then(|fleet| fleet.find(name));
            found.is_some_and(|(_, choice)| choice.is_ok())
        };
        let served = aliases::Served {
            is_name: &|name| is_model(name) || is_adapter(name),
            provides: &|name| is_model(name) || of_member(name) || self.choice_of(name).is_ok(),
        };
        aliases::faults(&self.aliases, &served)
    }

    /// Whether the caller may use what is served under this name.
    pub(crate) fn may_use(&self, name: &str) -> bool {
        if self.names_of_all().any(|known| known == name) {
            return self.grant.allows_model(name);
        }
        let target = self.meant(name);
        let target = target.as_deref().unwrap_or(name);
        if let Some((_, choice)) = self.fleet.as_ref().and_then(|fleet| fleet.find(target)) {
            let alias = (name != target).then_some(name);
            return choice.is_ok_and(|choice| self.grant.allows(name, alias, &choice));
        }
        let body = serde_json::json!({ "model": name });
        Fields::from_value("", body)
            .is_ok_and(|mut fields| self.chosen(&mut fields, &Vec::new).is_ok())
    }

    /// The same of a name alone, which is no alias.
    pub(crate) fn choice_of(&self, name: &str) -> Result<Choice, ApiError> {
        let names = Names {
            base: &self.model.names,
            meant: &|_| None,
            is_adapter: &|name| self.adapters.knows(name),
            told: &Vec::new,
        };
        Choice::of_model(name, &names)
    }

    /// What an alias stands for in this request; `None`: it is none.
    fn meant(&self, name: &str) -> Option<String> {
        if let Some(arm) = self.arm.as_ref().filter(|arm| arm.alias == name) {
            return Some(arm.target.clone());
        }
        self.arm_of(name, None).map(|arm| arm.target)
    }

    /// What answers a request that calls the model `name`, if that is an alias. Requests of one
    /// `key` are answered by the same; those without are dealt out one by one.
    pub(crate) fn arm_of(&self, name: &str, key: Option<&str>) -> Option<ChosenArm> {
        let alias = self.aliases.iter().find(|alias| alias.name == name)?;
        Some(match key {
            Some(key) => alias.choose(key),
            None => alias.choose(&self.ids.id("")),
        })
    }

    /// Root of the KV keys of what this request is answered with.
    pub(crate) fn kv_root(&self) -> u64 {
        let lease = self.lease.as_ref();
        lease.map_or(self.model.kv_root, |lease| lease.kv_root())
    }

    /// `system_fingerprint` of what this request is answered with.
    pub(crate) fn fingerprint(&self) -> String {
        let own = &self.model.fingerprint;
        match &self.lease {
            None => own.clone(),
            Some(lease) => format!("{own}_{}", hex(&lease.digest()[..5])),
        }
    }

    /// Refuses names that are not served.
    pub fn check_model(&self, name: &str) -> Result<(), ApiError> {
        if self.names_of_all().any(|served| served == name) {
            return Ok(());
        }
        Err(ApiError::model_not_found(name, &self.told_names()))
    }

    /// Names that the caller may use, models and aliases before adapters.
    pub(crate) fn told_names(&self) -> Vec<String> {
        let aliases = self.aliases.iter().map(|alias| &alias.name);
        let names = self.names_of_all().chain(aliases).cloned();
        let adapters = self.adapters.list();
        let mut told: Vec<String> = Vec::new();
        for name in names.chain(adapters.into_iter().map(|adapter| adapter.name)) {
            if !told.contains(&name) && self.may_use(&name) {
                told.push(name);
            }
            // One more than is written out tells that there are more.
            if told.len() > MAX_TOLD_NAMES {
                break;
            }
        }
        told
    }
}
