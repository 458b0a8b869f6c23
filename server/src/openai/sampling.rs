//! Parameters that chat completions and completions have in common.

use std::sync::Arc;

use scheduler::SamplingParams;
use serde_json::Value;

use super::fields::{array_too_long, decimal_in_range, empty_array, type_name};
use super::{ApiError, ChunkUsage, Fields, Serving, TokenCounts};

/// Most choices of one request.
const MAX_N: u32 = 128;
/// Longest stop string, in characters. Each byte of an answer is compared with each of them.
const MAX_STOP_CHARACTERS: usize = 1000;
/// Most stop strings of one request.
const MAX_STOP_STRINGS: usize = 4;

/// How to generate: everything but the prompt, the length and the form of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: u32,
    pub min_p: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub repetition_penalty: f64,
    pub logit_bias: Vec<(u32, f32)>,
    /// `None`: the server draws one.
    pub seed: Option<u64>,
    pub n: u32,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    pub min_tokens: u32,
    pub return_tokens_as_token_ids: bool,
    pub serving: Serving,
}

/// How to stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streaming {
    pub enabled: bool,
    pub include_usage: bool,
    /// Every chunk tells the usage so far, as vLLM's do.
    pub continuous_usage: bool,
}

impl Sampling {
    /// Takes the common parameters; `vocab_size` bounds the ids of `logit_bias`.
    pub fn take(body: &mut Fields, vocab_size: usize) -> Result<Self, ApiError> {
        let top_k = body.integer("top_k", -1, i64::from(u32::MAX))?.unwrap_or(0);
        Ok(Self {
            temperature: body.decimal("temperature", 0.0, 2.0)?.unwrap_or(1.0),
            top_p: body.decimal("top_p", 0.0, 1.0)?.unwrap_or(1.0),
            // -1 and 0 both say "all": the extension's users know either.
            top_k: u32::try_from(top_k).unwrap_or(0),
            min_p: body.decimal("min_p", 0.0, 1.0)?.unwrap_or(0.0),
            presence_penalty: body.decimal("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            frequency_penalty: body.decimal("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            // Logits are divided by it in f32: much less would make them infinite.
            repetition_penalty: body
                .decimal("repetition_penalty", 0.01, 10.0)?
                .unwrap_or(1.0),
            logit_bias: logit_bias(body, vocab_size)?,
            seed: body
                .integer("seed", i64::MIN, i64::MAX)?
                .map(i64::cast_unsigned),
            n: body.count("n", 1, MAX_N)?.unwrap_or(1),
            stop: stop_strings(body)?,
            ignore_eos: body.bool("ignore_eos")?.unwrap_or(false),
            min_tokens: body.count("min_tokens", 0, u32::MAX)?.unwrap_or(0),
            return_tokens_as_token_ids: body.bool("return_tokens_as_token_ids")?.unwrap_or(false),
            serving: Serving::take(body)?,
        })
    }

    /// The engine's form; `seed` is this request's own.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "all values are small numbers within checked ranges"
    )]
    pub fn to_params(&self, seed: u64, logprobs: Option<u8>) -> Arc<SamplingParams> {
        Arc::new(SamplingParams {
            temperature: self.temperature as f32,
            top_p: self.top_p as f32,
            top_k: self.top_k,
            min_p: self.min_p as f32,
            presence_penalty: self.presence_penalty as f32,
            frequency_penalty: self.frequency_penalty as f32,
            repetition_penalty: self.repetition_penalty as f32,
            logit_bias: self.logit_bias.clone(),
            seed,
            logprobs,
        })
    }
}

impl Streaming {
    /// What a chunk says of usage when so many tokens have been drawn.
    pub fn usage_now(self, counts: TokenCounts, n_drawn: u64) -> ChunkUsage {
        let so_far = TokenCounts {
            completion: n_drawn,
            ..counts
        };
        self.include_usage
            .then(|| self.continuous_usage.then(|| so_far.into()))
    }

    /// Takes `stream` and `stream_options`.
    pub fn take(body: &mut Fields) -> Result<Self, ApiError> {
        let enabled = body.bool("stream")?.unwrap_or(false);
        let mut streaming = Self {
            enabled,
            ..Self::default()
        };
        if let Some(mut options) = body.fields("stream_options")? {
            if !enabled {
                let message =
                    "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
                return Err(ApiError::bad_request(message).with_param("stream_options"));
            }
            streaming.include_usage = options.bool("include_usage")?.unwrap_or(false);
            let continuous = options.bool("continuous_usage_stats")?.unwrap_or(false);
            if continuous && !streaming.include_usage {
                let message = "'continuous_usage_stats' is only allowed with 'include_usage'.";
                return Err(ApiError::bad_request(message)
                    .with_param("stream_options.continuous_usage_stats"));
            }
            streaming.continuous_usage = continuous;
            // Padding against traffic analysis is the proxy's business; the flag is accepted.
            options.bool("include_obfuscation")?;
            options.finish()?;
        }
        Ok(streaming)
    }
}

fn logit_bias(body: &mut Fields, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let entries = body.object("logit_bias")?.unwrap_or_default();
    let mut bias = Vec::with_capacity(entries.len());
    for (key, value) in &entries {
        let token = key
            .parse::<u32>()
            .ok()
            // Written otherwise, one token could be named twice.
            .filter(|id| (*id as usize) < vocab_size && id.to_string() == *key)
            .ok_or_else(|| {
                let message = format!(
                    "Invalid key in 'logit_bias': '{key}'. Expected a token id of this model, an \
                     integer from 0 to {}, without signs or leading zeros.",
                    vocab_size.saturating_sub(1)
                );
                ApiError::invalid("logit_bias", "invalid_value", message)
            })?;
        let found = decimal_in_range(&format!("logit_bias.{key}"), value, -100.0, 100.0)?;
        #[expect(clippy::cast_possible_truncation, reason = "at most 100")]
        bias.push((token, found as f32));
    }
    Ok(bias)
}

fn stop_strings(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match body.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![checked_stop("stop", stop)?],
        Some(Value::Array(items)) => stop_array(items)?,
        Some(other) => {
            return Err(body.wrong_type("stop", "one of a string or an array of strings", &other));
        }
    };
    if stops.iter().any(String::is_empty) {
        let message = "Invalid 'stop': empty string. Expected a string with minimum length 1.";
        return Err(ApiError::invalid("stop", "empty_string", message));
    }
    Ok(stops)
}

fn checked_stop(path: &str, stop: String) -> Result<String, ApiError> {
    let n_characters = stop.chars().count();
    if n_characters <= MAX_STOP_CHARACTERS {
        return Ok(stop);
    }
    let message = format!(
        "Invalid '{path}': string too long. Expected a string with maximum length \
         {MAX_STOP_CHARACTERS}, but got a string with length {n_characters} instead."
    );
    Err(ApiError::invalid(path, "string_above_max_length", message))
}

fn stop_array(items: Vec<Value>) -> Result<Vec<String>, ApiError> {
    if items.is_empty() {
        return Err(empty_array("stop"));
    }
    if items.len() > MAX_STOP_STRINGS {
        return Err(array_too_long("stop", MAX_STOP_STRINGS, items.len()));
    }
    let texts = items.into_iter().enumerate().map(|(i, item)| match item {
        Value::String(text) => checked_stop(&format!("stop[{i}]"), text),
        other => {
            let path = format!("stop[{i}]");
            Err(ApiError::wrong_type(&path, "a string", type_name(&other)))
        }
    });
    texts.collect()
}
