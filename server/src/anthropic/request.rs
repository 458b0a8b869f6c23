//! The body of `POST /v1/messages`.

use serde_json::{Map, Value, json};

use super::{content, tools};
use crate::grammar::Grammar;
use crate::openai::{ApiError, ChatRequest, Fields, Format, Sampling, Streaming, invalid_value};

/// Most stop sequences of one request.
const MAX_STOPS: usize = 64;
/// Most characters of a stop sequence.
const MAX_STOP_CHARACTERS: usize = 1000;
/// Parameters that the API has and that this server does not offer.
pub(crate) const UNSUPPORTED: [&str; 8] = [
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "mcp_servers",
    "prefill",
    "user_profile_id",
    "workspace_id",
];

/// A request for a message, checked: a chat in other words.
#[derive(Clone, Debug)]
pub struct MessageRequest {
    pub chat: ChatRequest,
    /// Whether thoughts were asked for, which not every model has.
    pub wants_thoughts: bool,
}

impl MessageRequest {
    /// Reads a body whose `model` has been taken already. `is_counted`: only to count its tokens,
    /// which needs no `max_tokens`.
    pub fn parse(mut body: Fields, is_counted: bool) -> Result<Self, ApiError> {
        let system = content::take_system(&mut body)?;
        let (mut messages, is_prefilled) = content::take_messages(&mut body)?;
        if let Some(system) = system {
            messages.insert(0, json!({"role": "system", "content": system}));
        }
        let mut chat = ChatRequest::of_messages(messages, sampling(&mut body)?);
        chat.streaming = Streaming {
            enabled: body.bool("stream")?.unwrap_or(false),
            ..Streaming::default()
        };
        chat.max_tokens = body.count("max_tokens", 1, u32::MAX)?;
        if chat.max_tokens.is_none() && !is_counted {
            return Err(ApiError::missing("max_tokens"));
        }
        if is_prefilled {
            chat.add_generation_prompt = false;
            chat.continue_final_message = true;
        }
        chat.tools = tools::take(&mut body)?;
        let wants_thoughts = thinking(&mut body, &mut chat)?;
        output_config(&mut body, &mut chat)?;
        if let Some(kwargs) = body.object("chat_template_kwargs")? {
            chat.add_template_kwargs(kwargs)?;
        }
        take_without_effect(&mut body)?;
        for name in UNSUPPORTED {
            body.refuse(name)?;
        }
        body.finish()?;
        chat.check_form()?;
        Ok(Self {
            chat,
            wants_thoughts,
        })
    }
}

fn sampling(body: &mut Fields) -> Result<Sampling, ApiError> {
    let plain = Sampling::take(&mut Fields::from_value("", json!({}))?, 0)?;
    let top_k = body.count("top_k", 0, u32::MAX)?;
    Ok(Sampling {
        temperature: body.decimal("temperature", 0.0, 1.0)?.unwrap_or(1.0),
        top_p: body.decimal("top_p", 0.0, 1.0)?.unwrap_or(1.0),
        top_k: top_k.unwrap_or(0),
        stop: stop_sequences(body)?,
        seed: body
            .integer("seed", i64::MIN, i64::MAX)?
            .map(i64::cast_unsigned),
        ..plain
    })
}

fn stop_sequences(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "stop_sequences";
    let items = match body.take(NAME) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(body.wrong_type(NAME, "an array of strings", &other)),
    };
    let is_stop = |item: &Value| match item {
        Value::String(text) => (1..=MAX_STOP_CHARACTERS).contains(&text.chars().count()),
        _ => false,
    };
    if items.len() > MAX_STOPS || !items.iter().all(is_stop) {
        let message = format!(
            "Invalid '{NAME}': expected at most {MAX_STOPS} strings of 1 to \
             {MAX_STOP_CHARACTERS} characters."
        );
        return Err(ApiError::invalid(NAME, "invalid_value", message));
    }
    let texts = items.into_iter().filter_map(|item| match item {
        Value::String(text) => Some(text),
        _ => None,
    });
    Ok(texts.collect())
}

