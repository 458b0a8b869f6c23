//! Every kind of error, by status, type, code, param and message.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Answer, MODEL, Options, Server, chat_body, request};

pub(crate) fn check(
    answer: &Answer,
    status: u16,
    param: Option<&str>,
    code: Option<&str>,
    says: &str,
) {
    let body = answer.json();
    let context = &answer.text;
    assert_eq!(answer.status.as_u16(), status, "{context}");
    let error = &body["error"];
    assert_eq!(body.as_object().unwrap().len(), 1, "{context}");
    assert_eq!(error.as_object().unwrap().len(), 4, "{context}");
    assert_eq!(error["param"].as_str(), param, "{context}");
    assert_eq!(error["code"].as_str(), code, "{context}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(says), "no {says:?} in {context}");
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    assert!(answer.header("openai-processing-ms").is_some());
    if status < 500 && status != 429 {
        assert_eq!(error["type"], "invalid_request_error", "{context}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn parameters_of_chat() {
    let server = Server::start(Options::default());
    let cases: &[(Value, &str, &str, &str)] = &[
        (
            json!({"temperature": 2.5}),
            "temperature",
            "decimal_above_max_value",
            "<= 2, but got 2.5",
        ),
        (
            json!({"temperature": "hot"}),
            "temperature",
            "invalid_type",
            "but got a string instead",
        ),
        (
            json!({"top_p": -0.5}),
            "top_p",
            "decimal_below_min_value",
            ">= 0, but got -0.5",
        ),
        (
            json!({"n": 0}),
            "n",
            "integer_below_min_value",
            ">= 1, but got 0",
        ),
        (
            json!({"n": 129}),
            "n",
            "integer_above_max_value",
            "<= 128, but got 129",
        ),
        (
            json!({"n": 1.5}),
            "n",
            "invalid_type",
            "expected an integer",
        ),
        (json!({"n": true}), "n", "invalid_type", "a boolean"),
        (
            json!({"max_tokens": 0}),
            "max_tokens",
            "integer_below_min_value",
            ">= 1",
        ),
        (
            json!({"max_tokens": 4, "max_completion_tokens": 4}),
            "max_tokens",
            "invalid_parameter_combination",
            "at the same time",
        ),
        (
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            "stop",
            "array_above_max_length",
            "length 5",
        ),
        (
            json!({"stop": ["a", 1]}),
            "stop[1]",
            "invalid_type",
            "expected a string",
        ),
        (json!({"stop": ""}), "stop", "empty_string", "empty string"),
        (
            json!({"logit_bias": {"1": 101}}),
            "logit_bias.1",
            "decimal_above_max_value",
            "<= 100",
        ),
        (
            json!({"logit_bias": {"512": 1}}),
            "logit_bias",
            "invalid_value",
            "from 0 to 511",
        ),
        (
            json!({"logit_bias": {"x": 1}}),
            "logit_bias",
            "invalid_value",
            "'x'",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
            "integer_above_max_value",
            "<= 20",
        ),
        (json!({"seed": 1.5}), "seed", "invalid_type", "an integer"),
        (
            json!({"min_p": 2}),
            "min_p",
            "decimal_above_max_value",
            "<= 1",
        ),
        (
            json!({"stop": ["é".repeat(1000), "é".repeat(1001)]}),
            "stop[1]",
            "string_above_max_length",
            "with length 1001",
        ),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "chat_template_kwargs.messages",
            "invalid_value",
            "a parameter of its own",
        ),
        (
            json!({"repetition_penalty": 1e-50}),
            "repetition_penalty",
            "decimal_below_min_value",
            ">= 0.01",
        ),
        (
            json!({"min_tokens": 10, "max_tokens": 4}),
            "min_tokens",
            "integer_above_max_value",
            "<= 4",
        ),
        (
            json!({"messages": []}),
            "messages",
            "empty_array",
            "empty array",
        ),
        (
            json!({"messages": "hi"}),
            "messages",
            "invalid_type",
            "an array of objects",
        ),
        (
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            "messages[0].role",
            "invalid_value",
            "Invalid value: 'wizard'. Supported values are: 'system'",
        ),
        (
            json!({"messages": [{"role": "user", "content": 5}]}),
            "messages[0].content",
            "invalid_type",
            "one of a string or an array of content parts, but got an integer instead",
        ),
        (
            json!({"foo": 1}),
            "foo",
            "unknown_parameter",
            "Unknown parameter: 'foo'.",
        ),
        (
            json!({"stream_options": {"include_usage": true, "x": 1}, "stream": true}),
            "stream_options.x",
            "unknown_parameter",
            "Unknown parameter: 'stream_options.x'.",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
            "missing_required_parameter",
            "tools[0].function",
        ),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "unsupported_value",
            "'web_search'",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
            "invalid_value",
            "does not match pattern",
        ),
        (
            json!({"functions": []}),
            "functions",
            "unsupported_parameter",
            "not supported",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"type": "strnig"}}}}),
            "response_format",
            "invalid_json_schema",
            "Invalid schema for response_format 'x'",
        ),
        (
            json!({"regex": "("}),
            "regex",
            "invalid_grammar",
            "Invalid grammar in 'regex'",
        ),
        (
            json!({"regex": "a", "response_format": {"type": "json_object"}}),
            "regex",
            "invalid_parameter_combination",
            "cannot be combined",
        ),
        (
            json!({"response_format": {"type": "json_object"}, "ignore_eos": true}),
            "ignore_eos",
            "invalid_parameter_combination",
            "cannot be combined",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "tool_choice",
            "invalid_value",
            "Tool choice 'g' not found in 'tools' parameter.",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": true,
                "parameters": {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}}}]}),
            "tools[0].function.parameters",
            "invalid_function_parameters",
            "Invalid schema for function 'f'",
        ),
        (
            json!({"response_format": {"type": "yaml"}}),
            "response_format.type",
            "invalid_value",
            "'yaml'",
        ),
        (
            json!({"modalities": ["text", "audio"]}),
            "modalities",
            "unsupported_value",
            "text",
        ),
        (
            json!({"audio": {}}),
            "audio",
            "unsupported_parameter",
            "'audio'",
        ),
        (
            json!({"web_search_options": {}}),
            "web_search_options",
            "unsupported_parameter",
            "web",
        ),
        (
            json!({"store": "yes"}),
            "store",
            "invalid_type",
            "expected a boolean",
        ),
        (
            json!({"metadata": {"a": "b"}}),
            "metadata",
            "unsupported_parameter",
            "'store' is enabled",
        ),
        (
            json!({"reasoning_effort": "high"}),
            "reasoning_effort",
            "unsupported_parameter",
            "reasoning",
        ),
        (
            json!({"service_tier": "scale"}),
            "service_tier",
            "unsupported_value",
            "'scale'",
        ),
        (
            json!({"continue_final_message": true}),
            "continue_final_message",
            "invalid_value",
            "assistant",
        ),
    ];
    for (more, param, code, says) in cases {
        check(
            &server.chat(more.clone()).await,
            400,
            Some(param),
            Some(code),
            says,
        );
    }
    assert_eq!(server.metric("understudy_steps_failed_total"), 0.0);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn parameters_of_completions() {
    let server = Server::start(Options::default());
    let cases: &[(Value, &str, &str, &str)] = &[
        (
            json!({}),
            "prompt",
            "missing_required_parameter",
            "Missing required parameter: 'prompt'.",
        ),
        (
            json!({"prompt": []}),
            "prompt",
            "empty_array",
            "empty array",
        ),
        (json!({"prompt": {}}), "prompt", "invalid_type", "an object"),
        (
            json!({"prompt": ["a", 1]}),
            "prompt[1]",
            "invalid_type",
            "a string",
        ),
        (
            json!({"prompt": [1, "a"]}),
            "prompt[1]",
            "invalid_type",
            "an integer",
        ),
        (
            json!({"prompt": [[1], [600]]}),
            "prompt[1][0]",
            "invalid_value",
            "from 0 to 511",
        ),
        (
            json!({"prompt": [[]]}),
            "prompt[0]",
            "empty_array",
            "empty array",
        ),
        (
            json!({"prompt": "a", "logprobs": 6}),
            "logprobs",
            "integer_above_max_value",
            "<= 5",
        ),
        (
            json!({"prompt": "a", "max_tokens": 0}),
            "max_tokens",
            "integer_below_min_value",
            ">= 1",
        ),
        (
            json!({"prompt": "a", "n": 3, "best_of": 2}),
            "best_of",
            "integer_below_min_value",
            "'n' (3)",
        ),
        (
            json!({"prompt": "a", "best_of": 2, "stream": true}),
            "best_of",
            "unsupported_value",
            "stream",
        ),
        (
            json!({"prompt": "a", "suffix": "b"}),
            "suffix",
            "unsupported_parameter",
            "'suffix'",
        ),
        (
            json!({"prompt": "a", "messages": []}),
            "messages",
            "unknown_parameter",
            "'messages'",
        ),
    ];
    for (more, param, code, says) in cases {
        check(
            &server.complete(more.clone()).await,
            400,
            Some(param),
            Some(code),
            says,
        );
    }
}

