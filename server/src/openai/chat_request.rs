//! The body of `POST /v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::fields::invalid_value;
use super::tools::{Form, ToolChoice, Tools};
use super::{ApiError, Fields, Format, Sampling, Streaming, formats, messages, metadata, tools};

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
    /// How much to think; it is among `template_kwargs` too.
    pub reasoning_effort: Option<&'static str>,
    /// What the answer must match.
    pub format: Option<Format>,
    pub tools: Tools,
    /// What is kept beside the answer; `None`: nothing is kept.
    pub storing: Option<Storing>,
}

/// What a chat that is to be stored brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct Storing {
    /// The messages as they were sent.
    pub messages: Vec<Value>,
    pub metadata: Map<String, Value>,
}

/// Parameters that the API has and that this server does not offer.
pub(crate) const UNSUPPORTED: [&str; 5] = [
    "audio",
    "web_search_options",
    "functions",
    "function_call",
    "moderation",
];

/// Values of `reasoning_effort`.
pub(super) const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl ChatRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields, vocab_size: usize) -> Result<Self, ApiError> {
        let sent = body.peek("messages").cloned();
        let messages = messages::take(&mut body)?;
        let sampling = Sampling::take(&mut body, vocab_size)?;
        let streaming = Streaming::take(&mut body)?;
        let effort = body.word("reasoning_effort", &EFFORTS)?;
        let request = Self {
            messages,
            sampling,
            streaming,
            max_tokens: max_tokens(&mut body)?,
            logprobs: logprobs(&mut body)?,
            add_generation_prompt: body.bool("add_generation_prompt")?.unwrap_or(true),
            continue_final_message: body.bool("continue_final_message")?.unwrap_or(false),
            template_kwargs: template_kwargs(&mut body, effort)?,
            reasoning_effort: effort,
            format: formats::take(&mut body)?,
            tools: tools::take(&mut body, Form::Nested)?,
            storing: storing(&mut body, sent)?,
        };
        take_without_effect(&mut body)?;
        refuse_unsupported(&mut body)?;
        body.finish()?;
        request.check_continuation()?;
        request.check_form()?;
        Ok(request)
    }

    /// A conversation that is to be answered by whatever the model says, without thoughts.
    pub fn of_messages(messages: Vec<Value>, sampling: Sampling) -> Self {
        Self {
            messages,
            sampling,
            streaming: Streaming::default(),
            max_tokens: None,
            logprobs: None,
            add_generation_prompt: true,
            continue_final_message: false,
            template_kwargs: effort_kwargs("none"),
            reasoning_effort: None,
            format: None,
            tools: Tools::none(),
            storing: None,
        }
    }

    /// Whether the model is to think, for templates that know of it.
    pub(crate) fn set_thinking(&mut self, thinks: bool) {
        for name in ["enable_thinking", "thinking"] {
            self.template_kwargs.insert(name.to_owned(), json!(thinks));
        }
    }

    /// More variables of the chat template.
    pub(crate) fn add_template_kwargs(
        &mut self,
        given: Map<String, Value>,
    ) -> Result<(), ApiError> {
        check_kwargs(&given)?;
        self.template_kwargs.extend(given);
        Ok(())
    }

    /// A grammar needs the whole answer for itself. Where calls are required, no text is left for
    /// a format to apply to, which clients that send both count on.
    pub(crate) fn check_form(&self) -> Result<(), ApiError> {
        let is_forced = matches!(self.tools.choice, ToolChoice::Required | ToolChoice::Named);
        let (param, with) = match &self.format {
            Some(format) if self.sampling.ignore_eos => (format.param.as_str(), "ignore_eos"),
            None if is_forced && self.sampling.ignore_eos => ("tool_choice", "ignore_eos"),
            _ => return Ok(()),
        };
        let message = format!("'{param}' and '{with}' cannot be combined.");
        Err(ApiError::invalid(
            with,
            "invalid_parameter_combination",
            message,
        ))
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
    prediction(body)?;
    body.word("prompt_cache_retention", &["in_memory", "in-memory", "24h"])?;
    take_cache_options(body)
}

/// How the hosted cache is to keep the prompt.
pub(super) fn take_cache_options(body: &mut Fields) -> Result<(), ApiError> {
    if let Some(mut options) = body.fields("prompt_cache_options")? {
        options.word("mode", &["implicit", "explicit"])?;
        options.word("ttl", &["30m"])?;
        options.finish()?;
    }
    Ok(())
}

/// `user` and its relatives, which both endpoints take.
pub(super) fn take_hosted_hints(body: &mut Fields) -> Result<(), ApiError> {
    for name in ["user", "safety_identifier"] {
        body.string(name)?;
    }
    Ok(())
}

fn refuse_unsupported(body: &mut Fields) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        body.refuse(name)?;
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

fn effort_kwargs(effort: &str) -> Map<String, Value> {
    let thinks = effort != "none";
    let kwargs = [
        ("reasoning_effort", json!(effort)),
        ("enable_thinking", json!(thinks)),
        ("thinking", json!(thinks)),
    ];
    kwargs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Variables of the chat template. Templates of models that think know `reasoning_effort` by its
/// name, or only whether to think at all.
pub(super) fn template_kwargs(
    body: &mut Fields,
    effort: Option<&'static str>,
) -> Result<Map<String, Value>, ApiError> {
    let mut kwargs = effort.map(effort_kwargs).unwrap_or_default();
    let given = body.object("chat_template_kwargs")?.unwrap_or_default();
    check_kwargs(&given)?;
    kwargs.extend(given);
    Ok(kwargs)
}

/// The parameters of some names have been checked; these would not be.
fn check_kwargs(given: &Map<String, Value>) -> Result<(), ApiError> {
    for name in ["messages", "tools", "add_generation_prompt"] {
        if given.contains_key(name) {
            let path = format!("chat_template_kwargs.{name}");
            let message = format!("'{path}' is not allowed: it is a parameter of its own.");
            return Err(ApiError::invalid(&path, "invalid_value", message));
        }
    }
    Ok(())
}

/// A prediction of the answer is checked; nothing is drafted from it.
fn prediction(body: &mut Fields) -> Result<(), ApiError> {
    let Some(mut prediction) = body.fields("prediction")? else {
        return Ok(());
    };
    let kind = prediction.required_string("type")?;
    if kind != "content" {
        return Err(invalid_value(&prediction.path("type"), &kind, &["content"]));
    }
    messages::check_content(&mut prediction)?;
    prediction.finish()
}

/// `store` and `metadata`. `sent`: the messages.
fn storing(body: &mut Fields, sent: Option<Value>) -> Result<Option<Storing>, ApiError> {
    let stores = body.bool("store")?.unwrap_or(false);
    let metadata = metadata::take(body)?.unwrap_or_default();
    if stores {
        let messages = match sent {
            Some(Value::Array(messages)) => messages,
            _ => Vec::new(),
        };
        return Ok(Some(Storing { messages, metadata }));
    }
    if metadata.is_empty() {
        return Ok(None);
    }
    let message = "The 'metadata' parameter is only allowed when 'store' is enabled.";
    Err(ApiError::invalid(
        "metadata",
        "unsupported_parameter",
        message,
    ))
}
