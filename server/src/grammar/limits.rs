//! What a grammar may cost before anybody looks at it closely.

use serde_json::Value;

use super::Grammar;

/// Bytes of a JSON schema.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Levels of arrays and objects in a JSON schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Bytes of a regular expression.
const MAX_REGEX_BYTES: usize = 32 << 10;
/// Bytes of a grammar.
const MAX_GRAMMAR_BYTES: usize = 512 << 10;
/// Bytes of all choices together.
const MAX_CHOICE_BYTES: usize = 64 << 10;

/// The reason why a grammar is too large, if it is.
pub(super) fn check(grammar: &Grammar) -> Result<(), String> {
    match grammar {
        Grammar::JsonSchema(schema) => check_schema(schema),
        Grammar::Regex(regex) => check_size("the regular expression", regex.len(), MAX_REGEX_BYTES),
        Grammar::Choice(choices) => {
            let n_bytes = choices.iter().map(String::len).sum();
            check_size("the choices together", n_bytes, MAX_CHOICE_BYTES)
        }
        Grammar::Lark(text) => check_size("the grammar", text.len(), MAX_GRAMMAR_BYTES),
    }
}

fn check_schema(schema: &Value) -> Result<(), String> {
    let n_levels = depth(schema);
    if n_levels > MAX_SCHEMA_DEPTH {
        return Err(format!(
            "the schema is nested {n_levels} levels deep, and at most {MAX_SCHEMA_DEPTH} are \
             allowed"
        ));
    }
    check_size("the schema", schema.to_string().len(), MAX_SCHEMA_BYTES)
}

fn check_size(what: &str, n_bytes: usize, max: usize) -> Result<(), String> {
    if n_bytes <= max {
        return Ok(());
    }
    Err(format!(
        "{what} has {n_bytes} bytes, and at most {max} are allowed"
    ))
}

/// Levels of containers. The reader of JSON has bounded them already, so recursion is safe.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
