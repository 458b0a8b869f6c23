//! Structured output: what a request allows its answer to be, as sets of tokens.
//!
//! Grammars are compiled before admission, off the async threads and within limits, so that a
//! bad one is an error of its own request and of nothing else. A compiled grammar is a
//! [`Constraint`]: the engine asks it before each draw which tokens are allowed and tells it what
//! was drawn. It never fails open: without an allowed token the sequence fails.

mod bounds;
mod canonical;
mod closing;
mod compiler;
mod constraint;
mod environment;
mod forced;
mod gbnf;
mod limits;
mod matcher;
mod pool;

pub use compiler::{GrammarCompiler, GrammarError};
pub(crate) use compiler::{lark_string, schema_in_lark};
pub use constraint::Constraint;
pub use gbnf::{is_gbnf, to_lark};

use serde_json::Value;

/// How the failure of a row begins whose answer cannot go on: it is the request's, not the
/// machine's, and the same request would meet it again.
pub(crate) const CANNOT_GO_ON: &str = "the grammar of the answer: ";

/// What an answer must match, from its first byte to its last.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that a JSON schema admits.
    JsonSchema(Value),
    /// A regular expression over the whole text.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A context-free grammar in Lark's notation, as llguidance reads it.
    Lark(String),
}

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Self::JsonSchema(serde_json::json!({"type": "object"}))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod walk;
