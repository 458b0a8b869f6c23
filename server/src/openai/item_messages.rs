//! Items as the messages that chat templates read.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::ApiError;

/// Messages of `items`, in order, behind `instructions`, to be gone on from: all calls have been
/// answered. An answer's thoughts, text and calls are one message again, as its model wrote them.
pub fn item_messages(instructions: Option<&str>, items: &[Value]) -> Result<Vec<Value>, ApiError> {
    read(instructions, items)?.finish()
}

/// The same of what is only looked at, where calls may still be open.
pub fn transcript_messages(items: &[Value]) -> Result<Vec<Value>, ApiError> {
    Ok(read(None, items)?.found)
}

fn read(instructions: Option<&str>, items: &[Value]) -> Result<Messages, ApiError> {
    let mut messages = Messages::default();
    if let Some(instructions) = instructions {
        messages.system(instructions.to_owned());
    }
    for item in items {
        messages.push(item)?;
    }
    Ok(messages)
}

#[derive(Default)]
struct Messages {
    found: Vec<Value>,
    /// Thoughts that wait for their message.
    reasoning: Option<String>,
    /// Names of functions by the id of their call.
    names: HashMap<String, String>,
    /// Ids of calls without an output, in order.
    open: Vec<String>,
}

impl Messages {
    fn push(&mut self, item: &Value) -> Result<(), ApiError> {
        match text_of(&item["type"]) {
            "message" => {
                let text = joined(&item["content"]);
                match text_of(&item["role"]) {
                    "assistant" => self.assistant()["content"] = json!(text),
                    "user" => self.found.push(json!({"role": "user", "content": text})),
                    _ => self.system(text),
                }
            }
            "reasoning" => {
                let thoughts = joined(&item["content"]);
                let summary = joined(&item["summary"]);
                self.reasoning = Some(if thoughts.is_empty() {
                    summary
                } else {
                    thoughts
                });
            }
            "function_call" => self.call(item),
            _ => return self.output(item),
        }
        Ok(())
    }

    /// All calls must have been answered.
    fn finish(self) -> Result<Vec<Value>, ApiError> {
        let Some(id) = self.open.first() else {
            return Ok(self.found);
        };
        let message = format!("No tool output found for function call {id}.");
        Err(ApiError::bad_request(message).with_param("input"))
    }

    /// Many templates know one message of this role, at the beginning.
    fn system(&mut self, text: String) {
        if let [only] = self.found.as_mut_slice()
            && only["role"] == "system"
        {
            let before = text_of(&only["content"]);
            only["content"] = json!(format!("{before}\n\n{text}"));
            return;
        }
        self.found.push(json!({"role": "system", "content": text}));
    }

    /// A new message of the assistant, with the thoughts before it.
    fn assistant(&mut self) -> &mut Value {
        let mut message = json!({"role": "assistant", "content": ""});
        if let Some(reasoning) = self.reasoning.take() {
            message["reasoning_content"] = json!(reasoning);
        }
        self.found.push(message);
        self.found.last_mut().expect("it was just put there")
    }

    fn call(&mut self, item: &Value) {
        let (id, name) = (text_of(&item["call_id"]), text_of(&item["name"]));
        self.names.insert(id.to_owned(), name.to_owned());
        self.open.push(id.to_owned());
        let call = json!({
            "id": id, "type": "function",
            "function": {"name": name, "arguments": item["arguments"]},
        });
        let is_open = self.reasoning.is_none()
            && self
                .found
                .last()
                .is_some_and(|last| last["role"] == "assistant");
        let message = match self.found.last_mut() {
            Some(last) if is_open => last,
            _ => self.assistant(),
        };
        match message["tool_calls"].as_array_mut() {
            Some(calls) => calls.push(call),
            None => message["tool_calls"] = json!([call]),
        }
    }

    fn output(&mut self, item: &Value) -> Result<(), ApiError> {
        let id = text_of(&item["call_id"]);
        let Some(name) = self.names.get(id) else {
            let message = format!("No tool call found for function call output with call_id {id}.");
            return Err(ApiError::bad_request(message).with_param("input"));
        };
        let Some(i) = self.open.iter().position(|open| open == id) else {
            let message = format!("There are two outputs of the function call with call_id {id}.");
            return Err(ApiError::bad_request(message).with_param("input"));
        };
        self.open.remove(i);
        let content = match &item["output"] {
            Value::String(text) => text.clone(),
            parts => joined(parts),
        };
        self.found.push(json!({
            "role": "tool", "tool_call_id": id, "name": name, "content": content,
        }));
        Ok(())
    }
}

/// The text of checked parts.
fn joined(parts: &Value) -> String {
    let parts = parts.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = parts
        .iter()
        .map(|part| {
            part["text"]
                .as_str()
                .unwrap_or_else(|| text_of(&part["refusal"]))
        })
        .collect();
    texts.join("\n")
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_items_is_one_message() {
        let items = [
            json!({"type": "message", "role": "developer",
                "content": [{"type": "input_text", "text": "Be kind."}]}),
            json!({"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}),
            json!({"type": "reasoning", "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}]}),
            json!({"type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": "I look."}]}),
            json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}),
            json!({"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"}),
            json!({"type": "function_call_output", "call_id": "c2", "output": "7"}),
            json!({"type": "function_call_output", "call_id": "c1", "output": "8"}),
        ];
        let call = |id, name| {
            json!({"id": id, "type": "function",
            "function": {"name": name, "arguments": "{}"}})
        };
        let expected = json!([
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm",
             "tool_calls": [call("c1", "f"), call("c2", "g")]},
            {"role": "tool", "tool_call_id": "c2", "name": "g", "content": "7"},
            {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "8"}]);
        let found = item_messages(Some("Be brief."), &items).unwrap();
        assert_eq!(Value::Array(found), expected);
        let error = item_messages(None, &items[6..]).unwrap_err();
        assert!(error.message.contains("call_id c2"), "{}", error.message);
        let error = item_messages(None, &items[..7]).unwrap_err();
        assert_eq!(error.message, "No tool output found for function call c1.");
        let mut twice = items.to_vec();
        twice.push(items[6].clone());
        let error = item_messages(None, &twice).unwrap_err();
        assert!(error.message.contains("call_id c2"), "{}", error.message);
    }
}
