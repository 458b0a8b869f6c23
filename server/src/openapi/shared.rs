//! Parameters that several bodies have in common.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Which model answers.
#[derive(JsonSchema)]
pub(super) struct Model {
    /// A served name, an adapter, `MODEL:adapter`, a stack `MODEL:one@0.7+two@0.3` or an alias.
    model: String,
    /// Extension: an adapter to answer with.
    adapter: Option<String>,
    /// Extension: a stack of adapters.
    #[schemars(length(min = 1, max = 8))]
    adapters: Option<Vec<AdapterPart>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum AdapterPart {
    Name(String),
    Weighted(WeightedAdapter),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct WeightedAdapter {
    name: String,
    #[schemars(range(min = -100, max = 100))]
    weight: Option<f64>,
}

/// How tokens are drawn.
#[derive(JsonSchema)]
pub(super) struct Drawing {
    /// 0 is greedy.
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    #[schemars(range(min = 0, max = 1))]
    top_p: Option<f64>,
    #[schemars(range(min = -2, max = 2))]
    presence_penalty: Option<f64>,
    #[schemars(range(min = -2, max = 2))]
    frequency_penalty: Option<f64>,
    /// Token ids of the model, and what is added to their logits.
    logit_bias: Option<BTreeMap<String, Bias>>,
    /// The same request with the same seed gets the same answer.
    #[schemars(range(min = -9_223_372_036_854_775_808_i64, max = 9_223_372_036_854_775_807_i64))]
    seed: Option<i64>,
    /// Never part of the text.
    stop: Option<Stop>,
    /// Extension: -1 and 0 keep all tokens.
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    top_k: Option<i64>,
    /// Extension.
    #[schemars(range(min = 0, max = 1))]
    min_p: Option<f64>,
    /// Extension: counts prompt and generated tokens.
    #[schemars(range(min = 0.01, max = 10))]
    repetition_penalty: Option<f64>,
    /// Extension: no end before.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    min_tokens: Option<u32>,
    /// Extension: end tokens are tokens like any other.
    ignore_eos: Option<bool>,
    /// Extension: tokens in log-probabilities are shown as `token_id:N`.
    return_tokens_as_token_ids: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct Bias(#[schemars(range(min = -100, max = 100))] f64);

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Stop {
    One(StopText),
    Some(#[schemars(length(min = 1, max = 4))] Vec<StopText>),
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct StopText(#[schemars(length(min = 1, max = 1000))] String);

/// How a request is served.
#[derive(JsonSchema)]
pub(super) struct Served {
    service_tier: Option<Tier>,
    /// Requests share KV blocks only under equal keys.
    prompt_cache_key: Option<String>,
    /// Extension: lower goes first; below 0 where the operator allows it.
    #[schemars(range(min = -2_147_483_648_i64, max = 2_147_483_647_i64))]
    priority: Option<i64>,
    /// Extension: requests share KV blocks only under equal salts.
    cache_salt: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Tier {
    Auto,
    Default,
    Flex,
    Priority,
}

/// Hints of the hosted service, which change nothing here.
#[derive(JsonSchema)]
pub(super) struct Hints {
    user: Option<String>,
    safety_identifier: Option<String>,
}

/// More hints of the hosted service, which change nothing here.
#[derive(JsonSchema)]
pub(super) struct CacheHints {
    prompt_cache_retention: Option<Retention>,
    prompt_cache_options: Option<CacheOptions>,
}

/// How the hosted cache keeps a prompt.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CacheOptions {
    mode: Option<CacheMode>,
    ttl: Option<CacheTtl>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum CacheMode {
    Implicit,
    Explicit,
}

#[derive(JsonSchema)]
pub(super) enum CacheTtl {
    #[schemars(rename = "30m")]
    HalfAnHour,
}

#[derive(JsonSchema)]
pub(super) enum Retention {
    #[schemars(rename = "in_memory")]
    InMemory,
    #[schemars(rename = "in-memory")]
    InMemoryToo,
    #[schemars(rename = "24h")]
    Day,
}

/// Whether the answer comes as events.
#[derive(JsonSchema)]
pub(super) struct Streamed {
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<StreamOptions>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// One more chunk, with `usage`.
    include_usage: Option<bool>,
    /// Extension: `usage` so far in every chunk. Only with `include_usage`.
    continuous_usage_stats: Option<bool>,
    /// Accepted; chunks are never padded.
    include_obfuscation: Option<bool>,
}

/// Grammars that the whole answer matches; one of them at most.
#[derive(JsonSchema)]
pub(super) struct Grammars {
    /// Extension.
    regex: Option<String>,
    /// Extension: in Lark's notation, or in GBNF.
    grammar: Option<String>,
    /// Extension, in vLLM's form.
    structured_outputs: Option<StructuredOutputs>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct StructuredOutputs {
    /// A JSON schema, or its text.
    json: Option<Value>,
    regex: Option<String>,
    grammar: Option<String>,
    #[schemars(length(min = 1))]
    choice: Option<Vec<String>>,
    json_object: Option<bool>,
}

/// How much to think, for models whose template knows of it.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Verbosity {
    Low,
    Medium,
    High,
}

/// Labels of a stored object.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct Metadata(
    #[schemars(extend("maxProperties" = 16, "propertyNames" = {"maxLength": 64}))]
    BTreeMap<String, MetadataText>,
);

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct MetadataText(#[schemars(length(max = 512))] String);

/// A name of a function or a schema.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct PlainName(#[schemars(regex(pattern = "^[a-zA-Z0-9_-]{1,64}$"))] String);

/// A name of a participant.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct AuthorName(
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[^\s<|\\/>]+$"))] String,
);

/// Any JSON object.
pub(super) type Object = Map<String, Value>;
