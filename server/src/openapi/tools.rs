//! Functions, and which of them are called.

use schemars::JsonSchema;

use super::shared::{Object, PlainName};

/// A function of a chat.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Tool {
    Function { function: Function },
}

/// A function of a response.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum FlatTool {
    Function {
        name: PlainName,
        description: Option<String>,
        parameters: Option<Object>,
        strict: Option<bool>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Function {
    name: PlainName,
    description: Option<String>,
    /// A JSON schema.
    parameters: Option<Object>,
    /// Arguments match the schema.
    strict: Option<bool>,
}

/// What has to be called.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ToolChoice {
    Word(ChoiceWord),
    Tools(ChosenTools),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum ChoiceWord {
    None,
    Auto,
    Required,
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ChosenTools {
    #[schemars(extend("anyOf" = [
        {"required": ["function"], "properties": {"function": {"type": "object"}, "name": false}},
        {"required": ["name"], "properties": {"name": {"type": "string"}, "function": false}},
    ]))]
    Function {
        /// In responses.
        name: Option<String>,
        /// In chats.
        function: Option<Named>,
    },
    #[schemars(extend("anyOf" = [
        {"required": ["allowed_tools"], "properties":
            {"allowed_tools": {"type": "object"}, "mode": false, "tools": false}},
        {"required": ["mode", "tools"], "properties":
            {"mode": {"type": "string"}, "tools": {"type": "array"}, "allowed_tools": false}},
    ]))]
    AllowedTools {
        /// In responses.
        mode: Option<Mode>,
        /// In responses.
        #[schemars(length(min = 1))]
        tools: Option<Vec<AllowedTool>>,
        /// In chats.
        allowed_tools: Option<AllowedTools>,
    },
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Named {
    name: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AllowedTools {
    mode: Mode,
    #[schemars(length(min = 1))]
    tools: Vec<AllowedTool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Mode {
    Auto,
    Required,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum FunctionWord {
    Function,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = [
    {"required": ["function"], "properties": {"function": {"type": "object"}, "name": false}},
    {"required": ["name"], "properties": {"name": {"type": "string"}, "function": false}},
]))]
pub(super) struct AllowedTool {
    #[schemars(rename = "type")]
    kind: Option<FunctionWord>,
    name: Option<String>,
    function: Option<Named>,
}
