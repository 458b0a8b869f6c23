//! The conversation of a chat request: checked, and flattened to what templates read.

use serde_json::{Map, Value};

use super::fields::{empty_array, invalid_value};
use super::{ApiError, Fields};

const ROLES: [&str; 6] = [
    "system",
    "assistant",
    "user",
    "function",
    "tool",
    "developer",
];
const CONTENT: &str = "one of a string or an array of content parts";

/// Takes `messages` and returns the array that chat templates are given: `role`, `content` as
/// one string, `name` where set. Text parts are joined by line ends; the role `developer`
/// becomes `system`, the name that templates of open models know it by.
pub(super) fn take(body: &mut Fields) -> Result<Vec<Value>, ApiError> {
    const EXPECTED: &str = "an array of objects";
    let items = match body.require("messages", EXPECTED)? {
        Value::Array(items) => items,
        other => return Err(body.wrong_type("messages", EXPECTED, &other)),
    };
    if items.is_empty() {
        return Err(empty_array("messages"));
    }
    let messages = items
        .into_iter()
        .enumerate()
        .map(|(i, item)| message(Fields::from_value(&format!("messages[{i}]"), item)?));
    messages.collect()
}

fn message(mut fields: Fields) -> Result<Value, ApiError> {
    let role = fields.required_string("role")?;
    if !ROLES.contains(&role.as_str()) {
        return Err(invalid_value(&fields.path("role"), &role, &ROLES));
    }
    if role == "tool" || role == "function" {
        return Err(ApiError::unsupported_value(
            &fields.path("role"),
            &format!("'{role}'"),
        ));
    }
    for name in ["tool_calls", "function_call", "audio", "tool_call_id"] {
        fields.refuse(name)?;
    }
    let mut message = Map::new();
    let content = content(&mut fields, &role)?;
    let role = if role == "developer" {
        "system".to_owned()
    } else {
        role
    };
    message.insert("role".to_owned(), Value::String(role));
    message.insert("content".to_owned(), Value::String(content));
    if let Some(name) = fields.string("name")? {
        message.insert("name".to_owned(), Value::String(name));
    }
    fields.finish()?;
    Ok(Value::Object(message))
}

fn content(fields: &mut Fields, role: &str) -> Result<String, ApiError> {
    // An assistant's earlier refusal stands in for its content.
    if role == "assistant"
        && let Some(refusal) = fields.string("refusal")?
    {
        return match fields.string("content")? {
            Some(content) if !content.is_empty() => Ok(content),
            _ => Ok(refusal),
        };
    }
    match fields.require("content", CONTENT)? {
        Value::String(text) => Ok(text),
        Value::Array(parts) => text_of_parts(&fields.path("content"), parts, role),
        other => Err(fields.wrong_type("content", CONTENT, &other)),
    }
}

fn text_of_parts(path: &str, parts: Vec<Value>, role: &str) -> Result<String, ApiError> {
    if parts.is_empty() {
        return Err(empty_array(path));
    }
    let texts: Result<Vec<String>, ApiError> = parts
        .into_iter()
        .enumerate()
        .map(|(i, part)| text_of_part(Fields::from_value(&format!("{path}[{i}]"), part)?, role))
        .collect();
    Ok(texts?.join("\n"))
}

fn text_of_part(mut part: Fields, role: &str) -> Result<String, ApiError> {
    const KINDS: [&str; 5] = ["text", "image_url", "input_audio", "file", "refusal"];
    let kind = part.required_string("type")?;
    let text = match kind.as_str() {
        "text" => part.required_string("text")?,
        "refusal" if role == "assistant" => part.required_string("refusal")?,
        known if KINDS.contains(&known) => {
            let value = format!("'{kind}' parts in messages of role '{role}'");
            return Err(ApiError::unsupported_value(&part.path("type"), &value));
        }
        _ => return Err(invalid_value(&part.path("type"), &kind, &KINDS)),
    };
    part.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(messages: &str) -> Result<Vec<Value>, ApiError> {
        let body = format!(r#"{{"messages": {messages}}}"#);
        take(&mut Fields::from_body(body.as_bytes())?)
    }

    #[test]
    fn parts_are_joined_and_developer_is_system() {
        let found = parse(
            r#"[{"role":"developer","content":"Be brief."},
                {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#,
        );
        let expected = serde_json::json!([
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"}]);
        assert_eq!(Value::Array(found.unwrap()), expected);
    }

    #[test]
    fn errors_point_at_the_part() {
        let cases = [
            (r#"[]"#, "messages", "empty_array"),
            (
                r#"[{"content":"x"}]"#,
                "messages[0].role",
                "missing_required_parameter",
            ),
            (
                r#"[{"role":"user"}]"#,
                "messages[0].content",
                "missing_required_parameter",
            ),
            (
                r#"[{"role":"user","content":null}]"#,
                "messages[0].content",
                "invalid_type",
            ),
            (
                r#"[{"role":"user","content":7}]"#,
                "messages[0].content",
                "invalid_type",
            ),
            (
                r#"[{"role":"king","content":"x"}]"#,
                "messages[0].role",
                "invalid_value",
            ),
            (
                r#"[{"role":"tool","content":"x"}]"#,
                "messages[0].role",
                "unsupported_value",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
                "messages[0].content[0].type",
                "unsupported_value",
            ),
            (
                r#"[{"role":"user","content":"x","foo":1}]"#,
                "messages[0].foo",
                "unknown_parameter",
            ),
            (r#"["x"]"#, "messages[0]", "invalid_type"),
        ];
        for (messages, param, code) in cases {
            let error = parse(messages).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{messages}");
            assert_eq!(error.code.as_deref(), Some(code), "{messages}");
        }
    }
}
