//! The bodies of decisions and of what models read.

use schemars::JsonSchema;
use serde_json::Value;

use super::chat::TokenIds;
use super::responses::Item;
use super::shared::{CacheOptions, Model, Object, Served};

/// `POST /v1/decisions`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct DecisionBody {
    #[schemars(flatten)]
    model: Model,
    /// What every question is about. Messages may have parts of type `input_json`.
    input: NotEmptyInput,
    #[schemars(length(min = 1, max = 400))]
    questions: Vec<Question>,
    #[schemars(flatten)]
    served: Served,
    /// Without effect.
    safety_identifier: Option<String>,
    /// Without effect.
    prompt_cache_options: Option<CacheOptions>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum NotEmptyInput {
    Text(String),
    Items(#[schemars(length(min = 1))] Vec<Item>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// Whether a statement is true.
    Predicate {
        name: Option<String>,
        instructions: Instructions,
    },
    /// One of some values, all of them different.
    Choice {
        name: Option<String>,
        instructions: Instructions,
        #[schemars(length(min = 2, max = 255))]
        choices: Vec<Choice>,
    },
    /// One of some levels, from the lowest to the highest.
    Score {
        name: Option<String>,
        instructions: Instructions,
        #[schemars(length(min = 2, max = 255))]
        levels: Vec<Level>,
    },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Instructions {
    Text(String),
    Parts(#[schemars(length(min = 1))] Vec<InstructionPart>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum InstructionPart {
    InputText { text: String },
    InputJson { data: JsonData },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum JsonData {
    Object(Object),
    Objects(Vec<Value>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Choice {
    value: ChoiceValue,
    description: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ChoiceValue {
    Text(String),
    Flag(bool),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Level {
    label: String,
    description: Option<String>,
}

/// `POST /tokenize`; with `messages` instead of `prompt`, the body of a chat.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TokenizeText {
    /// Default: the served model.
    model: Option<String>,
    prompt: String,
    /// The model's own beginning and end; default true.
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

/// `POST /detokenize`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct DetokenizeBody {
    /// Default: the served model.
    model: Option<String>,
    tokens: TokenIds,
}

/// `POST /v1/load_lora_adapter`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct LoadAdapterBody {
    lora_name: String,
    /// Below `--adapter-root`.
    lora_path: String,
    /// Replace an adapter of this name.
    load_inplace: Option<bool>,
    /// Only if the name has had so many contents.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
    if_generation: Option<u64>,
    /// Never evicted.
    pinned: Option<bool>,
}

/// `POST /v1/unload_lora_adapter`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct UnloadAdapterBody {
    lora_name: String,
    /// Without effect.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
    lora_int_id: Option<u64>,
}
