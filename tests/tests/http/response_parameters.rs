//! What requests for responses may ask, and what they are refused.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::errors::check;
use crate::responses::{n_input, server, weather};
use crate::server::{Options, Server, TEMPLATE};

#[tokio::test]
async fn what_does_not_fit_is_refused_or_cut() {
    let server = Server::start(Options {
        max_model_len: 120,
        template: TEMPLATE,
        ..Options::default()
    });
    let turns: Vec<Value> = (0..8)
        .flat_map(|i| {
            [
                json!({"role": "user", "content": format!("Tell me of number {i}")}),
                json!({"role": "assistant", "content": "Gladly."}),
            ]
        })
        .chain([json!({"role": "user", "content": "Now."})])
        .collect();
    let ask = json!({"instructions": "Be brief.", "input": turns});
    let refused = server.respond(ask.clone()).await;
    let code = Some("context_length_exceeded");
    check(
        &refused,
        400,
        Some("input"),
        code,
        "maximum context length is 120 tokens",
    );
    let mut ask = ask;
    ask["truncation"] = json!("auto");
    let cut = server.respond(ask).await;
    assert_eq!(cut.status, StatusCode::OK, "{}", cut.text);
    let n_input = n_input(&cut.json());
    assert!((60..=105).contains(&n_input), "{n_input}");
    let long = json!({"input": "word ".repeat(200), "truncation": "auto"});
    check(&server.respond(long).await, 400, Some("input"), code, "");
}

#[tokio::test]
async fn tokens_are_counted_without_an_answer() {
    let server = server();
    let counted = server
        .post(
            "/v1/responses/input_tokens",
            &json!({"model": "alias", "input": "Hi"}),
        )
        .await
        .json();
    let whole = server.respond(json!({})).await.json();
    assert_eq!(
        counted,
        json!({"object": "response.input_tokens", "input_tokens": whole["usage"]["input_tokens"]})
    );
    let answer = server.post("/v1/responses/compact", &json!({})).await;
    check(
        &answer,
        404,
        None,
        Some("unsupported_endpoint"),
        "'truncation': 'auto'",
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn parameters_of_responses() {
    let server = server();
    let cases = [
        (json!({"n": 2}), "n", "unknown_parameter"),
        (json!({"messages": []}), "messages", "unknown_parameter"),
        (
            json!({"max_output_tokens": 15}),
            "max_output_tokens",
            "integer_below_min_value",
        ),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "unsupported_value",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].name",
            "missing_required_parameter",
        ),
        (
            json!({"tools": [{"type": "function", "name": "f", "strict": true,
                "parameters": {"type": "strnig"}}]}),
            "tools[0].parameters",
            "invalid_function_parameters",
        ),
        (
            json!({"input": [{"type": "mcp_call"}]}),
            "input[0].type",
            "unsupported_value",
        ),
        (
            json!({"input": [{"type": "song"}]}),
            "input[0].type",
            "invalid_value",
        ),
        (
            json!({"input": [{"content": "x"}]}),
            "input[0].type",
            "missing_required_parameter",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].type",
            "unsupported_value",
        ),
        (
            json!({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}),
            "input[0].encrypted_content",
            "unsupported_value",
        ),
        (json!({"include": ["x"]}), "include[0]", "invalid_value"),
        (
            json!({"reasoning": {"effort": "low"}}),
            "reasoning.effort",
            "unsupported_parameter",
        ),
        (
            json!({"prompt": {"id": "p"}}),
            "prompt",
            "unsupported_parameter",
        ),
        (json!({"metadata": {"a": 1}}), "metadata.a", "invalid_type"),
        (
            json!({"background": true, "store": false}),
            "background",
            "invalid_parameter_combination",
        ),
        (
            json!({"conversation": "conv_1", "previous_response_id": "resp_1"}),
            "previous_response_id",
            "invalid_parameter_combination",
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "s",
                "schema": {"type": "strnig"}}}}),
            "text.format",
            "invalid_json_schema",
        ),
        (
            json!({"text": {"format": {"type": "xml"}}}),
            "text.format.type",
            "invalid_value",
        ),
        (
            json!({"stream_options": {"include_usage": true}, "stream": true}),
            "stream_options.include_usage",
            "unknown_parameter",
        ),
        (json!({"input": null}), "input", "invalid_type"),
        (
            json!({"tools": [{"type": "function", "name": "f"}], "tool_choice":
                {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "name": "f"}]}}),
            "tool_choice.tools[0].type",
            "unsupported_value",
        ),
        (
            json!({"prompt_cache_options": {"foo": 1}}),
            "prompt_cache_options.foo",
            "unknown_parameter",
        ),
    ];
    for (more, param, code) in cases {
        check(
            &server.respond(more).await,
            400,
            Some(param),
            Some(code),
            "",
        );
    }
}

#[tokio::test]
async fn formats_are_enforced() {
    let server = Server::start(Options {
        max_model_len: 1000,
        ..Options::default()
    });
    let format = json!({"type": "json_schema", "name": "colour", "strict": true,
        "schema": {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"], "additionalProperties": false}});
    let body = server
        .respond(json!({"text": {"format": format}}))
        .await
        .json();
    let text = body["output"][0]["content"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert!(
        value["colour"] == "red" || value["colour"] == "blue",
        "{text}"
    );
    assert_eq!(body["text"]["format"], format);
    let forced = json!({"type": "function", "name": "get_weather"});
    let body = server
        .respond(json!({"tools": weather(), "tool_choice": forced}))
        .await
        .json();
    let call = &body["output"][0];
    assert_eq!(call["name"], "get_weather");
    assert!(call["id"].as_str().unwrap().starts_with("fc_"));
    assert!(call["call_id"].as_str().unwrap().starts_with("call_"));
}
