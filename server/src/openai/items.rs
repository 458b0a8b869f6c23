//! Items: what conversations of the Responses API are made of. They are checked and stored in one
//! form, whichever way a client has written them.

use serde_json::{Map, Value, json};

use super::fields::{empty_array, invalid_value, type_name};
use super::{ApiError, Fields};

pub(super) const EXPECTED: &str = "one of a string or an array of objects";
const KINDS: [&str; 5] = [
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
];
/// Kinds that the API has and that belong to tools of the hosted service.
const HOSTED: [&str; 26] = [
    "configuration_update",
    "file_search_call",
    "computer_call",
    "computer_call_output",
    "web_search_call",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "compaction",
    "compaction_trigger",
    "image_generation_call",
    "code_interpreter_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "custom_tool_call",
    "custom_tool_call_output",
    "program",
    "program_output",
];
const ROLES: [&str; 4] = ["user", "assistant", "system", "developer"];
const STATUSES: [&str; 3] = ["in_progress", "completed", "incomplete"];

/// Takes `input`: a string is one message of the user. Items without an id get none here.
pub(super) fn take_input(body: &mut Fields) -> Result<Vec<Value>, ApiError> {
    match body.take("input") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![message("user", vec![input_text(text)])]),
        Some(Value::Array(items)) => read("input", items),
        Some(other) => Err(body.wrong_type("input", EXPECTED, &other)),
    }
}

/// Takes `items` of a conversation.
pub(super) fn take_items(body: &mut Fields, max: usize) -> Result<Option<Vec<Value>>, ApiError> {
    match body.take("items") {
        None => Ok(None),
        Some(Value::Array(items)) if items.len() > max => {
            Err(super::fields::array_too_long("items", max, items.len()))
        }
        Some(Value::Array(items)) => read("items", items).map(Some),
        Some(other) => Err(body.wrong_type("items", "an array of objects", &other)),
    }
}

fn read(path: &str, items: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let items = items.into_iter().enumerate();
    items
        .map(|(i, item)| read_item(Fields::from_value(&format!("{path}[{i}]"), item)?))
        .collect()
}

fn read_item(mut fields: Fields) -> Result<Value, ApiError> {
    let kind = match fields.string("type")? {
        Some(kind) => kind,
        // The two kinds that may leave it out.
        None if fields.has("role") => "message".to_owned(),
        None if fields.has("id") => "item_reference".to_owned(),
        None => return Err(ApiError::missing(&fields.path("type"))),
    };
    let item = match kind.as_str() {
        "message" => read_message(&mut fields)?,
        "function_call" => read_call(&mut fields)?,
        "function_call_output" => read_output(&mut fields)?,
        "reasoning" => read_reasoning(&mut fields)?,
        "item_reference" => json!({"type": kind, "id": fields.required_string("id")?}),
        known if HOSTED.contains(&known) => {
            let value = format!("items of type '{kind}'");
            return Err(ApiError::unsupported_value(&fields.path("type"), &value));
        }
        _ => return Err(invalid_value(&fields.path("type"), &kind, &KINDS)),
    };
    let mut item = item;
    if let Some(id) = fields.string("id")? {
        item["id"] = json!(id);
    }
    if let Some(status) = fields.word("status", &STATUSES)? {
        item["status"] = json!(status);
    }
    fields.finish()?;
    Ok(item)
}

fn input_text(text: String) -> Value {
    json!({"type": "input_text", "text": text})
}

fn message(role: &str, content: Vec<Value>) -> Value {
    json!({"type": "message", "role": role, "status": "completed", "content": content})
}

fn read_message(fields: &mut Fields) -> Result<Value, ApiError> {
    let role = fields.required_string("role")?;
    if !ROLES.contains(&role.as_str()) {
        return Err(invalid_value(&fields.path("role"), &role, &ROLES));
    }
    // Tells commentary from the answer, which templates of open models do not.
    fields.word("phase", &["commentary", "final_answer"])?;
    let is_answer = role == "assistant";
    let path = fields.path("content");
    let expected = "one of a string or an array of content parts";
    let content = match fields.require("content", expected)? {
        Value::String(text) if is_answer => vec![output_text(text)],
        Value::String(text) => vec![input_text(text)],
        Value::Array(parts) if parts.is_empty() => return Err(empty_array(&path)),
        Value::Array(parts) => {
            let parts = parts.into_iter().enumerate().map(|(i, part)| {
                read_part(
                    Fields::from_value(&format!("{path}[{i}]"), part)?,
                    is_answer,
                )
            });
            parts.collect::<Result<Vec<Value>, ApiError>>()?
        }
        other => return Err(fields.wrong_type("content", expected, &other)),
    };
    Ok(message(&role, content))
}

