//! The body of `POST /v1/chat/completions`.

use serde_json::{Map, Value};

use super::fields::{empty_array, invalid_value};
use super::{ApiError, Fields, Sampling, Streaming, messages};

/// A chat request, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// What the chat template is given.
    pub messages: Vec<Value>,
    pub sampling: Sampling,
    pub streaming: Streaming,
    /// `None`: as long as the context allows.
    pub max_tokens: Option<u32>,
    /// `Some(k)`: log-probabilities, with the `k` best at each token.
    pub logprobs: Option<u8>,
    pub add_generation_prompt: bool,
    pub continue_final_message: bool,
    pub template_kwargs: Map<String, Value>,
}

/// Parameters that the API has and that this server does not offer.
const UNSUPPORTED: [&str; 5] = [
    "audio",
    "web_search_options",
    "functions",
    "function_call",
    "moderation",
];

impl ChatRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields, vocab_size: usize) -> Result<Self, ApiError> {
        let messages = messages::take(&mut body)?;
        let sampling = Sampling::take(&mut body, vocab_size)?;
        let streaming = Streaming::take(&mut body)?;
        let request = Self {
            messages,
            sampling,
            streaming,
            max_tokens: max_tokens(&mut body)?,
            logprobs: logprobs(&mut body)?,
            add_generation_prompt: body.bool("add_generation_prompt")?.unwrap_or(true),
            continue_final_message: body.bool("continue_final_message")?.unwrap_or(false),
            template_kwargs: body.object("chat_template_kwargs")?.unwrap_or_default(),
        };
        take_without_effect(&mut body)?;
        refuse_unsupported(&mut body)?;
        body.finish()?;
        request.check_continuation()?;
        Ok(request)
    }

    fn check_continuation(&self) -> Result<(), ApiError> {
        if !self.continue_final_message {
            return Ok(());
        }
        let last_role = self
            .messages
            .last()
            .and_then(|message| message["role"].as_str());
        let message = if last_role != Some("assistant") {
            "'continue_final_message' needs a last message of role 'assistant'."
        } else if self.add_generation_prompt {
            "'continue_final_message' is only allowed when 'add_generation_prompt' is false."
        } else {
            return Ok(());
        };
        Err(ApiError::invalid(
            "continue_final_message",
            "invalid_value",
            message,
        ))
    }
}

fn max_tokens(body: &mut Fields) -> Result<Option<u32>, ApiError> {
    let old = body.count("max_tokens", 1, u32::MAX)?;
    let new = body.count("max_completion_tokens", 1, u32::MAX)?;
    if old.is_some() && new.is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not \
                       supported.";
        return Err(ApiError::invalid(
            "max_tokens",
            "invalid_parameter_combination",
            message,
        ));
    }
    Ok(new.or(old))
}

fn logprobs(body: &mut Fields) -> Result<Option<u8>, ApiError> {
    let enabled = body.bool("logprobs")?.unwrap_or(false);
    let n_top = body.count("top_logprobs", 0, 20)?;
    if n_top.is_some() && !enabled {
        let message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.";
        return Err(ApiError::bad_request(message).with_param("top_logprobs"));
    }
    let n_top = u8::try_from(n_top.unwrap_or(0)).expect("at most 20");
    Ok(enabled.then_some(n_top))
}

/// Parameters that are checked and change nothing here: identities and cache hints of the
/// hosted service, and hints that allow an answer but never ask for another one.
fn take_without_effect(body: &mut Fields) -> Result<(), ApiError> {
    take_hosted_hints(body)?;
    body.word("verbosity", &["low", "medium", "high"])?;
    body.bool("parallel_tool_calls")?;
    body.object("prediction")?;
    body.word("prompt_cache_retention", &["in_memory", "in-memory", "24h"])?;
    body.object("prompt_cache_options")?;
    Ok(())
}

/// `user` and its relatives, which both endpoints take.
pub(super) fn take_hosted_hints(body: &mut Fields) -> Result<(), ApiError> {
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        body.string(name)?;
    }
    const TIERS: [&str; 6] = ["auto", "default", "flex", "scale", "priority", "fast"];
    match body.word("service_tier", &TIERS)? {
        None | Some("auto" | "default") => Ok(()),
        Some(tier) => Err(ApiError::unsupported_value(
            "service_tier",
            &format!("'{tier}'"),
        )),
    }
}

fn refuse_unsupported(body: &mut Fields) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        body.refuse(name)?;
    }
    refuse_tools(body)?;
    refuse_formats(body)?;
    if body.bool("store")? == Some(true) {
        return Err(ApiError::unsupported_value("store", "true"));
    }
    if body.object("metadata")?.is_some_and(|map| !map.is_empty()) {
        let message = "The 'metadata' parameter is only allowed when 'store' is enabled.";
        return Err(ApiError::invalid(
            "metadata",
            "unsupported_parameter",
            message,
        ));
    }
    const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    match body.word("reasoning_effort", &EFFORTS)? {
        None | Some("none") => Ok(()),
        Some(_) => Err(ApiError::unsupported_parameter("reasoning_effort")),
    }
}

fn refuse_tools(body: &mut Fields) -> Result<(), ApiError> {
    match body.take("tools") {
        None => {}
        Some(Value::Array(tools)) if tools.is_empty() => return Err(empty_array("tools")),
        Some(_) => return Err(ApiError::unsupported_parameter("tools")),
    }
    match body.take("tool_choice") {
        None => Ok(()),
        // No tools is what the caller gets.
        Some(Value::String(choice)) if choice == "none" => Ok(()),
        Some(_) => Err(ApiError::unsupported_parameter("tool_choice")),
    }
}

fn refuse_formats(body: &mut Fields) -> Result<(), ApiError> {
    if let Some(mut format) = body.fields("response_format")? {
        const KINDS: [&str; 3] = ["text", "json_object", "json_schema"];
        let kind = format.required_string("type")?;
        match kind.as_str() {
            "text" => format.finish()?,
            "json_object" | "json_schema" => {
                let path = format.path("type");
                return Err(ApiError::unsupported_value(&path, &format!("'{kind}'")));
            }
            _ => return Err(invalid_value(&format.path("type"), &kind, &KINDS)),
        }
    }
    match body.take("modalities") {
        None => Ok(()),
        Some(Value::Array(kinds)) if kinds.iter().all(|kind| kind == "text") => Ok(()),
        Some(Value::Array(_)) => Err(ApiError::unsupported_value(
            "modalities",
            "anything but ['text']",
        )),
        Some(other) => Err(body.wrong_type("modalities", "an array of strings", &other)),
    }
}
