//! What a grammar may cost before anybody looks at it closely.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::Value;

use super::{Grammar, bounds};

/// Bytes of a JSON schema.
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Levels of arrays and objects in a JSON schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Definitions that a schema refers to: they are followed one into another.
const MAX_SCHEMA_REFS: usize = 1_000;
/// Bytes of a regular expression.
const MAX_REGEX_BYTES: usize = 8 << 10;
/// Bytes of a grammar.
const MAX_GRAMMAR_BYTES: usize = 64 << 10;
/// Parts of a terminal of a grammar, once every name in it is replaced by what it stands for.
const MAX_TERMINAL_PARTS: u64 = 10_000;
/// Choices, and bytes of all together.
const MAX_CHOICES: usize = 2_000;
const MAX_CHOICE_BYTES: usize = 64 << 10;

/// The reason why a grammar is too large, if it is. Sizes come first: they are told at once.
pub(super) fn check(grammar: &Grammar) -> Result<(), String> {
    check_sizes(grammar)?;
    match grammar {
        Grammar::JsonSchema(schema) => check_schema(schema),
        Grammar::Lark(text) => {
            check_inner_schemas(text)?;
            check_terminals(text)
        }
        Grammar::Regex(_) | Grammar::Choice(_) => Ok(()),
    }
}

/// The same by its size alone, which takes little time however large it is.
pub(super) fn check_sizes(grammar: &Grammar) -> Result<(), String> {
    match grammar {
        Grammar::JsonSchema(schema) => check_schema_size(schema),
        Grammar::Regex(regex) => check_size("the regular expression", regex.len(), MAX_REGEX_BYTES),
        Grammar::Choice(choices) if choices.len() > MAX_CHOICES => Err(format!(
            "there are {} choices, and at most {MAX_CHOICES} are allowed",
            choices.len()
        )),
        Grammar::Choice(choices) => {
            let n_bytes = choices.iter().map(String::len).sum();
            check_size("the choices together", n_bytes, MAX_CHOICE_BYTES)
        }
        Grammar::Lark(text) => check_size("the grammar", text.len(), MAX_GRAMMAR_BYTES),
    }
}

/// Bytes that have been written, up to one too many.
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        match self.0 {
            n if n > MAX_SCHEMA_BYTES => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the schema until it is known to be too large.
fn check_schema_size(schema: &Value) -> Result<(), String> {
    match serde_json::to_writer(Counted(0), schema) {
        Ok(()) => Ok(()),
        Err(_) => Err(format!(
            "the schema has more than {MAX_SCHEMA_BYTES} bytes, which is all that is allowed"
        )),
    }
}

/// Schemas within a grammar have the limits of schemas.
fn check_inner_schemas(text: &str) -> Result<(), String> {
    const WORD: &str = "%json";
    for (at, _) in text.match_indices(WORD) {
        let rest = &text[at + WORD.len()..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        // What is no JSON is told by the compiler.
        let Some(Ok(schema)) = values.next() else {
            continue;
        };
        check_schema_size(&schema)?;
        check_schema(&schema)?;
        let mut fitted = schema.clone();
        bounds::fit(&mut fitted)?;
        if fitted != schema {
            let least = bounds::LEAST;
            return Err(format!("a bound in '{WORD}' is below {least}"));
        }
    }
    Ok(())
}

fn check_schema(schema: &Value) -> Result<(), String> {
    let n_levels = depth(schema);
    if n_levels > MAX_SCHEMA_DEPTH {
        return Err(format!(
            "the schema is nested {n_levels} levels deep, and at most {MAX_SCHEMA_DEPTH} are \
             allowed"
        ));
    }
    let mut refs = BTreeSet::new();
    collect_refs(schema, &mut refs);
    if refs.len() > MAX_SCHEMA_REFS {
        return Err(format!(
            "the schema refers to {} definitions, and at most {MAX_SCHEMA_REFS} are allowed",
            refs.len()
        ));
    }
    Ok(())
}

fn check_size(what: &str, n_bytes: usize, max: usize) -> Result<(), String> {
    if n_bytes <= max {
        return Ok(());
    }
    Err(format!(
        "{what} has {n_bytes} bytes, and at most {max} are allowed"
    ))
}

/// A terminal becomes one regular expression, and names in it may double it line by line.
fn check_terminals(text: &str) -> Result<(), String> {
    let terminals: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, rest)| (name.trim(), rest))
        .filter(|(name, _)| is_terminal(name))
        .collect();
    let mut parts = BTreeMap::new();
    for name in terminals.keys() {
        if n_parts(name, &terminals, &mut parts, 0) > MAX_TERMINAL_PARTS {
            return Err(format!(
                "the terminal {name} has more than {MAX_TERMINAL_PARTS} parts"
            ));
        }
    }
    Ok(())
}

fn is_terminal(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn n_parts<'a>(
    name: &'a str,
    terminals: &BTreeMap<&'a str, &'a str>,
    known: &mut BTreeMap<&'a str, u64>,
    depth: u64,
) -> u64 {
    if let Some(parts) = known.get(name) {
        return *parts;
    }
    let Some(rest) = terminals.get(name) else {
        return 1;
    };
    // Too many names in names are too many parts as well; loops are found by the compiler.
    if depth > MAX_SCHEMA_REFS as u64 {
        return MAX_TERMINAL_PARTS + 1;
    }
    known.insert(name, 1);
    let words = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let parts = words
        .filter(|word| is_terminal(word))
        .map(|word| n_parts(word, terminals, known, depth + 1))
        .fold(1_u64, u64::saturating_add);
    known.insert(name, parts);
    parts
}

fn collect_refs<'a>(value: &'a Value, refs: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_refs(item, refs)),
        Value::Object(map) => {
            refs.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| collect_refs(value, refs));
        }
        _ => {}
    }
}

/// Levels of containers. The reader of JSON has bounded them already, so recursion is safe.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
