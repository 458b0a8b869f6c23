//! Answers that have no type of their own: those of stored objects, and errors.

use schemars::JsonSchema;
use serde_json::Value;

use super::shared::Object;
use crate::openai::FileObject;

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

/// A look inside, for people; what else it shows changes with the server.
#[derive(JsonSchema)]
pub(super) struct ServerState {
    object: String,
    version: String,
    models: Vec<String>,
    is_serving: bool,
}

/// What a probe is told.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Health {
    status: String,
    /// Why the engine has stopped, if it stopped by itself.
    reason: Option<String>,
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

/// A page of files.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FilePage {
    object: String,
    data: Vec<FileObject>,
    first_id: String,
    last_id: String,
    has_more: bool,
}

/// A form with a file. The parts `expires_after[anchor]` (`created_at`) and `expires_after[seconds]`
/// (3600 to 2592000) go together, and say when the file is deleted.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("dependentRequired" = {
    "expires_after[anchor]": ["expires_after[seconds]"],
    "expires_after[seconds]": ["expires_after[anchor]"],
}))]
pub(super) struct FileBody {
    #[schemars(extend("format" = "binary"))]
    file: String,
    purpose: FilePurpose,
    #[schemars(rename = "expires_after[anchor]", extend("type" = "string", "const" = "created_at"))]
    anchor: Option<String>,
    #[schemars(
        rename = "expires_after[seconds]",
        range(min = 3600, max = 2_592_000),
        extend("type" = "integer")
    )]
    seconds: Option<u64>,
}

/// What a file is for.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FilePurpose {
    Assistants,
    Batch,
    #[serde(rename = "fine-tune")]
    FineTune,
    Vision,
    UserData,
    Evals,
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