#[tokio::test]
async fn parameters_without_code() {
    let server = Server::start(Options::default());
    let answer = server
        .chat(json!({"stream_options": {"include_usage": true}}))
        .await;
    check(
        &answer,
        400,
        Some("stream_options"),
        None,
        "when 'stream' is enabled",
    );
    let answer = server.chat(json!({"top_logprobs": 1})).await;
    check(
        &answer,
        400,
        Some("top_logprobs"),
        None,
        "when 'logprobs' is enabled",
    );
}

#[tokio::test]
async fn bodies_that_are_no_requests() {
    let server = Server::start(Options {
        max_body_bytes: 1000,
        ..Options::default()
    });
    let post = |body: &str| request(Method::POST, "/v1/chat/completions", body.to_owned());
    for (body, says) in [
        ("{\"model\": ", "could not parse the JSON body"),
        ("", "could not parse the JSON body"),
        ("[1]", "expected a JSON object, but got an array"),
        ("{\"model\": \"\\ud800\"}", "could not parse the JSON body"),
    ] {
        check(&server.call(post(body)).await, 400, None, None, says);
    }
    let answer = server.call(post("{}")).await;
    check(
        &answer,
        400,
        Some("model"),
        Some("missing_required_parameter"),
        "'model'",
    );
    let answer = server
        .call(post(
            &chat_body(json!({"user": "x".repeat(2000)})).to_string(),
        ))
        .await;
    check(&answer, 413, None, Some("request_too_large"), "1000 bytes");
}

