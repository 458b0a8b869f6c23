//! The body of `POST /v1/responses`.

use serde_json::{Map, Value, json};

use super::chat_request::{
    ChatRequest, EFFORTS, take_cache_options, take_hosted_hints, template_kwargs,
};
use super::fields::type_name;
use super::tools::Form;
use super::{ApiError, Fields, Format, Sampling, Streaming, formats, items, metadata, tools};

/// A request for a response, checked.
#[derive(Clone, Debug)]
pub struct ResponseRequest {
    pub instructions: Option<String>,
    /// Items of this request; their ids may be missing.
    pub input: Vec<Value>,
    /// What is wrong with having no input, if nothing else is there to be answered.
    pub without_input: Option<ApiError>,
    pub previous_response_id: Option<String>,
    pub conversation: Option<String>,
    /// Everything else that makes the answer; its messages come from the items.
    pub chat: ChatRequest,
    pub store: bool,
    pub background: bool,
    /// Whether to leave out the oldest turns of what does not fit.
    pub truncates: bool,
    /// What the response repeats of the request.
    pub echo: Map<String, Value>,
}

/// Parameters that the API has and that this server does not offer.
pub(crate) const UNSUPPORTED: [&str; 8] = [
    "prompt",
    "context_management",
    "moderation",
    "multi_agent",
    "access_programs",
    "background_options",
    "image",
    "personality",
];
/// Fields that answers repeat as they were given.
const ECHOED: [&str; 12] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "user",
    "temperature",
    "tool_choice",
    "top_p",
    "truncation",
];
pub(crate) const INCLUDES: [&str; 8] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
];

impl ResponseRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields, vocab_size: usize) -> Result<Self, ApiError> {
        refuse_choices(&body)?;
        let mut echo = Map::new();
        for name in ECHOED {
            if let Some(value) = body.peek(name) {
                echo.insert(name.to_owned(), value.clone());
            }
        }
        echo.insert("tools".to_owned(), flat_tools(body.peek("tools")));
        let reasoning = reasoning(&mut body, &mut echo)?;
        let format = text_format(&mut body, &mut echo)?;
        let chat = chat(&mut body, vocab_size, reasoning, format)?;
        echo.insert("parallel_tool_calls".to_owned(), json!(chat.tools.parallel));
        let logprobs = chat.logprobs.unwrap_or(0);
        echo.insert("top_logprobs".to_owned(), json!(logprobs));
        let without_input = match body.peek("input") {
            Some(_) => None,
            None => body.require("input", items::EXPECTED).err(),
        };
        let request = Self {
            instructions: body.string("instructions")?,
            without_input,
            input: items::take_input(&mut body)?,
            previous_response_id: body.string("previous_response_id")?,
            conversation: conversation(&mut body)?,
            store: body.bool("store")?.unwrap_or(true),
            background: body.bool("background")?.unwrap_or(false),
            truncates: body.word("truncation", &["disabled", "auto"])? == Some("auto"),
            chat,
            echo,
        };
        metadata::take(&mut body)?;
        take_without_effect(&mut body)?;
        for name in UNSUPPORTED {
            body.refuse(name)?;
        }
        body.finish()?;
        request.chat.check_form()?;
        request.check_context()?;
        Ok(request)
    }

    fn check_context(&self) -> Result<(), ApiError> {
        let refused = |param: &str, message: &str| {
            let code = "invalid_parameter_combination";
            Err(ApiError::invalid(param, code, message))
        };
        if self.previous_response_id.is_some() && self.conversation.is_some() {
            let message = "Mutually exclusive parameters: 'previous_response_id' and \
                           'conversation'. Ensure you are only providing one of them.";
            return refused("previous_response_id", message);
        }
        if self.background && !self.store {
            let message = "Background mode requires 'store' to be true.";
            return refused("background", message);
        }
        Ok(())
    }
}

/// A response is one answer.
fn refuse_choices(body: &Fields) -> Result<(), ApiError> {
    for name in ["n", "logprobs"] {
        if body.has(name) {
            return Err(ApiError::unknown_parameter(name));
        }
    }
    Ok(())
}

fn chat(
    body: &mut Fields,
    vocab_size: usize,
    effort: Option<&'static str>,
    format: Option<Format>,
) -> Result<ChatRequest, ApiError> {
    let sampling = Sampling::take(body, vocab_size)?;
    Ok(ChatRequest {
        messages: Vec::new(),
        sampling,
        streaming: streaming(body)?,
        max_tokens: body.count("max_output_tokens", 16, u32::MAX)?,
        logprobs: logprobs(body)?,
        add_generation_prompt: true,
        continue_final_message: false,
        template_kwargs: template_kwargs(body, effort)?,
        reasoning_effort: effort,
        format: formats::take_beside(body, format)?,
        tools: tools::take(body, Form::Flat)?,
        storing: None,
    })
}

