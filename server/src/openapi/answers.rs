//! Answers that have no type of their own: those of stored objects, and errors.

use schemars::JsonSchema;
use serde_json::Value;

use super::shared::Object;

/// What all errors look like.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ErrorBody {
    error: Error,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Error {
    message: String,
    #[schemars(rename = "type")]
    kind: String,
    /// The parameter at fault, such as `messages[0].content`.
    #[schemars(required, extend("type" = ["string", "null"]))]
    param: Option<String>,
    #[schemars(required, extend("type" = ["string", "null"]))]
    code: Option<String>,
}

/// What errors look like in Anthropic's dialect.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AnthropicError {
    #[schemars(rename = "type")]
    kind: String,
    error: Error,
}

/// What a probe is told.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Health {
    status: String,
}

/// A page of a list.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Page {
    object: String,
    data: Vec<Value>,
    first_id: String,
    last_id: String,
    has_more: bool,
}

/// What has been deleted.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Deleted {
    id: String,
    object: String,
    deleted: bool,
}

/// Tokens of what would be answered.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct InputTokens {
    object: String,
    input_tokens: u64,
}

/// A conversation.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Conversation {
    id: String,
    object: String,
    created_at: u64,
    metadata: Object,
}

/// An object as it was stored.
#[derive(JsonSchema)]
pub(super) struct Stored {
    id: String,
}

/// An item of a conversation.
#[derive(JsonSchema)]
pub(super) struct StoredItem {
    id: String,
    #[schemars(rename = "type")]
    kind: String,
}
