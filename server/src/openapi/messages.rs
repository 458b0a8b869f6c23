//! Messages of a chat.

use schemars::JsonSchema;
use serde_json::Value;

use super::shared::AuthorName;

/// One message, by its role.
#[derive(JsonSchema)]
#[schemars(tag = "role", rename_all = "snake_case", deny_unknown_fields, extend("x-unsupported" = ["audio", "function_call"]))]
#[expect(
    clippy::large_enum_variant,
    reason = "a description; there are no values of it"
)]
pub(super) enum Message {
    System {
        content: Content,
        name: Option<AuthorName>,
    },
    /// Rendered as `system`.
    Developer {
        content: Content,
        name: Option<AuthorName>,
    },
    User {
        content: Content,
        name: Option<AuthorName>,
    },
    #[schemars(extend("anyOf" = [
        {"required": ["content"], "properties": {"content": {"anyOf":
            [{"type": "string"}, {"type": "array", "minItems": 1}]}}},
        {"required": ["refusal"], "properties": {"refusal": {"type": "string"}}},
        {"required": ["tool_calls"], "properties": {"tool_calls": {"type": "array", "minItems": 1}}},
    ]))]
    Assistant {
        /// Not needed beside calls or a refusal.
        content: Option<AssistantContent>,
        refusal: Option<String>,
        tool_calls: Option<Vec<Call>>,
        /// Thoughts of an earlier answer.
        reasoning_content: Option<String>,
        /// Another name of `reasoning_content`.
        reasoning: Option<String>,
        name: Option<AuthorName>,
        /// Part of an answer; without effect.
        annotations: Option<Value>,
        /// Part of an answer; without effect.
        parsed: Option<Value>,
    },
    Tool {
        content: Content,
        /// The call that this is the result of.
        tool_call_id: String,
        name: Option<AuthorName>,
    },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(#[schemars(length(min = 1))] Vec<TextPart>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum AssistantContent {
    Text(String),
    Parts(Vec<AssistantPart>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TextPart {
    Text { text: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum AssistantPart {
    Text { text: String },
    Refusal { refusal: String },
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Call {
    Function {
        id: String,
        function: CalledFunction,
        /// Of folded streams; without effect.
        #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
        index: Option<i64>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CalledFunction {
    name: String,
    /// JSON text.
    arguments: String,
}
