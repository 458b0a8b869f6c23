//! The bodies of responses and conversations.

use schemars::JsonSchema;
use serde_json::Value;

use super::shared::{
    CacheHints, Drawing, Effort, Grammars, Hints, Metadata, Model, Object, PlainName, Served,
    Verbosity,
};
use super::tools::{FlatTool, ToolChoice};
use crate::openai::{INCLUDES, REFUSED_IN_RESPONSES};

/// `POST /v1/responses`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = REFUSED_IN_RESPONSES, "anyOf" = [
    {"required": ["input"], "properties": {"input": {"type": ["string", "array"]}}},
    {"required": ["instructions"], "properties": {"instructions": {"type": "string"}}},
    {"required": ["previous_response_id"], "properties": {"previous_response_id": {"type": "string"}}},
    {"required": ["conversation"], "properties": {"conversation": {"type": ["string", "object"]}}},
]))]
pub(super) struct ResponseBody {
    #[schemars(flatten)]
    model: Model,
    input: Option<Input>,
    /// A system message at the beginning.
    instructions: Option<String>,
    previous_response_id: Option<String>,
    conversation: Option<Conversation>,
    #[schemars(range(min = 16, max = 4_294_967_295_i64))]
    max_output_tokens: Option<u32>,
    #[schemars(flatten)]
    drawing: Drawing,
    stream: Option<bool>,
    /// Only with `stream`.
    stream_options: Option<StreamOptions>,
    #[schemars(length(max = 128))]
    tools: Option<Vec<FlatTool>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    /// Without effect: it bounds calls of hosted tools.
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    max_tool_calls: Option<u32>,
    text: Option<Text>,
    reasoning: Option<Reasoning>,
    include: Option<Vec<Included>>,
    /// Above 0 it asks for log-probabilities.
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u32>,
    /// `auto` leaves out the oldest turns of what does not fit.
    truncation: Option<Truncation>,
    /// Needs `store`.
    background: Option<bool>,
    /// Default true.
    store: Option<bool>,
    metadata: Option<Metadata>,
    #[schemars(flatten)]
    served: Served,
    #[schemars(flatten)]
    hints: Hints,
    #[schemars(flatten)]
    cache_hints: CacheHints,
    #[schemars(flatten)]
    grammars: Grammars,
    /// Extension: variables of the chat template.
    chat_template_kwargs: Option<Object>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// Accepted; events are never padded.
    include_obfuscation: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct Included(#[schemars(extend("enum" = INCLUDES))] String);

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Truncation {
    Disabled,
    Auto,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Conversation {
    Id(String),
    Object(ConversationId),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ConversationId {
    id: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Text {
    format: Option<TextFormat>,
    /// Without effect.
    verbosity: Option<Verbosity>,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TextFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: PlainName,
        schema: Object,
        description: Option<String>,
        /// The schema is enforced either way.
        strict: Option<bool>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = ["mode"]))]
pub(super) struct Reasoning {
    effort: Option<Effort>,
    /// Without effect: thoughts come whole.
    summary: Option<Summary>,
    /// The older name of `summary`.
    generate_summary: Option<Summary>,
    /// Only `auto`.
    context: Option<Context>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Summary {
    Auto,
    Concise,
    Detailed,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Context {
    Auto,
}

/// A text of the user, or items.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// One item.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Item {
    Message(MessageItem),
    Typed(TypedItem),
}

/// A message; its type may be left out.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MessageItem {
    #[schemars(rename = "type", extend("enum" = ["message", null]))]
    kind: Option<String>,
    role: Role,
    content: ItemContent,
    id: Option<String>,
    status: Option<Status>,
    /// Without effect.
    phase: Option<Phase>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
    System,
    Developer,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Phase {
    Commentary,
    FinalAnswer,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ItemContent {
    Text(String),
    Parts(#[schemars(length(min = 1))] Vec<ItemPart>),
}

/// Parts of answers (`output_text`, `refusal`) only in messages of the assistant.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(
    clippy::large_enum_variant,
    reason = "a description; there are no values of it"
)]
pub(super) enum ItemPart {
    InputText {
        text: String,
    },
    OutputText {
        text: String,
        /// Part of an answer; without effect.
        annotations: Option<Value>,
        /// Part of an answer; without effect.
        logprobs: Option<Value>,
        /// Part of an answer; without effect.
        parsed: Option<Value>,
    },
    Refusal {
        refusal: String,
    },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields, extend("x-unsupported" = ["caller", "encrypted_content", "namespace"]))]
pub(super) enum TypedItem {
    FunctionCall {
        call_id: String,
        name: String,
        /// JSON text.
        arguments: String,
        id: Option<String>,
        status: Option<Status>,
        /// Part of an answer; without effect.
        parsed_arguments: Option<Value>,
    },
    FunctionCallOutput {
        call_id: String,
        output: Output,
        name: Option<String>,
        id: Option<String>,
        status: Option<Status>,
    },
    Reasoning {
        summary: Option<Vec<SummaryPart>>,
        content: Option<Vec<ThoughtPart>>,
        id: Option<String>,
        status: Option<Status>,
    },
    /// An item of a stored response.
    ItemReference { id: String, status: Option<Status> },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Output {
    Text(String),
    Parts(Vec<OutputPart>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum OutputPart {
    InputText { text: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SummaryPart {
    SummaryText { text: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ThoughtPart {
    ReasoningText { text: String },
}

/// `POST /v1/conversations`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ConversationBody {
    metadata: Option<Metadata>,
    #[schemars(length(max = 20))]
    items: Option<Vec<Item>>,
}

/// An update of what has been stored.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MetadataBody {
    metadata: Metadata,
}

/// Items that a conversation is given.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ItemsBody {
    #[schemars(length(max = 20))]
    items: Vec<Item>,
}
