//! Tools for models whose chat template knows none: told in words, in the notation of Hermes.

use serde_json::{Map, Value, json};

/// A conversation in which the first message explains the tools, calls are written out, and
/// results come from the user.
pub fn taught(messages: &[Value], tools: Option<&Value>) -> Vec<Value> {
    let mut taught: Vec<Value> = messages.iter().map(written_out).collect();
    let Some(tools) = tools.and_then(Value::as_array) else {
        return taught;
    };
    let lesson = lesson(tools);
    match taught.first_mut() {
        Some(first) if first["role"] == "system" => {
            let content = first["content"].as_str().unwrap_or_default();
            first["content"] = json!(format!("{content}\n\n{lesson}"));
        }
        _ => taught.insert(0, json!({"role": "system", "content": lesson})),
    }
    taught
}

/// A conversation that needs no tools, but may hold earlier calls and results.
pub fn has_calls(messages: &[Value]) -> bool {
    let is_call = |message: &Value| message["role"] == "tool" || message["tool_calls"].is_array();
    messages.iter().any(is_call)
}

fn lesson(tools: &[Value]) -> String {
    let functions: Vec<String> = tools
        .iter()
        .map(|tool| tool["function"].to_string())
        .collect();
    format!(
        "You can call functions. These are the functions, each with a JSON schema of its \
         parameters:\n{}\n\nTo call a function, write its name and arguments as JSON between \
         tool_call tags, once for each call:\n<tool_call>\n{{\"name\": \"function name\", \
         \"arguments\": {{}}}}\n</tool_call>",
        functions.join("\n")
    )
}

fn written_out(message: &Value) -> Value {
    if message["role"] == "tool" {
        let content = message["content"].as_str().unwrap_or_default();
        let text = format!("<tool_response>\n{content}\n</tool_response>");
        return json!({"role": "user", "content": text});
    }
    let Some(calls) = message["tool_calls"].as_array() else {
        return message.clone();
    };
    let mut parts = Vec::new();
    let content = message["content"].as_str().unwrap_or_default();
    if !content.is_empty() {
        parts.push(content.to_owned());
    }
    for call in calls {
        let function = &call["function"];
        let given = function["arguments"].as_str().unwrap_or_default();
        let arguments = serde_json::from_str(given).unwrap_or_else(|_| json!(given));
        let object = json!({"name": function["name"], "arguments": arguments});
        parts.push(format!("<tool_call>\n{object}\n</tool_call>"));
    }
    let mut plain = Map::new();
    plain.insert("role".to_owned(), message["role"].clone());
    plain.insert("content".to_owned(), json!(parts.join("\n")));
    Value::Object(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_results_are_written_out() {
        let messages = [
            json!({"role": "system", "content": "Be brief."}),
            json!({"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type":
                "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}),
            json!({"role": "tool", "tool_call_id": "c", "name": "f", "content": "7"}),
        ];
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        assert!(has_calls(&messages));
        let taught = taught(&messages, Some(&tools));
        let system = taught[0]["content"].as_str().unwrap();
        assert!(system.starts_with("Be brief.\n\nYou can call functions."));
        assert!(system.contains(r#"{"name":"f","parameters":{}}"#));
        let call = "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>";
        assert_eq!(taught[1], json!({"role": "assistant", "content": call}));
        let result = "<tool_response>\n7\n</tool_response>";
        assert_eq!(taught[2], json!({"role": "user", "content": result}));
    }
}
