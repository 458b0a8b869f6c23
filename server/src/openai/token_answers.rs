//! What `/tokenize`, `/detokenize` and `/apply-template` answer.

use schemars::JsonSchema;
use serde::Serialize;

/// The tokens of a text.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenList {
    pub count: usize,
    /// Most tokens of prompt and answer together.
    pub max_model_len: usize,
    pub tokens: Vec<u32>,
    /// The text of each, if it was asked for; bytes that are not UTF-8 show as U+FFFD.
    pub token_strs: Option<Vec<String>>,
}

/// A text: of tokens, or of a conversation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PromptText {
    pub prompt: String,
}
