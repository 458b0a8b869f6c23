//! What is asked of a server before a load: its models, and how it counts words.

use std::time::Instant;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::body::{Endpoint, Expected, Form};
use crate::call::{Call, Clock};
use crate::connection::Connections;
use crate::error::LoadError;
use crate::prompt::{TokensOfWords, push_words};

/// The first model that the server lists.
pub(crate) async fn first_model(connections: &Connections) -> Result<String, LoadError> {
    let wrong = |reason: String| LoadError::Server {
        url: connections.target().url(),
        reason,
    };
    let answer = connections.send(Method::GET, "/models", Bytes::new()).await;
    let answer = answer.map_err(|failure| wrong(failure.detail))?;
    let (response, sender) = answer.into_parts();
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| wrong(error.to_string()))?.to_bytes();
    connections.keep(sender).await;
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = told["data"][0]["id"].as_str();
    let name = name.ok_or_else(|| {
        let told = String::from_utf8_lossy(&body);
        wrong(format!(
            "/models says {status}: {told}; name one with --model"
        ))
    })?;
    Ok(name.to_owned())
}

/// How many tokens words make there, from two short requests.
pub(crate) async fn count_words(
    connections: &Connections,
    form: &Form,
    model: &str,
) -> Result<TokensOfWords, LoadError> {
    let few = counted(connections, form, model, 40).await?;
    let many = counted(connections, form, model, 240).await?;
    TokensOfWords::measured((40, few), (240, many)).ok_or_else(|| LoadError::Server {
        url: connections.target().url(),
        reason: format!("it counts {few} tokens in 40 words and {many} in 240"),
    })
}

/// Tokens that the server counts in a prompt of `n` words.
async fn counted(
    connections: &Connections,
    form: &Form,
    model: &str,
    n: usize,
) -> Result<u64, LoadError> {
    let mut text = String::new();
    push_words(&mut text, 0x7e57 + n as u64, n);
    let mut body = match form.endpoint {
        Endpoint::Chat => json!({"messages": [{"role": "user", "content": text}]}),
        Endpoint::Completions => json!({"prompt": text}),
        Endpoint::Embeddings => json!({"input": text}),
    };
    body["model"] = model.into();
    if form.endpoint != Endpoint::Embeddings {
        body["max_tokens"] = 1.into();
    }
    for (name, value) in &form.extra {
        body[name] = value.clone();
    }
    let call = Call {
        session: 0,
        turn: 0,
        model: model.to_owned(),
        endpoint: form.endpoint,
        is_stream: false,
        body: body.to_string().into(),
        expected: Expected {
            n_output: 1,
            ..Expected::default()
        },
        intended: 0.0,
    };
    let began = Instant::now();
    let outcome = call.run(connections, Clock { began }).await;
    match outcome.failure {
        None => Ok(outcome.usage.n_prompt),
        Some(failure) => Err(LoadError::Server {
            url: connections.target().url(),
            reason: format!("{}: {}", failure.kind.name(), failure.detail),
        }),
    }
}