fn output_text(text: String) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn read_part(mut part: Fields, is_answer: bool) -> Result<Value, ApiError> {
    const PARTS: [&str; 6] = [
        "input_text",
        "input_image",
        "input_file",
        "input_audio",
        "output_text",
        "refusal",
    ];
    let kind = part.required_string("type")?;
    let read = match kind.as_str() {
        "input_text" => input_text(part.required_string("text")?),
        "output_text" if is_answer => {
            // Parts of answers, sent back as they were.
            for name in ["annotations", "logprobs", "parsed"] {
                part.take(name);
            }
            output_text(part.required_string("text")?)
        }
        "refusal" if is_answer => {
            json!({"type": "refusal", "refusal": part.required_string("refusal")?})
        }
        known if PARTS.contains(&known) => {
            let value = format!("'{kind}' parts here");
            return Err(ApiError::unsupported_value(&part.path("type"), &value));
        }
        _ => return Err(invalid_value(&part.path("type"), &kind, &PARTS)),
    };
    part.finish()?;
    Ok(read)
}

fn read_call(fields: &mut Fields) -> Result<Value, ApiError> {
    let call_id = fields.required_string("call_id")?;
    let name = fields.required_string("name")?;
    let arguments = fields.required_string("arguments")?;
    for name in ["namespace", "caller"] {
        fields.refuse(name)?;
    }
    // Of the Python SDK's parsed answers.
    fields.take("parsed_arguments");
    Ok(json!({
        "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments,
        "status": "completed",
    }))
}

fn read_output(fields: &mut Fields) -> Result<Value, ApiError> {
    let call_id = fields.required_string("call_id")?;
    for name in ["namespace", "caller"] {
        fields.refuse(name)?;
    }
    let name = fields.string("name")?;
    let path = fields.path("output");
    let expected = "one of a string or an array of content parts";
    let output = match fields.require("output", expected)? {
        Value::String(text) => Value::String(text),
        Value::Array(parts) => {
            let parts = parts.into_iter().enumerate().map(|(i, part)| {
                read_part(Fields::from_value(&format!("{path}[{i}]"), part)?, false)
            });
            Value::Array(parts.collect::<Result<Vec<Value>, ApiError>>()?)
        }
        other => return Err(fields.wrong_type("output", expected, &other)),
    };
    let mut item = json!({
        "type": "function_call_output", "call_id": call_id, "output": output,
        "status": "completed",
    });
    if let Some(name) = name {
        item["name"] = json!(name);
    }
    Ok(item)
}

/// Thoughts of this server come in the open. Those that somebody has encrypted cannot be read.
fn read_reasoning(fields: &mut Fields) -> Result<Value, ApiError> {
    if fields.string("encrypted_content")?.is_some() {
        let param = fields.path("encrypted_content");
        return Err(ApiError::unsupported_value(
            &param,
            "content that this server has not written",
        ));
    }
    let mut item = Map::new();
    item.insert("type".to_owned(), json!("reasoning"));
    for (name, kind) in [("summary", "summary_text"), ("content", "reasoning_text")] {
        let path = fields.path(name);
        let parts = match fields.take(name) {
            None => Vec::new(),
            Some(Value::Array(parts)) => parts,
            Some(other) => {
                let expected = "an array of objects";
                return Err(ApiError::wrong_type(&path, expected, type_name(&other)));
            }
        };
        let parts = parts.into_iter().enumerate().map(|(i, part)| {
            let mut part = Fields::from_value(&format!("{path}[{i}]"), part)?;
            let found = part.required_string("type")?;
            if found != kind {
                return Err(invalid_value(&part.path("type"), &found, &[kind]));
            }
            let text = part.required_string("text")?;
            part.finish()?;
            Ok(json!({"type": kind, "text": text}))
        });
        let parts = parts.collect::<Result<Vec<Value>, ApiError>>()?;
        item.insert(name.to_owned(), Value::Array(parts));
    }
    Ok(Value::Object(item))
}
