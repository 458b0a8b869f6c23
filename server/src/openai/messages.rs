//! The conversation of a chat request: checked, and flattened to what templates read.

use serde_json::{Map, Value, json};

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
    let mut messages = messages.collect::<Result<Vec<Value>, ApiError>>()?;
    name_results(&mut messages)?;
    Ok(messages)
}

fn message(mut fields: Fields) -> Result<Value, ApiError> {
    let role = fields.required_string("role")?;
    if !ROLES.contains(&role.as_str()) {
        return Err(invalid_value(&fields.path("role"), &role, &ROLES));
    }
    if role == "function" {
        return Err(ApiError::unsupported_value(
            &fields.path("role"),
            &format!("'{role}'"),
        ));
    }
    for name in ["function_call", "audio"] {
        fields.refuse(name)?;
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(template_role(&role)));
    let calls = match role.as_str() {
        "assistant" => tool_calls(&mut fields)?,
        _ => None,
    };
    let content = match calls {
        // What calls functions need not say anything.
        Some(_) => optional_content(&mut fields, &role)?,
        None => content(&mut fields, &role)?,
    };
    message.insert("content".to_owned(), Value::String(content));
    if let Some(calls) = calls {
        message.insert("tool_calls".to_owned(), calls);
    }
    if role == "assistant" {
        // Two names are in use for it.
        let reasoning = fields.string("reasoning_content")?;
        if let Some(reasoning) = fields.string("reasoning")?.or(reasoning) {
            message.insert("reasoning_content".to_owned(), Value::String(reasoning));
        }
        // Parts of answers, sent back as they were: what they say is in the content.
        for name in ["annotations", "parsed"] {
            fields.take(name);
        }
    }
    if role == "tool" {
        let id = fields.required_string("tool_call_id")?;
        message.insert("tool_call_id".to_owned(), Value::String(id));
    }
    if let Some(name) = fields.string("name")? {
        check_author(&fields.path("name"), &name)?;
        message.insert("name".to_owned(), Value::String(name));
    }
    fields.finish()?;
    Ok(Value::Object(message))
}

/// Names of participants are what the hosted API takes for them.
fn check_author(path: &str, name: &str) -> Result<(), ApiError> {
    const MAX_CHARACTERS: usize = 64;
    let is_fine = |c: char| !c.is_whitespace() && !['<', '|', '\\', '/', '>'].contains(&c);
    let n_characters = name.chars().count();
    if (1..=MAX_CHARACTERS).contains(&n_characters) && name.chars().all(is_fine) {
        return Ok(());
    }
    let message = format!(
        "Invalid '{path}': expected a string of 1 to {MAX_CHARACTERS} characters that matches the \
         pattern '^[^\\s<|\\\\/>]+$', but got '{name}' instead."
    );
    Err(ApiError::invalid(path, "invalid_value", message))
}

/// `developer` is the newer name of what templates of open models know as `system`.
fn template_role(role: &str) -> &str {
    if role == "developer" { "system" } else { role }
}

fn optional_content(fields: &mut Fields, role: &str) -> Result<String, ApiError> {
    match fields.take("content") {
        None => Ok(fields.string("refusal")?.unwrap_or_default()),
        Some(Value::Array(parts)) if parts.is_empty() => {
            Ok(fields.string("refusal")?.unwrap_or_default())
        }
        Some(value) => {
            fields.put("content", value);
            content(fields, role)
        }
    }
}

/// The calls of an assistant's message, in the form of the API.
fn tool_calls(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let path = fields.path("tool_calls");
    let items = match fields.take("tool_calls") {
        None => return Ok(None),
        // Some clients write every field of an answer back, used or not.
        Some(Value::Array(items)) if items.is_empty() => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(fields.wrong_type("tool_calls", "an array of objects", &other)),
    };
    let calls = items.into_iter().enumerate().map(|(i, item)| {
        let mut call = Fields::from_value(&format!("{path}[{i}]"), item)?;
        let id = call.required_string("id")?;
        let kind = call.required_string("type")?;
        if kind != "function" {
            let value = format!("calls of type '{kind}'");
            return Err(ApiError::unsupported_value(&call.path("type"), &value));
        }
        // Folded streams have it.
        call.integer("index", 0, i64::MAX)?;
        let function_path = call.path("function");
        let function = call.require("function", "an object")?;
        call.finish()?;
        let mut function = Fields::from_value(&function_path, function)?;
        let name = function.required_string("name")?;
        let arguments = function.required_string("arguments")?;
        function.finish()?;
        let function = json!({"name": name, "arguments": arguments});
        Ok(json!({"id": id, "type": "function", "function": function}))
    });
    calls
        .collect::<Result<Vec<Value>, ApiError>>()
        .map(|calls| Some(Value::Array(calls)))
}

/// Calls that wait for their results: their message, and their ids and names.
#[derive(Default)]
struct Open {
    message: usize,
    calls: Vec<(String, String)>,
}

impl Open {
    fn of(message: usize, calls: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let calls = calls.as_array().into_iter().flatten();
        let calls = calls.map(|call| (text(&call["id"]), text(&call["function"]["name"])));
        Self {
            message,
            calls: calls.collect(),
        }
    }

    /// The name of the call that a result answers, which is then answered.
    fn answer(&mut self, id: &str) -> Option<String> {
        let i = self.calls.iter().position(|(open, _)| open == id)?;
        Some(self.calls.remove(i).1)
    }

    /// Something else follows: all must have been answered.
    fn close(&self) -> Result<(), ApiError> {
        if self.calls.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = self.calls.iter().map(|(id, _)| id.as_str()).collect();
        let param = format!("messages[{}].tool_calls", self.message);
        let text = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding \
             to each 'tool_call_id'. The following tool_call_ids did not have response messages: \
             {}",
            ids.join(", ")
        );
        Err(ApiError::invalid(&param, "invalid_value", text))
    }
}

