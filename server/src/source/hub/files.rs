//! Which files of a repository a model needs.

use std::path::Path;

use serde_json::Value;

use crate::source::SourceError;

/// Files that are taken where they exist.
const SMALL: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
    "additional_chat_templates/tool_use.jinja",
];
const INDEX: &str = "model.safetensors.index.json";

/// Everything but the weights. Errors say what kind of repository it is instead.
pub(super) fn small(id: &str, names: &[String]) -> Result<Vec<String>, SourceError> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let gguf = names.iter().find(|name| name.ends_with(".gguf"));
    if !has(INDEX) && !has("model.safetensors") {
        return Err(SourceError::NotFound(match gguf {
            Some(example) => format!(
                "{id} holds GGUF files: name one, as in hf:{id}:{example}; it has {}",
                listed(names)
            ),
            None => format!("{id} has no safetensors weights; it has {}", listed(names)),
        }));
    }
    if !has("config.json") {
        return Err(SourceError::NotFound(format!("{id} has no config.json")));
    }
    Ok(SMALL
        .into_iter()
        .filter(|name| has(name))
        .map(str::to_string)
        .collect())
}

/// The shards that the index in a directory names; `None` without an index.
pub(super) fn shards(dir: &Path) -> Result<Option<Vec<String>>, SourceError> {
    let path = dir.join(INDEX);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(None);
    };
    let fail = |what: &str| SourceError::Download(format!("{}: {what}", path.display()));
    let index: Value = serde_json::from_str(&text).map_err(|error| fail(&error.to_string()))?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| fail("no weight_map"))?;
    let mut names = Vec::new();
    for name in map.values() {
        let name = name.as_str().filter(|name| is_safe(name));
        names.push(
            name.ok_or_else(|| fail("weight_map names no proper file"))?
                .to_string(),
        );
    }
    names.sort_unstable();
    names.dedup();
    Ok(Some(names))
}

/// A relative path that stays where it is put.
pub(super) fn is_safe(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('\\')
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Names for an error message.
pub(super) fn listed(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 20 {
        text.push_str(", ...");
    }
    text
}
