//! Grammars of arguments that are written one by one, each with its name.

use serde_json::{Map, Value};

use super::marks::escaped;
use super::xml::types_of;
use crate::grammar::{lark_string, schema_in_lark};

/// How the arguments of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `key=value, key=value`.
    Python,
    /// `key:value,key:value`.
    Gemma,
    /// `<parameter=key>\nvalue\n</parameter>\n`, texts as they are.
    Xml,
}

/// Words of a schema that such arguments can follow.
const UNDERSTOOD: [&str; 9] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "title",
    "description",
    "$defs",
    "definitions",
    "$schema",
];
const XML_END: &str = "\n</parameter>\n";

/// Rules for the arguments that `schema` describes; the first is called `name`.
pub(super) fn arguments(name: &str, schema: &Value, form: Form) -> Result<String, String> {
    let none = Map::new();
    let map = schema.as_object().unwrap_or(&none);
    if let Some(word) = map.keys().find(|word| !UNDERSTOOD.contains(&word.as_str())) {
        return Err(format!(
            "'{word}' of all parameters together cannot be enforced in this model's notation of \
             calls"
        ));
    }
    let properties = map.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = map
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties: Vec<(&String, &Value)> = properties.into_iter().flatten().collect();
    if let Some(name) = required
        .iter()
        .find(|name| !properties.iter().any(|(key, _)| key == *name))
    {
        return Err(format!(
            "the parameter '{name}' is required and has no schema"
        ));
    }
    let mut rules = format!("{name}: {name}_first0\n");
    for (i, (key, value)) in properties.iter().enumerate() {
        let pair = format!("{name}_pair{i}");
        rules.push_str(&self::pair(
            &pair,
            key,
            &with_definitions(value, map),
            form,
        )?);
        let rest = |rule: &str| match required.contains(&key.as_str()) {
            true => String::new(),
            false => format!(" | {name}_{rule}{}", i + 1),
        };
        let then = format!("{pair} {name}_more{}", i + 1);
        rules.push_str(&format!("{name}_first{i}: {then}{}\n", rest("first")));
        let separator = separator(form);
        rules.push_str(&format!(
            "{name}_more{i}: {separator}{then}{}\n",
            rest("more")
        ));
    }
    let n = properties.len();
    rules.push_str(&format!("{name}_first{n}: \"\"\n{name}_more{n}: \"\"\n"));
    Ok(rules)
}

fn separator(form: Form) -> &'static str {
    match form {
        Form::Python => "\", \" ",
        Form::Gemma => "\",\" ",
        Form::Xml => "",
    }
}

/// A parameter's schema may refer to definitions of the whole.
fn with_definitions(schema: &Value, whole: &Map<String, Value>) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut map = map.clone();
    for word in ["$defs", "definitions"] {
        if let Some(definitions) = whole.get(word)
            && !map.contains_key(word)
        {
            map.insert(word.to_owned(), definitions.clone());
        }
    }
    Value::Object(map)
}

/// The rules of one argument; the first is called `rule`.
fn pair(rule: &str, key: &str, schema: &Value, form: Form) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let plain = !key.is_empty() && key.chars().all(is_plain);
    if !plain && (form == Form::Python || key.contains(['>', '<', '\n'])) {
        return Err(format!(
            "a parameter cannot be called '{key}' in this model's notation of calls"
        ));
    }
    let json = || schema_in_lark(schema);
    Ok(match form {
        Form::Python => format!(
            "{rule}: {} {rule}_value\n{rule}_value: {}\n",
            lark_string(&format!("{key}=")),
            json()?
        ),
        Form::Gemma => {
            let key = match plain {
                true => key.to_owned(),
                false => Value::String(key.to_owned()).to_string(),
            };
            format!(
                "{rule}: {} {rule}_value\n{rule}_value: {}\n",
                lark_string(&format!("{key}:")),
                json()?
            )
        }
        Form::Xml => {
            let open = lark_string(&format!("<parameter={key}>\n"));
            let value = if types_of(schema) == ["string"] {
                text(rule, schema)?
            } else {
                format!(
                    "{rule}_value: {rule}_json {}\n{rule}_json: {}\n",
                    lark_string(XML_END),
                    json()?
                )
            };
            format!("{rule}: {open} {rule}_value\n{value}")
        }
    })
}

/// A string that stands there as it is, and what ends it: the first end is the end.
fn text(rule: &str, schema: &Value) -> Result<String, String> {
    let mut listed: Vec<&str> = schema["const"].as_str().into_iter().collect();
    listed.extend(
        schema["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str),
    );
    if !listed.is_empty() {
        let texts: Vec<String> = listed
            .iter()
            .map(|text| lark_string(&format!("{text}{XML_END}")))
            .collect();
        return Ok(format!("{rule}_value: {}\n", texts.join(" | ")));
    }
    for word in [
        "format", "pattern", "anyOf", "oneOf", "allOf", "$ref", "not",
    ] {
        if schema.get(word).is_some() {
            return Err(format!(
                "'{word}' of a string cannot be enforced in this model's notation of calls"
            ));
        }
    }
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let most = schema["maxLength"].as_u64();
    let most = most.map_or(String::new(), |most| most.to_string());
    Ok(format!(
        "{rule}_value[lazy]: /(?s:.{{{least},{most}}}){}/\n",
        escaped(XML_END)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        for (schema, form, word) in [
            (json!({"anyOf": []}), Form::Python, "'anyOf'"),
            (json!({"properties": {"a b": {}}}), Form::Python, "'a b'"),
            (
                json!({"properties": {"a": {"type": "string", "pattern": "x"}}}),
                Form::Xml,
                "'pattern'",
            ),
            (json!({"required": ["a"]}), Form::Gemma, "'a'"),
        ] {
            let error = arguments("a", &schema, form).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
