//! The bodies of messages, Anthropic's dialect.

use schemars::JsonSchema;
use serde_json::Value;

use super::shared::{Model, Object, PlainName};
use crate::anthropic::UNSUPPORTED;

/// `POST /v1/messages`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = UNSUPPORTED))]
pub(super) struct MessageBody {
    /// Most tokens of the answer; cut to what the context has room for.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    max_tokens: u32,
    #[schemars(flatten)]
    rest: MessageRest,
}

/// `POST /v1/messages/count_tokens`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = UNSUPPORTED))]
pub(super) struct CountBody {
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    max_tokens: Option<u32>,
    #[schemars(flatten)]
    rest: MessageRest,
}

#[derive(JsonSchema)]
pub(super) struct MessageRest {
    #[schemars(flatten)]
    model: Model,
    #[schemars(length(min = 1))]
    messages: Vec<Turn>,
    system: Option<Texts>,
    stream: Option<bool>,
    #[schemars(length(max = 64))]
    stop_sequences: Option<Vec<StopText>>,
    /// 0 is greedy.
    #[schemars(range(min = 0, max = 1))]
    temperature: Option<f64>,
    #[schemars(range(min = 0, max = 1))]
    top_p: Option<f64>,
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    top_k: Option<u32>,
    /// Extension: the same request with the same seed gets the same answer.
    #[schemars(range(min = -9_223_372_036_854_775_808_i64, max = 9_223_372_036_854_775_807_i64))]
    seed: Option<i64>,
    #[schemars(length(max = 128))]
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
    /// Without effect.
    metadata: Option<Who>,
    /// Without effect.
    service_tier: Option<Tier>,
    speed: Option<Speed>,
    /// Without effect: all prefixes are cached.
    cache_control: Option<CacheControl>,
    /// Extension: variables of the chat template.
    chat_template_kwargs: Option<Object>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct StopText(#[schemars(length(min = 1, max = 1000))] String);

#[derive(JsonSchema)]
#[schemars(tag = "role", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Turn {
    System { content: NotEmptyTexts },
    User { content: UserContent },
    Assistant { content: AssistantContent },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Texts {
    Text(String),
    Blocks(Vec<TextBlock>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum NotEmptyTexts {
    Text(String),
    Blocks(#[schemars(length(min = 1))] Vec<TextBlock>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum UserContent {
    Text(String),
    Blocks(#[schemars(length(min = 1))] Vec<UserBlock>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum AssistantContent {
    Text(String),
    Blocks(#[schemars(length(min = 1))] Vec<AssistantBlock>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TextBlock {
    Text {
        text: String,
        cache_control: Option<CacheControl>,
        /// Part of an answer; without effect.
        citations: Option<Value>,
    },
}

#[derive(JsonSchema)]
#[schemars(
    tag = "type",
    rename_all = "snake_case",
    deny_unknown_fields,
    extend("x-unsupported" = ["toolset_name"])
)]
pub(super) enum UserBlock {
    Text {
        text: String,
        cache_control: Option<CacheControl>,
        /// Part of an answer; without effect.
        citations: Option<Value>,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Texts>,
        /// Without effect: the content says what went wrong.
        is_error: Option<bool>,
        cache_control: Option<CacheControl>,
    },
}

#[derive(JsonSchema)]
#[schemars(
    tag = "type",
    rename_all = "snake_case",
    deny_unknown_fields,
    extend("x-unsupported" = ["toolset_name"])
)]
pub(super) enum AssistantBlock {
    Text {
        text: String,
        cache_control: Option<CacheControl>,
        /// Part of an answer; without effect.
        citations: Option<Value>,
    },
    Thinking {
        thinking: String,
        /// Without effect: thoughts are not signed.
        signature: Option<String>,
    },
    ToolUse {
        id: String,
        name: String,
        input: Object,
        cache_control: Option<CacheControl>,
        caller: Option<Caller>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CacheControl {
    #[schemars(rename = "type", extend("enum" = ["ephemeral", null]))]
    kind: Option<String>,
    #[schemars(extend("enum" = ["5m", "1h", null]))]
    ttl: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Caller {
    #[schemars(rename = "type", extend("enum" = ["direct", null]))]
    kind: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-unsupported" = ["allowed_callers", "input_examples"]))]
pub(super) struct Tool {
    #[schemars(rename = "type", extend("enum" = ["custom", null]))]
    kind: Option<String>,
    name: PlainName,
    description: Option<String>,
    /// A JSON schema.
    input_schema: Object,
    /// Inputs match the schema.
    strict: Option<bool>,
    cache_control: Option<CacheControl>,
    /// Without effect: inputs are always streamed as they come.
    eager_input_streaming: Option<bool>,
    #[schemars(extend("enum" = [false, null]))]
    defer_loading: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ToolChoice {
    Auto {
        disable_parallel_tool_use: Option<bool>,
    },
    Any {
        disable_parallel_tool_use: Option<bool>,
    },
    Tool {
        name: String,
        disable_parallel_tool_use: Option<bool>,
    },
    None {
        disable_parallel_tool_use: Option<bool>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Thinking {
    #[schemars(rename = "type")]
    kind: ThinkingKind,
    /// Checked, and not enforced.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    budget_tokens: Option<u32>,
    #[schemars(extend("enum" = ["summarized", null]))]
    display: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum ThinkingKind {
    /// Only of models that think.
    Enabled,
    Disabled,
    Adaptive,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct OutputConfig {
    #[schemars(extend("enum" = ["low", "medium", "high", "xhigh", "max", null]))]
    effort: Option<String>,
    format: Option<Format>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Format {
    #[schemars(rename = "type", extend("enum" = ["json_schema", null]))]
    kind: Option<String>,
    schema: Object,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Who {
    user_id: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Tier {
    Auto,
    StandardOnly,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Speed {
    Standard,
}

/// Tokens of what would be answered.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Counted {
    input_tokens: u64,
}
