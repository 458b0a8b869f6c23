//! Prompts of exact lengths: token ids that any vocabulary of a language model has.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Client;

/// Splitmix64 (Steele, Lea and Flood, 2014): the same prompts on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `n` tokens: ids above the control tokens, and below those of the smallest vocabularies.
    pub(crate) fn tokens(&mut self, n: usize) -> Vec<u64> {
        (0..n).map(|_| 1_000 + self.next() % 20_000).collect()
    }
}

/// The name that the server gives its model.
pub(crate) fn model_name(client: &Client) -> Result<String> {
    let models = client.get("/v1/models")?.json()?;
    let name = models["data"][0]["id"].as_str();
    Ok(name.context("no model is served")?.to_owned())
}

/// A completion of token ids that runs to its length.
pub(crate) fn completion(model: &str, prompt: &[u64], max_tokens: usize) -> Value {
    json!({
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "ignore_eos": true,
        "temperature": 0,
        "stream": true,
    })
}

/// A token whose text is whole, so that every draw of it is one event of a stream.
pub(crate) fn plain_token(client: &Client, model: &str) -> Result<String> {
    let body = json!({
        "model": model, "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0,
        "logprobs": 1, "return_tokens_as_token_ids": true,
    });
    let answer = client.post("/v1/completions", &body)?.json()?;
    let token = answer["choices"][0]["logprobs"]["tokens"][0].as_str();
    let id = token.and_then(|token| token.strip_prefix("token_id:"));
    Ok(id
        .with_context(|| format!("no token in {answer}"))?
        .to_owned())
}
