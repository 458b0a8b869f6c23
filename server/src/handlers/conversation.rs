//! From a chat request to a request for the engine.

use scheduler::TokenId;
use serde_json::{Map, Value};

use super::continuation::Continuation;
use super::demands;
use super::flow::Job;
use super::message::MessageRules;
use super::prepare::{self, Input, Lengths, Plan};
use crate::answer::{
    AnswerRules, CallRules, HARMONY_MARKS, THINKING_MARKS, Thinking, has_calls, taught,
};
use crate::generation::TextRules;
use crate::openai::{ApiError, ChatRequest, ToolChoice};
use crate::state::AppState;
use crate::text::{ChatTemplate, StopSet, TemplateError};
use crate::token_text::TokenText;

/// A conversation, ready for the engine.
pub(super) struct Conversation {
    pub(super) job: Job,
    pub(super) rules: TextRules,
    /// How each choice becomes a message.
    pub(super) message: MessageRules,
    pub(super) n_prompt: usize,
}

/// A conversation as text.
struct Rendered {
    text: String,
    /// Breaks control tokens in what the client wrote.
    mark: Option<char>,
    thinking: Option<Thinking>,
}

/// A conversation as the model reads it.
pub(super) struct Prompted {
    /// As rendered: what clients wrote reads as they wrote it.
    pub(super) text: String,
    pub(super) tokens: Vec<TokenId>,
    thinking: Option<Thinking>,
}

/// What comes between a prompt and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoughts {
    Allowed,
    /// The prompt holds empty ones where the model might begin any.
    Skipped,
}

/// Renders and tokenizes the messages of `chat`, which its client knows as `input`.
pub(super) fn prompt(
    state: &AppState,
    chat: &ChatRequest,
    input: Input,
    thoughts: Thoughts,
) -> Result<Prompted, ApiError> {
    let mut rendered = render(state, chat, input)?;
    if thoughts == Thoughts::Skipped {
        let [open, close] = THINKING_MARKS;
        rendered.text.push_str(&match rendered.thinking.take() {
            None => String::new(),
            Some(Thinking::Inside) => format!("\n{close}\n\n"),
            Some(Thinking::MayBegin) => format!("{open}\n\n{close}\n\n"),
        });
    }
    prepare::check_text(state, input, &rendered.text)?;
    // The template has put all control tokens where they belong.
    let tokenizer = &state.model.tokenizer;
    let tokens = tokenizer
        .encode_guarded(&rendered.text, rendered.mark)
        .map_err(|error| ApiError::internal_for_good(error.to_string()))?;
    if tokens.is_empty() {
        let message = "Invalid 'messages': the conversation has no tokens.";
        return Err(ApiError::invalid("messages", "invalid_value", message));
    }
    let text = match rendered.mark {
        None => rendered.text,
        Some(mark) => rendered.text.replace(mark, ""),
    };
    Ok(Prompted {
        text,
        tokens,
        thinking: rendered.thinking,
    })
}

/// Makes of `chat`, which its client knows as `input`, what the engine and the answer need.
pub(super) fn prepare(
    state: &AppState,
    chat: &ChatRequest,
    input: Input,
) -> Result<Conversation, ApiError> {
    let prompted = prompt(state, chat, input, Thoughts::Allowed)?;
    let n_prompt = prompted.tokens.len();
    let lengths = Lengths {
        n_prompt,
        max_tokens: chat.max_tokens,
        n_needed: 1,
    };
    let sampling = &chat.sampling;
    let plan = Plan {
        n: sampling.n,
        max_new_tokens: prepare::max_new_tokens(state, input, lengths)?,
        logprobs: chat.logprobs,
        prompt_logprobs: None,
        scored_from: 0,
        seed: sampling.seed.unwrap_or_else(|| state.draw_seed()),
    };
    let request = prepare::request(state, prompted.tokens, sampling, plan)?;
    let answer = answer_rules(state, chat, prompted.thinking);
    let rules = TextRules {
        spelled: spelled(state, &answer).into(),
        answer,
        stop: StopSet::new(&sampling.stop),
        stop_tokens: request.stop_tokens.clone(),
        min_tokens: sampling.min_tokens,
        continues_prompt: chat.continue_final_message,
    };
    let tokenizer = state.model.tokenizer.clone();
    Ok(Conversation {
        job: Job {
            request,
            constraint: demands::constraint(state, chat, prompted.thinking)?,
            n_to_score: 0,
        },
        rules,
        message: MessageRules {
            with_logprobs: chat.logprobs.is_some(),
            token_text: TokenText::new(tokenizer, sampling.return_tokens_as_token_ids),
            tool_choice: chat.tools.choice,
            ids: state.ids(),
        },
        n_prompt,
    })
}

