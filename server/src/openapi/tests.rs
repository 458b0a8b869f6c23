//! Descriptions are true: readers ask for the fields that types have, and for no others; routes
//! and operations are the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::document;
use crate::anthropic::MessageRequest;
use crate::openai::{
    ChatRequest, CompletionRequest, ConversationBody, DecisionRequest, EmbeddingRequest, Fields,
    ResponseRequest, Sampling, TokenizeRequest, asked_for, detokenized,
};

const N_VOCAB: usize = 100;

/// Paths of all properties that a schema has, such as `messages[].content`. `refused`: those that
/// are named as not supported.
fn properties(document: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if path.matches('.').count() > 8 {
        return;
    }
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).unwrap();
        properties(document, target, path, found);
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for option in schema[keyword].as_array().into_iter().flatten() {
            properties(document, option, path, found);
        }
    }
    if schema["items"].is_object() {
        properties(document, &schema["items"], &format!("{path}[]"), found);
    }
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(join(name));
        properties(document, inner, &join(name), found);
    }
    for name in schema["x-unsupported"].as_array().into_iter().flatten() {
        found.insert(join(name.as_str().unwrap()));
    }
}

fn described(path: &str) -> BTreeSet<String> {
    let document = document(false);
    let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
    let mut found = BTreeSet::new();
    properties(&document, &body["schema"], "", &mut found);
    assert!(found.len() > 1, "{path}: {found:?}");
    found
}

/// Paths of all fields that were asked for while `read` read these bodies.
fn asked(bodies: &[Value], read: &dyn Fn(Fields)) -> BTreeSet<String> {
    let paths = asked_for(|| {
        for body in bodies {
            let fields = Fields::from_body(body.to_string().as_bytes()).unwrap();
            read(fields);
        }
    });
    let plain = |path: &String| {
        let mut plain = String::new();
        let mut is_index = false;
        for c in path.chars() {
            is_index = match c {
                '[' => true,
                ']' => false,
                _ => is_index,
            };
            if !is_index || c == '[' {
                plain.push(c);
            }
        }
        plain
    };
    paths.iter().map(plain).collect()
}

/// What of a body is for the handler or has names that clients make.
fn is_elsewhere(path: &str) -> bool {
    const OURS: [&str; 3] = ["model", "adapter", "adapters"];
    OURS.contains(&path) || path.starts_with("adapters[]")
}

fn compare(path: &str, bodies: &[Value], read: &dyn Fn(Fields)) {
    let described: BTreeSet<String> = described(path)
        .into_iter()
        .filter(|path| !is_elsewhere(path))
        .collect();
    let mut asked = asked(bodies, read);
    if path == "/v1/responses" {
        // Of other endpoints: they are looked for to be told that nobody knows them here.
        for name in [
            "n",
            "logprobs",
            "stream_options.include_usage",
            "stream_options.continuous_usage_stats",
        ] {
            assert!(asked.remove(name), "{name}");
        }
    }
    if path.starts_with("/v1/messages") {
        // How tokens are drawn begins with the defaults of chats, which are read from nothing.
        let defaults = asked_of_nothing();
        asked.retain(|name| described.contains(name) || !defaults.contains(name));
    }
    let missing: Vec<&String> = asked.difference(&described).collect();
    assert!(
        missing.is_empty(),
        "{path}: read, not described: {missing:?}"
    );
    let unread: Vec<&String> = described.difference(&asked).collect();
    assert!(unread.is_empty(), "{path}: described, not read: {unread:?}");
}

fn asked_of_nothing() -> BTreeSet<String> {
    asked(&[json!({})], &|mut fields| {
        Sampling::take(&mut fields, N_VOCAB).unwrap();
    })
}

fn chat_bodies() -> Vec<Value> {
    let function = json!({"name": "f", "parameters": {}, "description": "d", "strict": false});
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let base = json!({
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "x"}]},
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ],
        "stream": true, "stream_options": {},
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
        "structured_outputs": {}, "prompt_cache_options": {},
    });
    let with = |name: &str, value: Value| {
        let mut body = base.clone();
        body[name] = value;
        body
    };
    let allowed = json!({"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}, {"name": "f"}]});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}});
    let mut formatted = with("response_format", schema);
    formatted["tool_choice"] = json!("auto");
    let flat = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}, {"function": {"name": "f"}}]});
    vec![
        with(
            "tool_choice",
            json!({"type": "allowed_tools", "allowed_tools": allowed}),
        ),
        with("tool_choice", flat),
        with("tool_choice", json!({"type": "function", "name": "f"})),
        formatted,
        base,
    ]
}

#[test]
fn chats_are_described() {
    compare("/v1/chat/completions", &chat_bodies(), &|fields| {
        ChatRequest::parse(fields, N_VOCAB).unwrap();
    });
    compare("/apply-template", &chat_bodies(), &|fields| {
        ChatRequest::parse(fields, N_VOCAB).unwrap();
    });
}

#[test]
fn completions_and_embeddings_are_described() {
    let body = json!({"prompt": "x", "stream": true, "stream_options": {}});
    compare("/v1/completions", &[body], &|fields| {
        CompletionRequest::parse(fields, N_VOCAB).unwrap();
    });
    compare("/v1/embeddings", &[json!({"input": "x"})], &|fields| {
        EmbeddingRequest::parse(fields, N_VOCAB, 8).unwrap();
    });
}

