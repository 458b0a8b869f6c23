//! Whether checkpoints are of one architecture, and in what else they differ.

use std::collections::BTreeSet;

use serde_json::Value;

use super::source::{Source, is_float};
use super::{MergeError, MergeSource};

/// Fields of `config.json` that say how a file was made, not what the model is.
const INCIDENTAL: [&str; 6] = [
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
];

/// Files of the tokenizer, of which the result has those of the first.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer.model"];

/// Refuses a source whose tensors are not those of `first`.
pub(super) fn check(first: &Source<'_>, other: &Source<'_>) -> Result<(), MergeError> {
    let names: BTreeSet<&str> = first.shards.names().chain(other.shards.names()).collect();
    for name in names {
        if let Some(difference) = difference(first, other, name) {
            return Err(MergeError::Differs {
                first: first.name().to_string(),
                other: other.name().to_string(),
                tensor: name.to_string(),
                difference,
            });
        }
    }
    let (a, b) = (&first.config["model_type"], &other.config["model_type"]);
    if a != b {
        return Err(MergeError::Architecture {
            first: first.name().to_string(),
            other: other.name().to_string(),
            difference: format!("`model_type` is {b}, not {a}"),
        });
    }
    Ok(())
}

fn difference(first: &Source<'_>, other: &Source<'_>, name: &str) -> Option<String> {
    let (a, b) = match (first.shards.raw(name), other.shards.raw(name)) {
        (Some(a), Some(b)) => (a, b),
        (Some(_), None) => return Some("is in the latter only".to_string()),
        _ => return Some("is in the former only".to_string()),
    };
    if a.shape != b.shape {
        return Some(format!("has shape {:?}, not {:?}", b.shape, a.shape));
    }
    if is_float(a.dtype) && is_float(b.dtype) {
        return None;
    }
    if a.dtype != b.dtype {
        return Some(format!("is of type {:?}, not {:?}", b.dtype, a.dtype));
    }
    let message = format!("is of type {:?} and has other values", b.dtype);
    (a.bytes != b.bytes).then_some(message)
}

/// In what the sources differ, although their tensors are alike.
pub(super) fn notes(first: &Source<'_>, sources: &[Source<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for source in sources {
        if std::ptr::eq(first.given, source.given) {
            continue;
        }
        let fields: BTreeSet<&String> = first.config.keys().chain(source.config.keys()).collect();
        for field in fields {
            let get = |source: &Source<'_>| source.config.get(field).cloned().unwrap_or_default();
            let (ours, theirs) = (get(first), get(source));
            if ours != theirs && !INCIDENTAL.contains(&field.as_str()) {
                notes.push(format!(
                    "config.json: `{field}` is {} in {}; the result has {} of {}",
                    shown(&theirs),
                    source.name(),
                    shown(&ours),
                    first.name()
                ));
            }
        }
        for file in TOKENIZER {
            if read(first.given, file) != read(source.given, file) {
                notes.push(format!(
                    "{file} of {} differs; the result has that of {}",
                    source.name(),
                    first.name()
                ));
            }
        }
    }
    notes
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_string(),
        value => value.to_string(),
    }
}

/// A small file, or that there is none.
fn read(source: &MergeSource, file: &str) -> Option<Vec<u8>> {
    std::fs::read(source.dir.join(file)).ok()
}
