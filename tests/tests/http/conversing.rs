//! Conversations that the hosted API would refuse, and small print of bodies and addresses.

use axum::http::Method;
use serde_json::{Value, json};

use crate::errors::check;
use crate::server::{Options, Server, chat_body, request};

fn server() -> Server {
    Server::start(Options {
        max_model_len: 1000,
        says: Some("It is warm."),
        ..Options::default()
    })
}

fn weather() -> Value {
    json!([{"type": "function", "name": "get_weather", "parameters": {"type": "object",
        "properties": {}}}])
}

#[tokio::test]
async fn calls_without_results_are_refused() {
    let server = server();
    let user = json!({"role": "user", "content": "Weather?"});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call_x",
        "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "call_x", "content": "30 C"});
    let hosted = "An assistant message with 'tool_calls' must be followed by tool messages \
                  responding to each 'tool_call_id'. The following tool_call_ids did not have \
                  response messages: call_x";
    for (messages, param, says) in [
        (json!([user, call]), "messages[1].tool_calls", hosted),
        (json!([user, call, user]), "messages[1].tool_calls", hosted),
        (
            json!([user, call, result, result]),
            "messages[3].tool_call_id",
            "'call_x'",
        ),
    ] {
        let answer = server.chat(json!({ "messages": messages })).await;
        check(&answer, 400, Some(param), Some("invalid_value"), says);
    }
    // A message that calls has ended: it is not gone on from.
    let answer = server
        .chat(
            json!({"messages": [user, call], "continue_final_message": true,
            "add_generation_prompt": false}),
        )
        .await;
    let param = Some("messages[1].tool_calls");
    check(&answer, 400, param, Some("invalid_value"), hosted);
    let messages = json!([user, call, result]);
    let answered = server.chat(json!({ "messages": messages })).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
}