fn streaming(body: &mut Fields) -> Result<Streaming, ApiError> {
    let streaming = Streaming::take(body)?;
    if streaming.include_usage {
        // Of the older dialects; here the last event always has it.
        return Err(ApiError::unknown_parameter("stream_options.include_usage"));
    }
    Ok(streaming)
}

/// `include` may name what only hosted tools have: nothing of it is ever there to be left out.
fn logprobs(body: &mut Fields) -> Result<Option<u8>, ApiError> {
    let n_top = body.count("top_logprobs", 0, 20)?;
    let mut is_included = n_top.is_some_and(|n_top| n_top > 0);
    match body.take("include") {
        None => {}
        Some(Value::Array(names)) => {
            for (i, name) in names.iter().enumerate() {
                let path = format!("include[{i}]");
                let Value::String(name) = name else {
                    return Err(ApiError::wrong_type(&path, "a string", type_name(name)));
                };
                if !INCLUDES.contains(&name.as_str()) {
                    return Err(super::fields::invalid_value(&path, name, &INCLUDES));
                }
                is_included |= name == "message.output_text.logprobs";
            }
        }
        Some(other) => return Err(body.wrong_type("include", "an array of strings", &other)),
    }
    let n_top = u8::try_from(n_top.unwrap_or(0)).expect("at most 20");
    Ok(is_included.then_some(n_top))
}

fn reasoning(
    body: &mut Fields,
    echo: &mut Map<String, Value>,
) -> Result<Option<&'static str>, ApiError> {
    let mut effort = None;
    if let Some(mut fields) = body.fields("reasoning")? {
        effort = fields.word("effort", &EFFORTS)?;
        // Thoughts come whole and in the open; there is nothing to be told of them in short.
        for name in ["summary", "generate_summary"] {
            fields.word(name, &["auto", "concise", "detailed"])?;
        }
        match fields.word("context", &["auto", "current_turn", "all_turns"])? {
            None | Some("auto") => {}
            Some(other) => {
                let param = fields.path("context");
                return Err(ApiError::unsupported_value(&param, &format!("'{other}'")));
            }
        }
        fields.refuse("mode")?;
        fields.finish()?;
    }
    let told = json!({"effort": effort, "summary": null});
    echo.insert("reasoning".to_owned(), told);
    Ok(effort)
}

fn text_format(
    body: &mut Fields,
    echo: &mut Map<String, Value>,
) -> Result<Option<Format>, ApiError> {
    let mut told = json!({"format": {"type": "text"}});
    let mut format = None;
    if let Some(mut text) = body.fields("text")? {
        if let Some(fields) = text.fields("format")? {
            told["format"] = fields.to_value();
            format = formats::flat(fields)?;
        }
        if let Some(verbosity) = text.word("verbosity", &["low", "medium", "high"])? {
            told["verbosity"] = json!(verbosity);
        }
        text.finish()?;
    }
    echo.insert("text".to_owned(), told);
    Ok(format)
}

/// The functions that were given, with every field of the API. They have been checked.
fn flat_tools(given: Option<&Value>) -> Value {
    let given = given.and_then(Value::as_array).into_iter().flatten();
    let tools = given.map(|tool| {
        json!({
            "type": "function", "name": tool["name"], "description": tool["description"],
            "parameters": tool["parameters"], "strict": tool["strict"] == true,
        })
    });
    Value::Array(tools.collect())
}

/// The id, or an object that holds it.
fn conversation(body: &mut Fields) -> Result<Option<String>, ApiError> {
    match body.take("conversation") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(value @ Value::Object(_)) => {
            let mut fields = Fields::from_value("conversation", value)?;
            let id = fields.required_string("id")?;
            fields.finish()?;
            Ok(Some(id))
        }
        Some(other) => {
            let expected = "one of a string or an object";
            Err(body.wrong_type("conversation", expected, &other))
        }
    }
}

/// Hints of the hosted service, and a bound on calls of tools that only it has.
fn take_without_effect(body: &mut Fields) -> Result<(), ApiError> {
    take_hosted_hints(body)?;
    body.count("max_tool_calls", 0, u32::MAX)?;
    body.word("prompt_cache_retention", &["in_memory", "in-memory", "24h"])?;
    take_cache_options(body)
}
