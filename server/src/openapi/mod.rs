//! The description of the API (`/openapi.json`), generated from types.
//!
//! Answers are described by the types that are written. Bodies of requests are read by hand, field
//! by field, so that every error names its parameter; the types here say the same once more, for
//! people and tools. Tests hold the two together: what a reader asks for is what its type has.

#![expect(dead_code, reason = "types of bodies are described and never made")]

mod answers;
mod anthropic;
mod chat;
mod decisions;
mod messages;
mod operation;
mod operations;
mod responses;
mod shared;
#[cfg(test)]
mod tests;
mod tools;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The whole description. Parameters that the hosted API has and this server refuses by name are told
/// by the keyword `x-unsupported` of a body's schema. `needs_key`: requests must bring one.
pub fn document(needs_key: bool) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for operation in operations::operations(&mut schemas) {
        operation.finish(&mut paths, &mut schemas, needs_key);
    }
    let mut components = json!({"schemas": schemas.take_definitions(true)});
    if needs_key {
        components["securitySchemes"] = json!({"key": {"type": "http", "scheme": "bearer"}});
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The OpenAI API over fine-tuned open models.",
        },
        "paths": paths,
        "components": components,
    })
}