/// Whether to think. Budgets are checked, and not enforced.
fn thinking(body: &mut Fields, chat: &mut ChatRequest) -> Result<bool, ApiError> {
    const KINDS: [&str; 4] = ["enabled", "disabled", "adaptive", "between_tools"];
    // Unless it is asked to, a model does as its template has it.
    chat.template_kwargs = Map::new();
    let Some(mut thinking) = body.fields("thinking")? else {
        return Ok(false);
    };
    let kind = thinking.required_string("type")?;
    thinking.count("budget_tokens", 1, u32::MAX)?;
    if thinking.word("display", &["summarized", "omitted"])? == Some("omitted") {
        let param = thinking.path("display");
        return Err(ApiError::unsupported_value(&param, "'omitted'"));
    }
    let param = thinking.path("type");
    thinking.finish()?;
    match kind.as_str() {
        "disabled" => chat.set_thinking(false),
        "enabled" => chat.set_thinking(true),
        "adaptive" => {}
        "between_tools" => return Err(ApiError::unsupported_value(&param, "'between_tools'")),
        _ => return Err(invalid_value(&param, &kind, &KINDS)),
    }
    Ok(kind == "enabled")
}

/// `effort`, and the form of the answer.
fn output_config(body: &mut Fields, chat: &mut ChatRequest) -> Result<(), ApiError> {
    let Some(mut config) = body.fields("output_config")? else {
        return Ok(());
    };
    let efforts = ["low", "medium", "high", "xhigh", "max"];
    if let Some(effort) = config.word("effort", &efforts)? {
        chat.template_kwargs
            .insert("reasoning_effort".to_owned(), json!(effort));
    }
    if let Some(mut format) = config.fields("format")? {
        format.word("type", &["json_schema"])?;
        let schema = match format.require("schema", "an object")? {
            schema @ Value::Object(_) => schema,
            other => return Err(format.wrong_type("schema", "an object", &other)),
        };
        format.finish()?;
        chat.format = Some(Format {
            grammar: Grammar::JsonSchema(schema),
            param: "output_config.format.schema".to_owned(),
            complaint: "Invalid schema in 'output_config.format'".to_owned(),
        });
    }
    config.finish()
}

/// Hints of the hosted service, and who is asking.
fn take_without_effect(body: &mut Fields) -> Result<(), ApiError> {
    if let Some(mut metadata) = body.fields("metadata")? {
        metadata.string("user_id")?;
        metadata.finish()?;
    }
    body.word("service_tier", &["auto", "standard_only"])?;
    if body.word("speed", &["standard", "fast"])? == Some("fast") {
        return Err(ApiError::unsupported_value("speed", "'fast'"));
    }
    content::take_cache_control(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: Value) -> Result<MessageRequest, ApiError> {
        let mut body = json!({"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        MessageRequest::parse(Fields::from_value("", body)?, false)
    }

    #[test]
    fn conversations_become_chats() {
        let messages = json!([
            {"role": "user", "content": [{"type": "text", "text": "a",
                "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "7"}]},
                {"type": "text", "text": "And?"}]},
            {"role": "assistant", "content": "It is"},
        ]);
        let system = json!([{"type": "text", "text": "Be"}, {"type": "text", "text": "brief"}]);
        let chat = parse(json!({"system": system, "messages": messages}))
            .unwrap()
            .chat;
        let function = json!({"name": "f", "arguments": r#"{"x":1}"#});
        let expected = json!([
            {"role": "system", "content": "Be\nbrief"},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [
                {"id": "t1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "t1", "name": "f", "content": "7"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "It is"}]);
        assert_eq!(Value::Array(chat.messages), expected);
        assert!(chat.continue_final_message && !chat.add_generation_prompt);
    }

    #[test]
    fn errors_name_the_parameter() {
        let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
        let orphan = json!([{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t9", "content": "x"}]}]);
        for (more, param, code) in [
            (
                json!({"max_tokens": null}),
                "max_tokens",
                "missing_required_parameter",
            ),
            (
                json!({"temperature": 1.5}),
                "temperature",
                "decimal_above_max_value",
            ),
            (json!({"messages": []}), "messages", "empty_array"),
            (
                json!({"messages": image}),
                "messages[0].content[0].type",
                "unsupported_value",
            ),
            (
                json!({"messages": orphan}),
                "messages[0].content[0].tool_use_id",
                "invalid_value",
            ),
            (
                json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}),
                "tools[0].type",
                "unsupported_value",
            ),
            (
                json!({"mcp_servers": []}),
                "mcp_servers",
                "unsupported_parameter",
            ),
            (
                json!({"thinking": {"type": "maybe"}}),
                "thinking.type",
                "invalid_value",
            ),
            (
                json!({"stop_sequences": [""]}),
                "stop_sequences",
                "invalid_value",
            ),
            (
                json!({"tool_choice": {"type": "tool", "name": "f"}}),
                "tool_choice.name",
                "invalid_value",
            ),
            (json!({"n": 2}), "n", "unknown_parameter"),
        ] {
            let error = parse(more.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{more}");
            assert_eq!(error.code.as_deref(), Some(code), "{more}");
        }
    }
}
