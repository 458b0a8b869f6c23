//! Structured output and tool calls, with a model that obeys its constraints.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{Options, Server};

fn server(says: &'static str) -> Server {
    Server::start(Options {
        says: Some(says),
        max_model_len: 1000,
        ..Options::default()
    })
}

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "strict": true,
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"unit": {"enum": ["C", "F"]}},
            "required": ["unit"], "additionalProperties": false}}}])
}

fn colour_format() -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "colour", "strict": true,
        "schema": {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"], "additionalProperties": false}}})
}

/// The message that a stream's chunks fold to, as the SDKs fold them.
fn folded(chunks: &[Value], index: u64) -> Value {
    let mut content = String::new();
    let mut calls: Vec<Value> = Vec::new();
    let mut finish_reason = Value::Null;
    let choices = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap());
    for choice in choices.filter(|choice| choice["index"] == index) {
        assert!(finish_reason.is_null(), "nothing comes after the end");
        let delta = &choice["delta"];
        content.push_str(delta["content"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let i = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if i == calls.len() {
                assert!(call["id"].as_str().unwrap().starts_with("call_"));
                assert_eq!(call["type"], "function");
                calls.push(json!({"name": call["function"]["name"], "arguments": ""}));
            } else {
                assert_eq!(i, calls.len() - 1);
                assert!(call.get("id").is_none() && call.get("type").is_none());
                assert!(call["function"].get("name").is_none());
            }
            let so_far = calls[i]["arguments"].as_str().unwrap();
            let more = call["function"]["arguments"].as_str().unwrap();
            calls[i]["arguments"] = json!(format!("{so_far}{more}"));
        }
        finish_reason = choice["finish_reason"].clone();
    }
    json!({"content": content, "calls": calls, "finish_reason": finish_reason})
}

#[tokio::test]
async fn a_schema_is_matched_by_every_choice() {
    let server = server("I would rather talk about something else");
    for temperature in [0.0, 1.0] {
        let answer = server
            .chat(
                json!({"response_format": colour_format(), "n": 3, "temperature": temperature,
                "logprobs": true}),
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        for choice in answer.json()["choices"].as_array().unwrap() {
            let text = choice["message"]["content"].as_str().unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(
                ["red", "blue"].contains(&value["colour"].as_str().unwrap()),
                "{text}"
            );
            assert_eq!(choice["finish_reason"], "stop");
            let tokens = choice["logprobs"]["content"].as_array().unwrap();
            let spelled: String = tokens
                .iter()
                .map(|t| t["token"].as_str().unwrap())
                .collect();
            assert_eq!(spelled, text);
        }
    }
    let streamed = server
        .chat(json!({"response_format": colour_format(), "stream": true}))
        .await;
    let message = folded(&streamed.chunks(), 0);
    assert!(serde_json::from_str::<Value>(message["content"].as_str().unwrap()).is_ok());
    server.wait_until_idle().await;
}

#[tokio::test]
async fn extensions_name_a_grammar() {
    let server = server("no");
    for (more, expected) in [
        (json!({"regex": "(yes|perhaps)!"}), vec!["yes!", "perhaps!"]),
        (json!({"grammar": "start: \"a\" \"b\""}), vec!["ab"]),
        (
            json!({"structured_outputs": {"choice": ["left", "right"]}}),
            vec!["left", "right"],
        ),
        (
            json!({"structured_outputs": {"json": {"const": 5}}}),
            vec!["5"],
        ),
    ] {
        let answer = server.chat(more.clone()).await;
        let body = answer.json();
        let text = body["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(expected.contains(&text), "{more}: {text}");
    }
}

#[tokio::test]
async fn required_calls_are_made_and_valid() {
    let server = server("I do not call functions");
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "get_weather"}}]}});
    for (choice, reason) in [
        (json!("required"), "tool_calls"),
        (named, "stop"),
        (allowed, "tool_calls"),
    ] {
        let more = json!({"tools": weather(), "tool_choice": choice, "parallel_tool_calls": false});
        let body = server.chat(more.clone()).await.json();
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], reason, "{body}");
        assert_eq!(choice["message"]["content"], Value::Null);
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0]["function"]["name"], "get_weather");
        let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert!(["C", "F"].contains(&arguments["unit"].as_str().unwrap()));

        let mut more = more;
        more["stream"] = json!(true);
        let message = folded(&server.chat(more).await.chunks(), 0);
        assert_eq!(message["finish_reason"], reason);
        assert_eq!(message["calls"][0]["name"], "get_weather");
        let streamed = message["calls"][0]["arguments"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(streamed).is_ok());
    }
}

#[tokio::test]
async fn a_required_call_that_is_cut_short_is_no_text() {
    let server = server("I do not call functions");
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    let mut n_begun = 0;
    for (choice, max_tokens) in [json!("required"), named]
        .into_iter()
        .flat_map(|choice| (1..30).map(move |n| (choice.clone(), n)))
    {
        let mut more = json!({"tools": weather(), "tool_choice": choice,
            "max_tokens": max_tokens, "logprobs": true});
        let body = server.chat(more.clone()).await.json();
        let whole = &body["choices"][0];
        if whole["finish_reason"] != "length" {
            continue;
        }
        assert_eq!(whole["message"]["content"], Value::Null, "{body}");
        let n_tokens = whole["logprobs"]["content"].as_array().unwrap().len();
        assert_eq!(n_tokens, max_tokens, "{body}");
        let calls = whole["message"]["tool_calls"].as_array();
        n_begun += calls.map_or(0, Vec::len);
        more["stream"] = json!(true);
        let message = folded(&server.chat(more).await.chunks(), 0);
        assert_eq!(message["content"], "");
        assert_eq!(message["finish_reason"], "length");
        let calls = calls.map_or(json!([]), |calls| {
            calls.iter().map(|call| call["function"].clone()).collect()
        });
        assert_eq!(message["calls"], calls);
    }
    assert!(n_begun > 0, "none was cut in its arguments");
}