/// Sees to it that calls are followed by their results, and gives results the names of what they
/// answer: templates want the name, the API has only the id.
fn name_results(messages: &mut [Value]) -> Result<(), ApiError> {
    let mut open = Open::default();
    for (i, message) in messages.iter_mut().enumerate() {
        if message["role"] != "tool" {
            open.close()?;
            open = Open::of(i, &message["tool_calls"]);
            continue;
        }
        let id = message["tool_call_id"].as_str().unwrap_or_default();
        let Some(name) = open.answer(id) else {
            let param = format!("messages[{i}].tool_call_id");
            let text = format!(
                "Invalid parameter: messages with role 'tool' must be a response to a preceding \
                 message with 'tool_calls': there is no call '{id}' that waits for one."
            );
            return Err(ApiError::invalid(&param, "invalid_value", text));
        };
        if message.get("name").is_none() {
            message["name"] = json!(name);
        }
    }
    open.close()
}

/// Checks a content that nothing is made of.
pub(super) fn check_content(fields: &mut Fields) -> Result<(), ApiError> {
    content(fields, "user").map(drop)
}

fn content(fields: &mut Fields, role: &str) -> Result<String, ApiError> {
    // An assistant's earlier refusal stands in for its content.
    if role == "assistant"
        && let Some(refusal) = fields.string("refusal")?
    {
        let says_nothing = match fields.peek("content") {
            None => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(parts)) => parts.is_empty(),
            Some(_) => false,
        };
        if says_nothing {
            fields.take("content");
            return Ok(refusal);
        }
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
    fn calls_and_their_results_are_joined() {
        let found = parse(
            r#"[{"role":"assistant","content":null,"tool_calls":[
                    {"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},
                {"role":"tool","tool_call_id":"call_1","content":[{"type":"text","text":"7"}]}]"#,
        );
        let expected = serde_json::json!([
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "call_1", "name": "f"}]);
        assert_eq!(Value::Array(found.unwrap()), expected);
    }

    #[test]
    fn answers_are_taken_back_whole() {
        let unused = r#""refusal":null,"audio":null,"function_call":null,"annotations":[],
            "parsed":null,"reasoning_content":null,"name":null"#;
        let call = r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}"#;
        for (content, calls, expected) in [
            (r#""Hi""#, "null", "Hi"),
            (r#""Hi""#, "[]", "Hi"),
            ("null", &format!("[{call}]"), ""),
            ("[]", &format!("[{call}]"), ""),
        ] {
            let result = match calls.len() > 4 {
                true => r#",{"role":"tool","tool_call_id":"c","content":"7"}"#,
                false => "",
            };
            let message = format!(
                r#"[{{"role":"assistant","content":{content},"tool_calls":{calls},{unused}}}{result}]"#
            );
            let found = parse(&message).unwrap();
            assert_eq!(found[0]["content"], expected, "{message}");
            assert_eq!(found[0].get("tool_calls").is_some(), calls.len() > 4);
        }
    }

    #[test]
    fn calls_are_followed_by_their_results() {
        let call = |id: &str| {
            json!({"id": id, "type": "function",
            "function": {"name": "f", "arguments": "{}"}})
        };
        let calls = json!({"role": "assistant", "tool_calls": [call("a"), call("b")]});
        let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "7"});
        let user = json!({"role": "user", "content": "And?"});
        let read = |messages: Vec<Value>| parse(&Value::Array(messages).to_string());
        let both = vec![calls.clone(), result("b"), result("a"), user.clone()];
        assert!(read(both.clone()).is_ok());
        // Ids may come again.
        assert!(read([both.clone(), both].concat()).is_ok());
        for (messages, param, word) in [
            (vec![calls.clone()], "messages[0].tool_calls", ": a, b"),
            (
                vec![user.clone(), calls.clone(), user.clone()],
                "messages[1].tool_calls",
                ": a, b",
            ),
            (
                vec![calls.clone(), result("a"), user.clone(), result("b")],
                "messages[0].tool_calls",
                "did not have response messages: b",
            ),
            (
                vec![calls.clone(), result("a"), result("a")],
                "messages[2].tool_call_id",
                "'a'",
            ),
            (vec![user, result("a")], "messages[1].tool_call_id", "'a'"),
        ] {
            let error = read(messages).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
            assert!(error.message.contains(word), "{}", error.message);
        }
    }

    #[test]
    fn names_of_participants_are_checked() {
        let with = |name: &str| {
            parse(&json!([{"role": "user", "name": name, "content": "x"}]).to_string())
        };
        assert_eq!(with("Ada_2").unwrap()[0]["name"], "Ada_2");
        for name in ["", "a b", "a|b", "<a>", "a/b", "a\\b", &"a".repeat(65)] {
            let error = with(name).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("messages[0].name"), "{name}");
        }
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
                "messages[0].tool_call_id",
                "missing_required_parameter",
            ),
            (
                r#"[{"role":"tool","content":"x","tool_call_id":"call_1"}]"#,
                "messages[0].tool_call_id",
                "invalid_value",
            ),
            (
                r#"[{"role":"assistant","tool_calls":[{"id":"a","type":"custom"}]}]"#,
                "messages[0].tool_calls[0].type",
                "unsupported_value",
            ),
            (
                r#"[{"role":"user","content":"x","tool_calls":[]}]"#,
                "messages[0].tool_calls",
                "unknown_parameter",
            ),
            (
                r#"[{"role":"function","name":"f","content":"x"}]"#,
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
