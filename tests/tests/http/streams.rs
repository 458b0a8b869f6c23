//! Streams, byte by byte.

use serde_json::{Value, json};

use crate::server::{MODEL, Options, Server};

fn saying(text: &'static str) -> Server {
    Server::start(Options {
        says: Some(text),
        ..Options::default()
    })
}

/// The events with id and time replaced, which must be the same in all.
fn snapshot(text: &str) -> String {
    let first: Value =
        serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let id = first["id"].as_str().unwrap();
    let created = format!("\"created\":{}", first["created"]);
    text.replace(id, "ID").replace(&created, "\"created\":0")
}

#[tokio::test]
async fn chat_stream_is_exact() {
    let server = saying("AB");
    let answer = server
        .chat(json!({"stream": true, "stream_options": {"include_usage": true}}))
        .await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let head = format!(
        r#"{{"id":"ID","object":"chat.completion.chunk","created":0,"model":"{MODEL}","service_tier":"default","system_fingerprint":"fp_test","choices":["#
    );
    let chunk = |delta: &str, reason: &str| {
        format!(
            "data: {head}{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{reason}}}],\"usage\":null}}\n\n"
        )
    };
    let n_prompt = answer.chunks().last().unwrap()["usage"]["prompt_tokens"]
        .as_u64()
        .unwrap();
    let expected = [
        chunk(
            r#"{"role":"assistant","content":"","refusal":null}"#,
            "null",
        ),
        chunk(r#"{"content":"A"}"#, "null"),
        chunk(r#"{"content":"B"}"#, "null"),
        chunk("{}", "\"stop\""),
        format!(
            "data: {head}],\"usage\":{{\"prompt_tokens\":{n_prompt},\"completion_tokens\":3,\"total_tokens\":{},\
             \"prompt_tokens_details\":{{\"cached_tokens\":0,\"audio_tokens\":0}},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":0,\"audio_tokens\":0,\
             \"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}}}\n\n",
            n_prompt + 3
        ),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(snapshot(&answer.text), expected.concat());
}

#[tokio::test]
async fn without_include_usage_there_is_none() {
    let server = saying("AB");
    let answer = server.chat(json!({"stream": true})).await;
    for chunk in answer.chunks() {
        assert!(!chunk.as_object().unwrap().contains_key("usage"));
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn roles_of_all_choices_come_first_in_order() {
    let server = Server::start(Options {
        says: None,
        max_sequences: 3,
        ..Options::default()
    });
    let answer = server
        .chat(json!({"stream": true, "n": 8, "max_tokens": 5, "ignore_eos": true}))
        .await;
    let chunks = answer.chunks();
    for (i, chunk) in chunks.iter().enumerate() {
        let choice = &chunk["choices"][0];
        assert_eq!(choice["delta"].get("role").is_some(), i < 8, "{choice}");
        if i < 8 {
            assert_eq!(choice["index"], i);
        }
    }
    let ends: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0])
        .filter(|choice| !choice["finish_reason"].is_null())
        .collect();
    assert_eq!(ends.len(), 8);
    assert!(
        ends.iter()
            .all(|end| end["delta"] == json!({}) && end["finish_reason"] == "length")
    );
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let server = saying("héllo 🙂🙂 wörld, one STO two STOP three");
    for more in [
        json!({}),
        json!({"stop": "STOP"}),
        json!({"logprobs": true, "top_logprobs": 1}),
    ] {
        let whole = server.chat(more.clone()).await.json();
        let mut streaming = more.clone();
        streaming["stream"] = json!(true);
        let chunks = server.chat(streaming).await.chunks();
        let deltas = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        let text: String = deltas.clone().collect();
        assert_eq!(whole["choices"][0]["message"]["content"], text);
        assert!(
            deltas.clone().all(|delta| !delta.contains('\u{fffd}')),
            "half a character was sent"
        );
        assert!(deltas.skip(1).all(|delta| !delta.is_empty()));
        let mut logprobs = Vec::new();
        for chunk in &chunks {
            let content = chunk["choices"][0]["logprobs"]["content"].as_array();
            logprobs.extend(content.into_iter().flatten().cloned());
        }
        let expected = whole["choices"][0]["logprobs"]["content"].as_array();
        assert_eq!(&logprobs, expected.unwrap_or(&Vec::new()));
    }
}

#[tokio::test]
async fn completion_stream_is_exact() {
    let server = saying("AB");
    let answer = server
        .complete(json!({"prompt": "Hi", "stream": true, "echo": true}))
        .await;
    let chunk = |text: &str, reason: &str| {
        format!(
            "data: {{\"id\":\"ID\",\"object\":\"text_completion\",\"created\":0,\"model\":\"{MODEL}\",\
         \"choices\":[{{\"text\":\"{text}\",\"index\":0,\"logprobs\":null,\"finish_reason\":{reason}}}],\
         \"system_fingerprint\":\"fp_test\"}}\n\n"
        )
    };
    let expected = [
        chunk("Hi", "null"),
        chunk("A", "null"),
        chunk("B", "null"),
        chunk("", "\"stop\""),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(snapshot(&answer.text), expected.concat());
}

#[tokio::test]
async fn streamed_completions_of_several_prompts() {
    let server = saying(" there");
    let more = json!({"prompt": ["Hello", "x"], "n": 2, "echo": true, "logprobs": 1});
    let whole = server.complete(more.clone()).await.json();
    let mut streaming = more.clone();
    streaming["stream"] = json!(true);
    streaming["stream_options"] = json!({"include_usage": true});
    let chunks = server.complete(streaming).await.chunks();
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    for name in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(last["usage"][name], whole["usage"][name]);
    }
    for index in 0..4 {
        let own = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == index);
        let text: String = own
            .clone()
            .map(|choice| choice["text"].as_str().unwrap())
            .collect();
        let mut tokens = Vec::new();
        let mut offsets = Vec::new();
        for choice in own {
            tokens.extend(
                choice["logprobs"]["tokens"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
            offsets.extend(
                choice["logprobs"]["text_offset"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        let expected = &whole["choices"][index];
        assert_eq!(expected["text"], text);
        assert_eq!(expected["logprobs"]["tokens"], json!(tokens));
        assert_eq!(expected["logprobs"]["text_offset"], json!(offsets));
    }
}