#[tokio::test]
async fn wrong_places() {
    let server = Server::start(Options::default());
    let answer = server.get("/v1/nope").await;
    check(&answer, 404, None, None, "Invalid URL (GET /v1/nope)");
    let answer = server.get("/v1/completions").await;
    check(
        &answer,
        405,
        None,
        Some("method_not_supported"),
        "Not allowed to GET",
    );
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = server.chat(json!({"model": "gpt-4o"})).await;
    let says = "The model `gpt-4o` does not exist or you do not have access to it. This server \
                serves: `org/mini:v1`, `alias`.";
    check(&answer, 404, None, Some("model_not_found"), says);
}

#[tokio::test]
async fn context_overflow_counts() {
    let server = Server::start(Options {
        max_model_len: 64,
        ..Options::default()
    });
    let long = json!([{"role": "user", "content": "x y ".repeat(100)}]);
    let answer = server.chat(json!({"messages": long})).await;
    let says =
        "This model's maximum context length is 64 tokens. However, your messages resulted in ";
    check(
        &answer,
        400,
        Some("messages"),
        Some("context_length_exceeded"),
        says,
    );
    let answer = server.chat(json!({"max_tokens": 64})).await;
    check(
        &answer,
        400,
        Some("messages"),
        Some("context_length_exceeded"),
        "64 in the completion)",
    );
    let answer = server
        .complete(json!({"prompt": [1, 2, 3], "max_tokens": 62}))
        .await;
    let says =
        "is 64 tokens, however you requested 65 tokens (3 in your prompt; 62 for the completion)";
    check(
        &answer,
        400,
        Some("prompt"),
        Some("context_length_exceeded"),
        says,
    );
    // The default length of a completion is cut instead: nobody asked for it.
    let prompt = vec![9; 60];
    let answer = server
        .complete(json!({"prompt": prompt, "ignore_eos": true}))
        .await;
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn keys() {
    let server = Server::start(Options {
        keys: vec!["sk-a", "sk-b"],
        ..Options::default()
    });
    let get = |path: &str, key: Option<&str>| {
        let mut request = request(Method::GET, path, String::new());
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("authorization", key.parse().unwrap());
        }
        request
    };
    for path in ["/v1/models", "/metrics", "/v1/nope"] {
        for (key, says) in [
            (None, "You didn't provide an API key"),
            (Some("Bearer sk-x"), "Incorrect API key"),
            (Some("Basic sk-a"), "malformed"),
            (Some("Bearer "), "malformed"),
        ] {
            let answer = server.call(get(path, key)).await;
            check(&answer, 401, None, Some("invalid_api_key"), says);
        }
    }
    for key in ["Bearer sk-a", "bearer sk-b"] {
        let answer = server.call(get("/v1/models", Some(key))).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(server.get("/health").await.status, StatusCode::OK);
}

#[tokio::test]
async fn base_models_do_not_chat() {
    let server = Server::start(Options {
        has_template: false,
        ..Options::default()
    });
    let answer = server.chat(json!({})).await;
    check(
        &answer,
        404,
        Some("model"),
        None,
        "Did you mean to use v1/completions?",
    );
    let answer = server
        .complete(json!({"prompt": "Hi", "model": MODEL}))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}
