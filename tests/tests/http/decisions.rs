//! `/v1/decisions`: probabilities of labels, against those of the model itself.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::{MODEL, Options, Server};

fn server() -> Server {
    Server::start(Options {
        says: None,
        max_model_len: 512,
        ..Options::default()
    })
}

async fn decide(server: &Server, questions: Value) -> Value {
    let body = json!({"model": MODEL, "input": "The sky is blue.", "questions": questions});
    let answer = server.post("/v1/decisions", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// Log-probability of `label` behind `prompt`, as completions tell it.
async fn logprob(server: &Server, prompt: &str, label: &str) -> f64 {
    let tokens = |text: &str| server.tokenizer.encode(text, false).unwrap();
    let (prompt, label) = (tokens(prompt), tokens(label));
    let n_label = label.len();
    let tokens = [prompt, label].concat();
    let body = json!({"prompt": tokens, "echo": true, "logprobs": 0,
        "max_tokens": 0});
    let answer = server.complete(body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let answer = answer.json();
    let scores = answer["choices"][0]["logprobs"]["token_logprobs"].as_array();
    let scores = scores.unwrap().iter().rev().take(n_label);
    scores.map(|score| score.as_f64().unwrap()).sum()
}

fn probabilities(answer: &Value) -> Vec<f64> {
    let all = answer["probabilities"].as_array().unwrap().iter();
    all.map(|p| p["probability"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn probabilities_are_those_of_the_labels() {
    let server = server();
    let choices = json!([{"value": "day", "description": "it is light"}, {"value": "night"},
        {"value": true}]);
    let found = decide(
        &server,
        json!([
            {"type": "predicate", "name": "blue", "instructions": "It is blue."},
            {"type": "choice", "instructions": "When?", "choices": choices},
        ]),
    )
    .await;
    let prompt = |question: &str| {
        format!(
            "<|im_start|>user\nThe sky is blue.\n\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
    };
    let predicate = prompt(
        "Is the following statement about the above true? Answer with Yes or No only.\n\nIt is \
         blue.",
    );
    let yes = logprob(&server, &predicate, "Yes").await.exp();
    let no = logprob(&server, &predicate, "No").await.exp();
    let answer = &found["answers"][0];
    assert_eq!(answer["type"], "predicate");
    assert_eq!(answer["name"], "blue");
    let probability = answer["probability"].as_f64().unwrap();
    assert!((probability - yes / (yes + no)).abs() < 1e-6, "{found}");

    let choice = prompt(
        "When?\n\nOptions:\nA: day (it is light)\nB: night\nC: true\n\nAnswer with the label of \
         one of these only.",
    );
    let mut weights = Vec::new();
    for label in ["A", "B", "C"] {
        weights.push(logprob(&server, &choice, label).await.exp());
    }
    let sum: f64 = weights.iter().sum();
    let answer = &found["answers"][1];
    assert_eq!(answer["name"], Value::Null);
    for (found, weight) in probabilities(answer).iter().zip(&weights) {
        assert!((found - weight / sum).abs() < 1e-6, "{answer}");
    }
    let best = (0..3).max_by(|a, b| weights[*a].total_cmp(&weights[*b]));
    let values = [json!("day"), json!("night"), json!(true)];
    assert_eq!(answer["choice"], values[best.unwrap()]);
    let prompts = server.tokenizer.encode(&predicate, false).unwrap().len()
        + server.tokenizer.encode(&choice, false).unwrap().len();
    assert_eq!(found["usage"]["input_tokens"], prompts);
    assert_eq!(found["usage"]["output_tokens"], 0);
    server.wait_until_idle().await;
}

#[tokio::test]
async fn a_score_is_the_mean_of_its_levels() {
    let server = server();
    let levels: Vec<Value> = (0..30)
        .map(|i| json!({"label": format!("level {i}")}))
        .collect();
    let question = json!([{"type": "score", "instructions": "How blue?", "levels": levels}]);
    let found = decide(&server, question.clone()).await;
    let answer = &found["answers"][0];
    let probabilities = probabilities(answer);
    assert_eq!(probabilities.len(), 30);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let mean: f64 = probabilities
        .iter()
        .zip(0_u32..)
        .map(|(p, i)| p * f64::from(i))
        .sum();
    assert!((answer["score"].as_f64().unwrap() - mean).abs() < 1e-9);
    assert_eq!(answer["probabilities"][29]["value"], 29);
    // All labels but the first find the prompt in the prefix cache.
    assert!(server.metric("understudy_cached_prompt_tokens_total") > 29.0 * 100.0);
    let again = decide(&server, question).await;
    assert_eq!(
        again["answers"], found["answers"],
        "the same to the last bit"
    );
    assert!(again["usage"]["input_tokens_details"]["cached_tokens"].as_u64() > Some(100));
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused() {
    let server = server();
    let body = |questions: Value, more: Value| {
        let mut body = json!({"model": MODEL, "input": "x", "questions": questions});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let predicate = json!([{"type": "predicate", "instructions": "y"}]);
    for (body, param, code) in [
        (
            body(json!([]), json!({})),
            "questions",
            json!("empty_array"),
        ),
        (
            body(predicate.clone(), json!({"input": []})),
            "input",
            json!("empty_array"),
        ),
        (
            body(predicate.clone(), json!({"input": "a b c ".repeat(2000)})),
            "input",
            json!("context_length_exceeded"),
        ),
        (
            body(
                predicate.clone(),
                json!({"input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": "data:"}]}]}),
            ),
            "input[0].content[0].type",
            json!("unsupported_value"),
        ),
        (
            body(predicate, json!({"temperature": 1})),
            "temperature",
            json!("unknown_parameter"),
        ),
    ] {
        let answer = server.post("/v1/decisions", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        let error = &answer.json()["error"];
        assert_eq!(error["param"], param, "{error}");
        assert_eq!(error["code"], code, "{error}");
    }
}