fn answer_rules(state: &AppState, chat: &ChatRequest, thinking: Option<Thinking>) -> AnswerRules {
    let tools = || {
        chat.tools
            .tools
            .iter()
            .map(|tool| (tool.name.clone(), tool.schema()))
    };
    let calls = chat.tools.may_call().then(|| CallRules {
        syntax: state.dialect.syntax(),
        tools: tools().collect(),
        parallel: chat.tools.parallel && chat.tools.choice != ToolChoice::Named,
        required: matches!(chat.tools.choice, ToolChoice::Required | ToolChoice::Named),
    });
    AnswerRules {
        thinking,
        calls,
        harmony: state.dialect.has_channels(),
    }
}

/// Control tokens that the parser of the answer has to see.
fn spelled(state: &AppState, answer: &AnswerRules) -> Vec<TokenId> {
    let tokenizer = &state.model.tokenizer;
    let calls = answer.calls.as_ref().map(|calls| calls.syntax.marks());
    let thoughts: &[&str] = match answer.thinking {
        Some(_) => &THINKING_MARKS,
        None => &[],
    };
    let channels: &[&str] = match answer.harmony {
        true => &HARMONY_MARKS,
        false => &[],
    };
    let marks = calls.unwrap_or_default().iter();
    let marks = marks.chain(thoughts).chain(channels);
    let ids = marks.filter_map(|mark| tokenizer.token_id(mark));
    ids.filter(|id| tokenizer.is_special(*id)).collect()
}

fn render(state: &AppState, chat: &ChatRequest, input: Input) -> Result<Rendered, ApiError> {
    let template = state.model.template.as_ref();
    let template = template.ok_or_else(ApiError::not_a_chat_model)?;
    check_effort(state, chat, input)?;
    let mut tools = chat.tools.for_template();
    let mut messages = chat.messages.clone();
    if state.dialect.must_be_taught() && (tools.is_some() || has_calls(&messages)) {
        messages = taught(&messages, tools.take().as_ref());
    }
    let messages = Value::Array(messages);
    let kwargs = Value::Object(chat.template_kwargs.clone());
    let given_tools = tools.clone().unwrap_or_default();
    let guard = state
        .model
        .tokenizer
        .guard(&[&messages, &kwargs, &given_tools]);
    let guard = guard.ok_or_else(|| {
        let message = "Invalid 'messages': they use all private characters that could mark \
                       control tokens as text.";
        ApiError::invalid("messages", "invalid_value", message)
    })?;
    let mut messages = guard.guard(&messages);
    let continuation = chat
        .continue_final_message
        .then(|| Continuation::of(&mut messages, guard.spare()))
        .transpose()?;
    let tools = tools.map(|tools| guard.guard(&tools));
    let kwargs = guard.guard_map(&chat.template_kwargs);
    let mut text = apply(template, &messages, tools.as_ref(), chat, &kwargs)?;
    let thinks = state.dialect.thinks();
    let mut thinking = thinks.then(|| Thinking::of_prompt(&text)).flatten();
    if let Some(continuation) = continuation {
        continuation.cut(&mut text)?;
        thinking = Thinking::of_beginning(continuation.content()).filter(|_| thinks);
    }
    Ok(Rendered {
        text,
        mark: guard.mark(),
        thinking,
    })
}

fn apply(
    template: &ChatTemplate,
    messages: &Value,
    tools: Option<&Value>,
    chat: &ChatRequest,
    kwargs: &Map<String, Value>,
) -> Result<String, ApiError> {
    let rendered = template.render(messages, tools, chat.add_generation_prompt, kwargs);
    rendered.map_err(|error| match error {
        TemplateError::Raised(message) => {
            let message =
                format!("The chat template of this model refuses the messages: {message}");
            ApiError::invalid("messages", "invalid_value", message)
        }
        TemplateError::Failed { .. } => {
            ApiError::internal_for_good(format!("The chat template of this model failed: {error}"))
        }
    })
}

/// An effort that the template has no use for would be ignored silently.
fn check_effort(state: &AppState, chat: &ChatRequest, input: Input) -> Result<(), ApiError> {
    match chat.reasoning_effort {
        None | Some("none") => Ok(()),
        Some(_) if state.dialect.takes_effort() => Ok(()),
        Some(_) => Err(ApiError::unsupported_parameter(match input {
            Input::Items => "reasoning.effort",
            Input::Messages | Input::Prompt => "reasoning_effort",
        })),
    }
}
