//! Conversations of the API in the form that templates expect.

use serde_json::{Value, json};

use super::json::JsonStyle;

/// How a template wants the arguments of a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// It takes both, or none at all.
    AsGiven,
    /// As an object, which it spells itself.
    Object,
    /// As JSON text, which it copies.
    Text,
}

const PROBE_KEY: &str = "understudy_probe";
/// The key's value is written `null` by JSON and `None` by a template that prints the object.
const PROBE_TEXT: &str = "{\"understudy_probe\":null}";

/// Finds out what the template does with arguments by rendering a call in both forms.
/// `render(messages, tools)` is `None` when rendering fails.
pub(super) fn probe_arguments(
    render: &dyn Fn(&Value, Option<&Value>) -> Option<String>,
) -> Arguments {
    let tools = json!([{"type": "function", "function": {"name": "probe", "description": "Probe.",
        "parameters": {"type": "object", "properties": {PROBE_KEY: {"type": "string", "description": "Key."}},
        "required": [PROBE_KEY]}}}]);
    let call = |arguments: Value| {
        let messages = json!([
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "call12345", "type": "function", "function": {"name": "probe", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "call12345", "name": "probe", "content": "ok"},
        ]);
        render(&messages, Some(&tools)).or_else(|| render(&messages, None))
    };
    let text_ok = call(json!(PROBE_TEXT)).is_some_and(|out| out.contains(PROBE_TEXT));
    // What a template prints that only knows the tools and not the call.
    let object_ok = call(json!({PROBE_KEY: null})).is_some_and(|out| {
        !out.contains(&format!("'{PROBE_KEY}': None"))
            && !out.contains(&format!("\"{PROBE_KEY}\": None"))
    });
    match (object_ok, text_ok) {
        (true, true) => Arguments::AsGiven,
        (true, false) => Arguments::Object,
        (false, true) => Arguments::Text,
        (false, false) => Arguments::AsGiven,
    }
}

/// Names under which templates look for a message's reasoning.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// The messages as templates want them: content a string, arguments in the right form, reasoning
/// under each of its names. What is not understood stays as it is.
pub(super) fn normalise(messages: &Value, arguments: Arguments) -> Value {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten() {
        let Some(message) = message.as_object_mut() else {
            continue;
        };
        let content = message.entry("content").or_insert(Value::Null);
        if content.is_null() {
            *content = json!("");
        } else if let Some(text) = text_of_parts(content) {
            *content = Value::String(text);
        }
        let reasoning = REASONING
            .iter()
            .find_map(|name| message.get(*name).cloned());
        if let Some(reasoning) = reasoning.filter(|reasoning| !reasoning.is_null()) {
            for name in REASONING {
                message.entry(name).or_insert_with(|| reasoning.clone());
            }
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            if let Some(given) = call.pointer_mut("/function/arguments") {
                convert(given, arguments);
            }
        }
    }
    messages
}

fn convert(given: &mut Value, wanted: Arguments) {
    match (wanted, &*given) {
        (Arguments::Object, Value::String(text)) => {
            let text = if text.trim().is_empty() { "{}" } else { text };
            if let Ok(object @ Value::Object(_)) = serde_json::from_str(text) {
                *given = object;
            }
        }
        (Arguments::Text, Value::Object(_)) => {
            *given = Value::String(JsonStyle::default().write(given));
        }
        _ => {}
    }
}

/// All parts of a content that has text parts only, one after the other.
fn text_of_parts(content: &Value) -> Option<String> {
    let parts = content.as_array()?.iter().map(|part| {
        let text = part["text"].as_str()?;
        (part["type"] == "text").then_some(text)
    });
    parts.collect()
}
