//! Whole answers, field by field.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{MODEL, Options, Server};

fn saying(text: &'static str) -> Server {
    Server::start(Options {
        says: Some(text),
        ..Options::default()
    })
}

/// The body without what differs from call to call.
fn fixed(mut body: Value, prefix: &str) -> Value {
    let id = body["id"].take();
    assert!(id.as_str().unwrap().starts_with(prefix), "{id}");
    assert!(body["created"].take().as_u64().unwrap() > 1_700_000_000);
    body.as_object_mut()
        .unwrap()
        .retain(|name, _| name != "id" && name != "created");
    body
}

fn usage(prompt: u64, completion: u64, cached: u64) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

#[tokio::test]
async fn chat_body_is_exact() {
    let server = saying("Hello there");
    let n_said = server.tokenizer.encode("Hello there", false).unwrap().len() as u64 + 1;
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let n_prompt = server.tokenizer.encode(prompt, false).unwrap().len() as u64;
    let answer = server.chat(json!({})).await;
    let expected = json!({
        "object": "chat.completion", "model": MODEL,
        "choices": [{"index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": null, "annotations": []},
            "logprobs": null, "finish_reason": "stop"}],
        "usage": usage(n_prompt, n_said, 0),
        "service_tier": "default", "system_fingerprint": "fp_test",
    });
    assert_eq!(fixed(answer.json(), "chatcmpl-"), expected);
    // Blocks of 4 tokens; the last token of a prompt is always computed.
    let again = server.chat(json!({"n": 3})).await.json();
    assert_eq!(
        again["usage"],
        usage(n_prompt, 3 * n_said, (n_prompt - 1) / 4 * 4)
    );
    assert_eq!(again["choices"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn completion_body_is_exact() {
    let server = saying(" there");
    let n_said = server.tokenizer.encode(" there", false).unwrap().len() as u64 + 1;
    let n_prompt = server.tokenizer.encode("Hello", true).unwrap().len() as u64;
    let answer = server.complete(json!({"prompt": "Hello"})).await;
    let expected = json!({
        "object": "text_completion", "model": MODEL,
        "choices": [{"text": " there", "index": 0, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage(n_prompt, n_said, 0), "system_fingerprint": "fp_test",
    });
    assert_eq!(fixed(answer.json(), "cmpl-"), expected);
    let several = server
        .complete(json!({"prompt": ["a", "b"], "n": 2, "echo": true}))
        .await
        .json();
    let choices = several["choices"].as_array().unwrap();
    let texts: Vec<&str> = choices
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["a there", "a there", "b there", "b there"]);
    let indices: Vec<u64> = choices
        .iter()
        .map(|choice| choice["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 2, 3]);
}

#[tokio::test]
async fn length_and_extensions() {
    let server = saying("Hello there");
    let short = server
        .chat(json!({"max_completion_tokens": 1}))
        .await
        .json();
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 1);
    let endless = server
        .complete(json!({"prompt": "x", "ignore_eos": true}))
        .await
        .json();
    assert_eq!(endless["usage"]["completion_tokens"], 16);
    assert_eq!(endless["choices"][0]["finish_reason"], "length");
    let accepted = json!({
        "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "auto",
        "verbosity": "low", "store": false, "metadata": {}, "parallel_tool_calls": true,
        "tool_choice": "none", "modalities": ["text"], "response_format": {"type": "text"},
        "prediction": {"type": "content", "content": "x"}, "reasoning_effort": "none",
        "seed": -1, "logit_bias": null, "chat_template_kwargs": {"x": 1}, "top_k": -1,
    });
    assert_eq!(server.chat(accepted).await.status, StatusCode::OK);
}

#[tokio::test]
async fn stop_strings_end_the_text_and_are_not_in_it() {
    let server = saying("one two END three");
    for stop in [json!("END"), json!(["zzz", "END"]), json!(" END th")] {
        let answer = server
            .chat(json!({"stop": stop.clone(), "logprobs": true}))
            .await
            .json();
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap();
        assert_eq!(text.trim_end(), "one two", "{stop}");
        assert_eq!(choice["finish_reason"], "stop");
        let content = choice["logprobs"]["content"].as_array().unwrap();
        let tokens: String = content
            .iter()
            .map(|token| token["token"].as_str().unwrap())
            .collect();
        assert!(
            tokens.starts_with(text) && tokens.len() < text.len() + 5,
            "{tokens:?}"
        );
    }
    // What looks like the beginning of a stop string and is none comes out at the end.
    let answer = server.chat(json!({"stop": "three!"})).await.json();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "one two END three"
    );
    // Before `min_tokens`, stop strings do not count.
    let answer =
        server.chat(json!({"stop": "END", "min_tokens": 40, "ignore_eos": true, "max_tokens": 40}));
    assert_eq!(answer.await.json()["choices"][0]["finish_reason"], "length");
    server.wait_until_idle().await;
}

#[tokio::test]
async fn chat_logprobs_have_exact_bytes() {
    let server = saying("é🙂");
    let answer = server
        .chat(json!({"logprobs": true, "top_logprobs": 2}))
        .await
        .json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "é🙂");
    let content = choice["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(bytes, "é🙂".as_bytes());
    assert!(content.len() > 2, "the smiley must be several tokens");
    assert!(
        content
            .iter()
            .any(|token| token["token"].as_str().unwrap().contains('\u{fffd}'))
    );
    for token in content {
        assert_eq!(token["logprob"], -0.5);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    assert_eq!(choice["logprobs"]["refusal"], Value::Null);
}

#[tokio::test]
async fn token_ids_stand_for_text() {
    let server = saying("Hello there");
    let more = json!({"logprobs": true, "return_tokens_as_token_ids": true});
    let answer = server.chat(more).await.json();
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    let expected: Vec<String> = server
        .tokenizer
        .encode("Hello there", false)
        .unwrap()
        .iter()
        .map(|id| format!("token_id:{id}"))
        .collect();
    let found: Vec<&str> = content
        .iter()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn echo_scores_the_prompt() {
    let server = saying(" there");
    let more = json!({"prompt": "Hello wörld", "echo": true, "max_tokens": 0, "logprobs": 2});
    let answer = server.complete(more).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "Hello wörld");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let n_prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    let logprobs = &choice["logprobs"];
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[name].as_array().unwrap().len(), n_prompt, "{name}");
    }
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert!(logprobs["token_logprobs"][1].as_f64().unwrap() <= 0.0);
    let n_top = logprobs["top_logprobs"][1].as_object().unwrap().len();
    assert!((2..=3).contains(&n_top));
    // With generated text behind it, offsets go on where the prompt ends.
    let more = json!({"prompt": "Hello", "echo": true, "max_tokens": 40, "logprobs": 0});
    let choice = server.complete(more).await.json()["choices"][0].take();
    assert_eq!(choice["text"], "Hello there");
    let logprobs = &choice["logprobs"];
    let tokens: Vec<&str> = logprobs["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(tokens.concat(), "Hello there");
    let mut offset = 0;
    for (token, found) in tokens
        .iter()
        .zip(logprobs["text_offset"].as_array().unwrap())
    {
        assert_eq!(found.as_u64().unwrap(), offset);
        offset += token.chars().count() as u64;
    }
}

#[tokio::test]
async fn models_are_found_by_encoded_ids() {
    let server = saying("x");
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [MODEL, "alias"]);
    let expected =
        json!({"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "understudy"});
    for path in ["/v1/models/org%2Fmini%3Av1", "/v1/models/org/mini:v1"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.json(), expected);
    }
    let answer = server.get("/v1/models/org%2Fother").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    assert_eq!(
        server.get("/v1/models/%ff").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_final_message_is_continued() {
    let server = saying(" there");
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]);
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello";
    let n_prompt = server.tokenizer.encode(prompt, false).unwrap().len();
    let more = json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": false});
    let answer = server.chat(more).await.json();
    assert_eq!(answer["usage"]["prompt_tokens"], n_prompt);
    assert_eq!(answer["choices"][0]["message"]["content"], " there");
}