#[tokio::test]
async fn calls_without_outputs_are_refused() {
    let server = Server::start(Options {
        max_model_len: 1000,
        ..Options::default()
    });
    let call = json!({"type": "function_call", "call_id": "call_x", "name": "get_weather",
        "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "call_x", "output": "7"});
    let user = json!({"role": "user", "content": "Weather?"});
    let hosted = "No tool output found for function call call_x.";
    for (input, says) in [
        (json!([user, call]), hosted),
        (json!([user, call, user]), hosted),
        (json!([user, call, output, output]), "call_x"),
    ] {
        let answer = server.respond(json!({ "input": input })).await;
        check(&answer, 400, Some("input"), None, says);
    }
    let input = json!([user, call, output]);
    let answered = server.respond(json!({ "input": input })).await;
    assert_eq!(answered.status, 200, "{}", answered.text);

    // The same of what a response goes on from.
    let first = server
        .respond(json!({"tools": weather(), "tool_choice": "required",
            "parallel_tool_calls": false}))
        .await
        .json();
    let call_id = first["output"][0]["call_id"].as_str().unwrap();
    let on = |input: Value| json!({"previous_response_id": first["id"], "input": input});
    let answer = server.respond(on(json!("And?"))).await;
    check(&answer, 400, Some("input"), None, call_id);
    let output = json!([{"type": "function_call_output", "call_id": call_id, "output": "7"}]);
    let answered = server.respond(on(output)).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
}

#[tokio::test]
async fn uses_of_tools_without_results_are_refused() {
    let server = server();
    let call = json!({"role": "assistant", "content": [
        {"type": "tool_use", "id": "toolu_x", "name": "get_weather", "input": {}}]});
    let result = json!({"type": "tool_result", "tool_use_id": "toolu_x", "content": "30 C"});
    let user = json!({"role": "user", "content": "Weather?"});
    let send = async |messages: Value| {
        let body = json!({"model": "alias", "max_tokens": 8, "messages": messages});
        server.post("/v1/messages", &body).await
    };
    for messages in [
        json!([user, call]),
        json!([user, call, user]),
        json!([user, call, {"role": "user", "content": [result, result]}]),
        json!([user, call, {"role": "user", "content": [result]}, {"role": "user", "content": [result]}]),
    ] {
        let answer = send(messages).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("toolu_x"), "{}", answer.text);
    }
    let answer = send(json!([user, call, {"role": "user", "content": [result]}])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A function's tool with parameters of a schema.
fn tool(schema: &Value) -> Value {
    json!([{"type": "function", "function": {"name": "f", "parameters": schema}}])
}

/// A choice among allowed tools, of which one is of this kind.
fn allowed(kind: &str) -> Value {
    json!({"type": "allowed_tools", "allowed_tools":
        {"mode": "auto", "tools": [{"type": kind, "name": "f"}]}})
}

#[tokio::test]
async fn hints_are_read_to_the_end() {
    let server = server();
    for (more, param, code, says) in [
        (
            json!({"messages": [{"role": "user", "name": "a b", "content": "x"}]}),
            "messages[0].name",
            "invalid_value",
            "pattern",
        ),
        (
            json!({"prediction": {"type": "content", "content": 5}}),
            "prediction.content",
            "invalid_type",
            "an integer",
        ),
        (
            json!({"prediction": {"type": "content", "content": [{"type": "text"}]}}),
            "prediction.content[0].text",
            "missing_required_parameter",
            "",
        ),
        (
            json!({"prompt_cache_options": {"foo": 1}}),
            "prompt_cache_options.foo",
            "unknown_parameter",
            "",
        ),
        (
            json!({"logit_bias": {"05": 2}}),
            "logit_bias",
            "invalid_value",
            "'05'",
        ),
        (
            json!({"logit_bias": {"+5": 2}}),
            "logit_bias",
            "invalid_value",
            "'+5'",
        ),
        (
            json!({"messages": null}),
            "messages",
            "invalid_type",
            "got null",
        ),
    ] {
        check(&server.chat(more).await, 400, Some(param), Some(code), says);
    }
    let fine = json!({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
        "tools": tool(&json!({"properties": {}})), "tool_choice": allowed("function"),
        "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
        "logit_bias": {"5": 1}, "reasoning_effort": "none"});
    let answer = server.chat(fine).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn tools_are_read_to_the_end() {
    let server = server();
    for (more, param, code, says) in [
        (
            json!({"tools": tool(&json!({})), "tool_choice": allowed("mcp")}),
            "tool_choice.allowed_tools.tools[0].type",
            "unsupported_value",
            "'mcp'",
        ),
        (
            json!({"tools": tool(&json!({})), "tool_choice": allowed("song")}),
            "tool_choice.allowed_tools.tools[0].type",
            "invalid_value",
            "'song'",
        ),
        (
            json!({"tools": tool(&json!({"type": "array"}))}),
            "tools[0].function.parameters",
            "invalid_function_parameters",
            "Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"', \
             got 'type: \"array\"'.",
        ),
    ] {
        check(&server.chat(more).await, 400, Some(param), Some(code), says);
    }
}

#[tokio::test]
async fn integers_of_any_size_are_integers() {
    let server = server();
    let mut text = chat_body(json!({"n": 7})).to_string();
    text = text.replace("\"n\":7", "\"n\":1000000000000000000000000000000");
    let answer = server
        .call(request(Method::POST, "/v1/chat/completions", text))
        .await;
    let code = Some("integer_above_max_value");
    check(&answer, 400, Some("n"), code, "<= 128");
}

#[tokio::test]
async fn queries_are_read_where_there_are_any() {
    let server = server();
    let response = server.respond(json!({})).await.json();
    let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
    for (query, param) in [
        ("include[]=x", "include[]"),
        ("include=x", "include"),
        ("foo=1", "foo"),
    ] {
        let answer = server.get(&format!("{path}?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param);
    }
    for path in [
        &format!("{path}?include[]=message.output_text.logprobs"),
        "/v1/models?foo=2",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}
