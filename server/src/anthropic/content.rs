//! Messages made of blocks, as the messages that chat templates read.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::openai::{ApiError, Fields, empty_array, invalid_value};

const CONTENT: &str = "one of a string or an array of blocks";
/// Blocks that the API has and that this server does not offer.
const UNSUPPORTED: [&str; 13] = [
    "image",
    "document",
    "search_result",
    "redacted_thinking",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
    "tool_reference",
];

/// Takes `system`: a string, or blocks of text.
pub(super) fn take_system(body: &mut Fields) -> Result<Option<String>, ApiError> {
    match body.take("system") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(blocks)) => texts("system", blocks).map(Some),
        Some(other) => Err(body.wrong_type("system", CONTENT, &other)),
    }
}

/// Takes `messages`; whether the last of them is the beginning of the answer.
pub(super) fn take_messages(body: &mut Fields) -> Result<(Vec<Value>, bool), ApiError> {
    const EXPECTED: &str = "an array of objects";
    let items = match body.require("messages", EXPECTED)? {
        Value::Array(items) if items.is_empty() => return Err(empty_array("messages")),
        Value::Array(items) => items,
        other => return Err(body.wrong_type("messages", EXPECTED, &other)),
    };
    let mut found = Turns::default();
    for (i, item) in items.into_iter().enumerate() {
        found.take(i, Fields::from_value(&format!("messages[{i}]"), item)?)?;
    }
    found.check_answered()?;
    let last = found.messages.last();
    let is_prefilled = last.is_some_and(|message| {
        message["role"] == "assistant" && message.get("tool_calls").is_none()
    });
    Ok((found.messages, is_prefilled))
}

/// A mark for the hosted cache. Here all prefixes are kept without one.
pub(super) fn take_cache_control(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(mut control) = fields.fields("cache_control")? {
        control.word("type", &["ephemeral"])?;
        control.word("ttl", &["5m", "1h"])?;
        control.finish()?;
    }
    Ok(())
}

#[derive(Default)]
struct Turns {
    messages: Vec<Value>,
    /// Names of functions by the id of their call.
    names: HashMap<String, String>,
    /// Number of the last message with calls, and ids of those without a result.
    open: (usize, Vec<String>),
}

impl Turns {
    fn take(&mut self, i: usize, mut fields: Fields) -> Result<(), ApiError> {
        const ROLES: [&str; 3] = ["user", "assistant", "system"];
        let role = fields.required_string("role")?;
        if !ROLES.contains(&role.as_str()) {
            return Err(invalid_value(&fields.path("role"), &role, &ROLES));
        }
        let path = fields.path("content");
        let content = match fields.require("content", CONTENT)? {
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            Value::Array(blocks) if blocks.is_empty() => return Err(empty_array(&path)),
            Value::Array(blocks) => blocks,
            other => return Err(fields.wrong_type("content", CONTENT, &other)),
        };
        fields.finish()?;
        let blocks = content.into_iter().enumerate();
        let blocks = blocks.map(|(i, block)| Fields::from_value(&format!("{path}[{i}]"), block));
        let blocks = blocks.collect::<Result<Vec<Fields>, ApiError>>()?;
        if role != "user" {
            self.check_answered()?;
        }
        match role.as_str() {
            "assistant" => {
                self.open.0 = i;
                self.assistant(blocks)
            }
            "user" => {
                self.user(blocks)?;
                self.check_answered()
            }
            _ => {
                let texts = blocks.into_iter().map(text_block);
                let texts = texts.collect::<Result<Vec<String>, ApiError>>()?;
                self.messages
                    .push(json!({"role": "system", "content": texts.join("\n")}));
                Ok(())
            }
        }
    }

    /// Results come in the message after their calls.
    fn check_answered(&self) -> Result<(), ApiError> {
        let (i, ids) = &self.open;
        if ids.is_empty() {
            return Ok(());
        }
        let message = format!(
            "messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately \
             after: {}. Each `tool_use` block must have a corresponding `tool_result` block in \
             the next message.",
            ids.join(", ")
        );
        let param = format!("messages[{i}].content");
        Err(ApiError::invalid(&param, "invalid_value", message))
    }

    /// Results of calls are messages of their own, before what the user says.
    fn user(&mut self, blocks: Vec<Fields>) -> Result<(), ApiError> {
        let mut texts = Vec::new();
        for mut block in blocks {
            match kind(&mut block)?.as_str() {
                "text" => texts.push(text_of(block)?),
                "tool_result" => {
                    let result = self.result(block)?;
                    self.messages.push(result);
                }
                kind => return Err(wrong_block(&block, kind, &["text", "tool_result"])),
            }
        }
        if !texts.is_empty() {
            self.messages
                .push(json!({"role": "user", "content": texts.join("\n")}));
        }
        Ok(())
    }

