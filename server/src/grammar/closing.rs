//! Objects that say nothing of further properties get none.
//!
//! JSON Schema lets any property be added to an object unless told otherwise. Few authors mean
//! that, and a small model goes on adding properties until its context is full. What the closed
//! schema admits, the open one admits too: nothing invalid comes of it. Schemas are left as they
//! are where closing could leave nothing, or change what other parts of them mean.

use serde_json::{Map, Value};

/// Keywords whose value is one schema, or a list of them.
const SCHEMAS: [&str; 8] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "prefixItems",
    "anyOf",
    "contains",
    "propertyNames",
    "unevaluatedItems",
];
/// Keywords whose value has a schema for each name.
const NAMED_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Keywords that say of other properties than `properties` does.
const FURTHER: [&str; 6] = [
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "propertyNames",
    "minProperties",
    "dependentRequired",
];
/// Keywords under which a schema means more than its own words.
const COMBINING: [&str; 10] = [
    "allOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// Closes what can be closed.
pub(super) fn close(schema: &mut Value) {
    if !combines(schema) {
        close_objects(schema);
    }
}

/// Whether an object may have to match two schemas at once.
fn combines(schema: &Value) -> bool {
    let Value::Object(map) = schema else {
        return schema
            .as_array()
            .is_some_and(|list| list.iter().any(combines));
    };
    let has = |words: &[&str]| words.iter().any(|word| map.contains_key(*word));
    let n_choices = ["anyOf", "$ref"].iter().filter(|word| has(&[word])).count();
    let is_mixed =
        n_choices > 1 || n_choices == 1 && (has(&["properties", "required"]) || has(&FURTHER));
    is_mixed || has(&COMBINING) || parts(map).any(combines)
}

fn parts(map: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let plain = SCHEMAS.iter().filter_map(|word| map.get(*word));
    let named = NAMED_SCHEMAS
        .iter()
        .filter_map(|word| map.get(*word)?.as_object());
    plain.chain(named.flat_map(Map::values))
}

fn close_objects(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(close_objects),
        Value::Object(map) => {
            if is_open(map) {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            for (word, value) in map.iter_mut() {
                if SCHEMAS.contains(&word.as_str()) {
                    close_objects(value);
                } else if NAMED_SCHEMAS.contains(&word.as_str())
                    && let Value::Object(named) = value
                {
                    named.values_mut().for_each(close_objects);
                }
            }
        }
        _ => {}
    }
}

/// Whether an object names its properties, all it needs among them, and says no more.
fn is_open(map: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = map.get("properties") else {
        return false;
    };
    let is_known = |name: &Value| {
        name.as_str()
            .is_some_and(|name| properties.contains_key(name))
    };
    let required = map.get("required").and_then(Value::as_array);
    !properties.is_empty()
        && required.is_none_or(|names| names.iter().all(is_known))
        && !FURTHER.iter().any(|word| map.contains_key(*word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_names_its_properties_is_closed() {
        let mut schema = json!({"$defs": {"a": {"properties": {"x": {}}, "required": ["x"]}},
            "properties": {"list": {"items": {"$ref": "#/$defs/a"}},
                "any": {"anyOf": [{"properties": {"y": {"enum": [{"properties": {}}]}}}]}}});
        close(&mut schema);
        assert_eq!(
            schema,
            json!({"$defs": {"a": {"properties": {"x": {}}, "required": ["x"],
                "additionalProperties": false}},
            "properties": {"list": {"items": {"$ref": "#/$defs/a"}},
                "any": {"anyOf": [{"properties": {"y": {"enum": [{"properties": {}}]}},
                    "additionalProperties": false}]}}, "additionalProperties": false})
        );
    }

    #[test]
    fn what_means_more_stays_as_it_is() {
        for schema in [
            json!({"type": "object"}),
            json!({"properties": {}}),
            json!({"properties": {"a": {}}, "additionalProperties": true}),
            json!({"properties": {"a": {}}, "patternProperties": {"b": {}}}),
            json!({"properties": {"a": {}}, "required": ["b"]}),
            json!({"properties": {"a": {}}, "minProperties": 2}),
            json!({"properties": {"a": {"properties": {"c": {}}}}, "anyOf": [{"required": ["b"]}]}),
            json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}),
            json!({"items": {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}}),
        ] {
            let mut closed = schema.clone();
            close(&mut closed);
            assert_eq!(closed, schema);
        }
    }
}