fn items() -> Value {
    json!([
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "x"}, {"type": "refusal", "refusal": "x"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c",
            "output": [{"type": "input_text", "text": "x"}]},
    ])
}

#[test]
fn responses_are_described() {
    let mut input = items();
    let more = [
        json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}],
            "content": [{"type": "reasoning_text", "text": "x"}]}),
        json!({"type": "item_reference", "id": "x"}),
    ];
    input.as_array_mut().unwrap().extend(more);
    let base = json!({
        "input": input, "conversation": {"id": "x"}, "stream": true, "stream_options": {},
        "tools": [{"type": "function", "name": "f"}],
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
        "reasoning": {}, "structured_outputs": {}, "prompt_cache_options": {},
    });
    let with = |choice: Value| {
        let mut body = base.clone();
        body["text"] = json!({});
        body["tool_choice"] = choice;
        body
    };
    let allowed = json!({"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}, {"name": "f"}]});
    let bodies = [
        with(json!({"type": "function", "name": "f"})),
        with(json!({"type": "function", "function": {"name": "f"}})),
        with(
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}, {"function": {"name": "f"}}]}),
        ),
        with(json!({"type": "allowed_tools", "allowed_tools": allowed})),
        base,
    ];
    let read = |fields| drop(ResponseRequest::parse(fields, N_VOCAB).unwrap());
    compare("/v1/responses", &bodies, &read);
    let body = json!({"items": items()});
    let asked = asked(&[body], &|fields| {
        ConversationBody::parse(fields.to_value().to_string().as_bytes()).unwrap();
    });
    let described = described("/v1/conversations");
    let missing: Vec<&String> = asked.difference(&described).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn decisions_and_tokens_are_described() {
    let parts = json!([{"type": "input_text", "text": "x"}, {"type": "input_json", "data": {}}]);
    let body = json!({"input": items(), "questions": [
        {"type": "predicate", "instructions": parts},
        {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": "b"}]},
        {"type": "score", "instructions": "x", "levels": [{"label": "a"}, {"label": "b"}]},
    ], "prompt_cache_options": {}});
    let asked = asked(&[body], &|fields| {
        drop(DecisionRequest::parse(fields).unwrap())
    });
    let described = described("/v1/decisions");
    let missing: Vec<&String> = asked.difference(&described).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Its items are those of responses, but for two kinds that are refused.
    let unread = described.difference(&asked).filter(|path| {
        let is_of_others = [
            "input[].summary",
            "input[].content",
            "input[].encrypted_content",
        ]
        .iter()
        .any(|prefix| path.starts_with(prefix));
        !is_elsewhere(path) && !is_of_others
    });
    let unread: Vec<&String> = unread.collect();
    assert!(unread.is_empty(), "{unread:?}");
    compare("/detokenize", &[json!({"tokens": [1]})], &|fields| {
        detokenized(fields, N_VOCAB).unwrap();
    });
    let mut bodies = chat_bodies();
    bodies.push(json!({"prompt": "x"}));
    compare("/tokenize", &bodies, &|fields| {
        TokenizeRequest::parse(fields, N_VOCAB).unwrap();
    });
}

#[test]
fn messages_are_described() {
    let control = json!({"type": "ephemeral"});
    let body = json!({
        "max_tokens": 1,
        "system": [{"type": "text", "text": "x", "cache_control": control}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "x", "signature": ""},
                {"type": "tool_use", "id": "c", "name": "f", "input": {},
                    "caller": {"type": "direct"}, "cache_control": control}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "cache_control": control,
                    "content": [{"type": "text", "text": "x", "cache_control": control}]},
                {"type": "text", "text": "x", "cache_control": control}]},
        ],
        "tools": [{"name": "f", "input_schema": {}, "cache_control": control}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "adaptive"}, "output_config": {}, "metadata": {},
        "cache_control": control,
    });
    let mut formatted = body.clone();
    formatted["output_config"] = json!({"format": {"type": "json_schema", "schema": {}}});
    formatted["tool_choice"] = json!({"type": "auto"});
    compare(
        "/v1/messages",
        &[body.clone(), formatted.clone()],
        &|fields| {
            MessageRequest::parse(fields, false).unwrap();
        },
    );
    compare("/v1/messages/count_tokens", &[body, formatted], &|fields| {
        MessageRequest::parse(fields, true).unwrap();
    });
}

/// Addresses as the router has them.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../app.rs");
    let mut found = BTreeSet::new();
    for call in source.split(".route(").skip(1) {
        let path = call.split('"').nth(1).unwrap();
        found.insert(path.replace("{*id}", "{id}"));
    }
    found
}

#[test]
fn operations_are_the_routes() {
    let document = document(true);
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths.keys().cloned().collect();
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(
        described, routes,
        "server/src/openapi/operations.rs says what app.rs routes"
    );
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, methods) in paths {
        for operation in methods.as_object().unwrap().values() {
            let other = ids.insert(operation["operationId"].as_str().unwrap(), path);
            assert!(other.is_none(), "{path} {other:?}");
            let is_open = path.starts_with("/health") || path == "/docs" || path == "/openapi.json";
            assert_eq!(operation.get("security").is_none(), is_open, "{path}");
        }
    }
}