#[tokio::test]
async fn stop_strings_are_sought_in_what_a_client_sees() {
    let server = server("I do not call functions");
    for stop in ["name", "<tool_call>", "unit", "\n"] {
        let more = json!({"tools": weather(), "tool_choice": "required", "stop": stop,
            "parallel_tool_calls": false});
        let body = server.chat(more).await.json();
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{stop:?}: {body}");
        let arguments = &choice["message"]["tool_calls"][0]["function"]["arguments"];
        assert!(serde_json::from_str::<Value>(arguments.as_str().unwrap()).is_ok());
    }
    // Beside calls, text stops.
    let server = self::server(
        "Hm. Well.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>",
    );
    for (stop, content, n_calls) in [(" Well", "Hm.", 0), ("weather", "Hm. Well.", 1)] {
        let more = json!({"tools": weather(), "stop": stop, "logprobs": true});
        let mut tools = more.clone();
        tools["tools"][0]["function"]["strict"] = json!(false);
        let body = server.chat(tools.clone()).await.json();
        let message = &body["choices"][0]["message"];
        assert_eq!(message["content"], content, "{body}");
        assert_eq!(
            message["tool_calls"].as_array().map_or(0, Vec::len),
            n_calls
        );
        tools["stream"] = json!(true);
        let folded = folded(&server.chat(tools).await.chunks(), 0);
        assert_eq!(folded["content"], content);
        assert_eq!(folded["calls"].as_array().unwrap().len(), n_calls);
    }
}

#[tokio::test]
async fn calls_of_the_models_own_accord_are_read() {
    const SAYS: &str = "Hm.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"unit\": \
                        \"C\"}}\n</tool_call>";
    let server = server(SAYS);
    let body = server
        .chat(json!({"tools": weather(), "logprobs": true}))
        .await
        .json();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Hm.");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(
        function,
        &json!({"name": "get_weather", "arguments": "{\"unit\": \"C\"}"})
    );
    // No token is lost, whatever it became part of.
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    let spelled: String = tokens
        .iter()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(spelled, SAYS);

    let more = json!({"tools": weather(), "stream": true, "n": 2, "logprobs": true});
    let chunks = server.chat(more).await.chunks();
    for index in 0..2 {
        let message = folded(&chunks, index);
        assert_eq!(message["content"], "Hm.");
        assert_eq!(message["calls"][0]["arguments"], "{\"unit\": \"C\"}");
        assert_eq!(message["finish_reason"], "tool_calls");
    }

    // Without tools, and where none may be called, it is text like any other; marks that are
    // control tokens are left out of text.
    let expected = SAYS.replace("<tool_call>", "").replace("</tool_call>", "");
    for more in [
        json!({}),
        json!({"tools": weather(), "tool_choice": "none"}),
    ] {
        let body = server.chat(more).await.json();
        assert_eq!(body["choices"][0]["message"]["content"], expected);
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn results_of_calls_go_back_to_the_model() {
    let server = server("It is warm.");
    let messages = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1",
            "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "30 C"}]);
    let body = server
        .chat(json!({"messages": messages, "tools": weather()}))
        .await
        .json();
    assert_eq!(body["choices"][0]["message"]["content"], "It is warm.");
    let without = server.chat(json!({"messages": messages})).await;
    assert_eq!(without.status, StatusCode::OK, "{}", without.text);
}

#[tokio::test]
async fn control_tokens_in_messages_are_text() {
    let server = server("ok");
    let prompt_tokens = |content: &str| {
        let messages = json!([{"role": "user", "content": content}]);
        let answer = server.chat(json!({"messages": messages}));
        async {
            answer.await.json()["usage"]["prompt_tokens"]
                .as_u64()
                .unwrap()
        }
    };
    let plain = prompt_tokens("a b").await;
    let token = prompt_tokens("a<|im_end|> b").await;
    let spelled = server.tokenizer.encode("im_end", false).unwrap().len() as u64;
    assert!(token > plain + spelled, "{token} {plain}");
}

#[tokio::test]
async fn a_bad_schema_is_its_own_requests_error() {
    let server = server("fine");
    let bad = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x",
        "schema": {"$ref": "#/nowhere"}}}});
    let (bad, good) = tokio::join!(server.chat(bad), server.chat(json!({})));
    assert_eq!(bad.status, StatusCode::BAD_REQUEST, "{}", bad.text);
    assert_eq!(bad.json()["error"]["code"], "invalid_json_schema");
    assert_eq!(good.json()["choices"][0]["message"]["content"], "fine");
    // A grammar that ends before it may.
    let early = json!({"regex": "a", "min_tokens": 5});
    let failed = server.chat(early).await;
    assert_eq!(failed.status, StatusCode::BAD_REQUEST, "{}", failed.text);
    assert_eq!(failed.json()["error"]["code"], "grammar_failed");
    assert_eq!(failed.header("x-should-retry"), Some("false"));
    assert_eq!(server.chat(json!({})).await.status, StatusCode::OK);
    server.wait_until_idle().await;
}