    fn result(&mut self, mut block: Fields) -> Result<Value, ApiError> {
        let id = block.required_string("tool_use_id")?;
        let Some(name) = self.names.get(&id) else {
            let param = block.path("tool_use_id");
            let message = format!(
                "Invalid '{param}': there is no 'tool_use' block '{id}' in the messages before."
            );
            return Err(ApiError::invalid(&param, "invalid_value", message));
        };
        let Some(open) = self.open.1.iter().position(|open| *open == id) else {
            let param = block.path("tool_use_id");
            let message = format!(
                "Invalid '{param}': the 'tool_use' block '{id}' is not in the message before, or \
                 has a result already."
            );
            return Err(ApiError::invalid(&param, "invalid_value", message));
        };
        self.open.1.remove(open);
        let content = match block.take("content") {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(Value::Array(blocks)) => texts(&block.path("content"), blocks)?,
            Some(other) => return Err(block.wrong_type("content", CONTENT, &other)),
        };
        // The content says what went wrong; templates have no word for it.
        block.bool("is_error")?;
        take_cache_control(&mut block)?;
        block.refuse("toolset_name")?;
        block.finish()?;
        Ok(json!({"role": "tool", "tool_call_id": id, "name": name, "content": content}))
    }

    fn assistant(&mut self, blocks: Vec<Fields>) -> Result<(), ApiError> {
        const KINDS: [&str; 3] = ["text", "thinking", "tool_use"];
        let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for mut block in blocks {
            match kind(&mut block)?.as_str() {
                "text" => texts.push(text_of(block)?),
                "thinking" => {
                    thoughts.push(block.required_string("thinking")?);
                    block.string("signature")?;
                    block.finish()?;
                }
                "tool_use" => calls.push(self.call(block)?),
                kind => return Err(wrong_block(&block, kind, &KINDS)),
            }
        }
        let mut message = json!({"role": "assistant", "content": texts.join("\n")});
        if !thoughts.is_empty() {
            message["reasoning_content"] = json!(thoughts.join("\n"));
        }
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        self.messages.push(message);
        Ok(())
    }

    fn call(&mut self, mut block: Fields) -> Result<Value, ApiError> {
        let id = block.required_string("id")?;
        let name = block.required_string("name")?;
        let input = match block.require("input", "an object")? {
            input @ Value::Object(_) => input.to_string(),
            other => return Err(block.wrong_type("input", "an object", &other)),
        };
        take_cache_control(&mut block)?;
        if let Some(mut caller) = block.fields("caller")? {
            caller.word("type", &["direct"])?;
            caller.finish()?;
        }
        block.refuse("toolset_name")?;
        block.finish()?;
        self.names.insert(id.clone(), name.clone());
        self.open.1.push(id.clone());
        let function = json!({"name": name, "arguments": input});
        Ok(json!({"id": id, "type": "function", "function": function}))
    }
}

fn kind(block: &mut Fields) -> Result<String, ApiError> {
    block.required_string("type")
}

fn wrong_block(block: &Fields, kind: &str, supported: &[&str]) -> ApiError {
    let param = block.path("type");
    if UNSUPPORTED.contains(&kind) {
        ApiError::unsupported_value(&param, &format!("'{kind}' blocks here"))
    } else {
        invalid_value(&param, kind, supported)
    }
}

/// Blocks of text, joined by line ends.
fn texts(path: &str, blocks: Vec<Value>) -> Result<String, ApiError> {
    let blocks = blocks.into_iter().enumerate();
    let texts =
        blocks.map(|(i, block)| text_block(Fields::from_value(&format!("{path}[{i}]"), block)?));
    Ok(texts.collect::<Result<Vec<String>, ApiError>>()?.join("\n"))
}

fn text_block(mut block: Fields) -> Result<String, ApiError> {
    match kind(&mut block)?.as_str() {
        "text" => text_of(block),
        kind => Err(wrong_block(&block, kind, &["text"])),
    }
}

fn text_of(mut block: Fields) -> Result<String, ApiError> {
    let text = block.required_string("text")?;
    take_cache_control(&mut block)?;
    // Part of an answer, sent back as it was.
    block.take("citations");
    block.finish()?;
    Ok(text)
}
