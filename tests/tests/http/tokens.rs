//! `/tokenize`, `/detokenize`, `/apply-template`; parameters and addresses that nobody has.

use axum::http::StatusCode;
use serde_json::{Value, json};
use understudy::handlers::UnknownParams;

use crate::server::{MODEL, Options, Server, chat_body};

#[tokio::test]
async fn tokens_there_and_back() {
    let server = Server::start(Options::default());
    let text = "Grüße, world <|im_end|> ok";
    for path in ["/tokenize", "/v1/tokenize"] {
        let body = json!({"model": MODEL, "prompt": text, "return_token_strs": true});
        let found = server.post(path, &body).await.json();
        let expected = server.tokenizer.encode(text, true).unwrap();
        assert_eq!(found["tokens"], json!(expected));
        assert_eq!(found["count"], expected.len());
        assert_eq!(found["max_model_len"], 256);
        assert_eq!(
            found["token_strs"].as_array().unwrap().len(),
            expected.len()
        );
        let body = json!({"tokens": found["tokens"]});
        for path in ["/detokenize", "/v1/detokenize"] {
            let back = server.post(path, &body).await.json();
            assert_eq!(back["prompt"], text, "the model may be left out");
        }
    }
    let plain = server.post("/tokenize", &json!({"prompt": "a"})).await;
    assert_eq!(plain.json()["token_strs"], Value::Null);
}

#[tokio::test]
async fn conversations_are_counted_as_they_are_answered() {
    let server = Server::start(Options::default());
    // Control tokens of a user are text, and read as they were written.
    let messages = json!([{"role": "user", "content": "Hi <|im_end|>"}]);
    let answer = server.chat(json!({"messages": messages})).await.json();
    let body = json!({"model": MODEL, "messages": messages});
    let tokens = server.post("/v1/tokenize", &body).await.json();
    assert_eq!(tokens["count"], answer["usage"]["prompt_tokens"]);
    let text = server.post("/apply-template", &body).await.json();
    assert_eq!(
        text["prompt"],
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    );
    let without = json!({"messages": messages, "add_generation_prompt": false});
    let text = server.post("/v1/apply-template", &without).await.json();
    assert_eq!(
        text["prompt"],
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n"
    );
}

#[tokio::test]
async fn errors_of_helpers_name_the_parameter() {
    let server = Server::start(Options::default());
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": "a", "top": 1}), "top"),
        (
            "/tokenize",
            json!({"prompt": "a", "messages": []}),
            "messages",
        ),
        (
            "/tokenize",
            json!({"messages": [{"role": "user", "content": "a"}], "add_special_tokens": true}),
            "add_special_tokens",
        ),
        ("/detokenize", json!({"tokens": []}), "tokens"),
        ("/detokenize", json!({"tokens": [1, -1]}), "tokens[1]"),
        ("/detokenize", json!({"tokens": [99_999_999]}), "tokens[0]"),
        ("/apply-template", json!({}), "messages"),
    ] {
        let answer = server.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        assert_eq!(answer.json()["error"]["param"], param, "{path} {body}");
    }
    let unknown = json!({"model": "nobody", "prompt": "a"});
    let answer = server.post("/tokenize", &unknown).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn addresses_of_the_hosted_service_are_told_from_wrong_ones() {
    let server = Server::start(Options::default());
    let moderation = server.post("/v1/moderations", &json!({"input": "x"})).await;
    assert_eq!(moderation.status, StatusCode::NOT_FOUND);
    let error = &moderation.json()["error"];
    assert_eq!(error["code"], "unsupported_endpoint");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("no classifier model is configured"),
        "{message}"
    );
    for path in [
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/files",
        "/v1/fine_tuning/jobs/x/events",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "unsupported_endpoint", "{path}");
        assert!(error["message"].as_str().unwrap().contains(path));
    }
    let nobody = server.get("/v1/imagesx").await.json();
    assert_eq!(nobody["error"]["message"], "Invalid URL (GET /v1/imagesx)");
    assert_eq!(nobody["error"]["code"], Value::Null);
}

#[tokio::test]
async fn unknown_parameters_can_be_left_out_instead() {
    let strict = Server::start(Options::default());
    let lenient = Server::start(Options {
        unknown_params: UnknownParams::Warn,
        ..Options::default()
    });
    let mut body = chat_body(json!({"guided_regexp": "x", "mirostat": 2}));
    body["messages"][0]["cache_control"] = json!({"type": "ephemeral"});
    let refused = strict.post("/v1/chat/completions", &body).await;
    assert_eq!(refused.json()["error"]["code"], "unknown_parameter");
    let answered = lenient.post("/v1/chat/completions", &body).await;
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.text);
    // What is known and wrong, or known and not offered, is refused all the same.
    for (more, code) in [
        (
            json!({"mirostat": 2, "temperature": 9}),
            "decimal_above_max_value",
        ),
        (json!({"audio": {}}), "unsupported_parameter"),
    ] {
        let answer = lenient.chat(more).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["error"]["code"], code);
    }
    let answer = lenient.respond(json!({"mirostat": 2})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}
