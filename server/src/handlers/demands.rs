//! What a request demands of its answer, as a constraint.

use std::time::Duration;

use serde_json::Value;

use crate::answer::{Demand, Needed, Thinking};
use crate::grammar::{Constraint, Grammar, GrammarError};
use crate::openai::{ApiError, ChatRequest, Tool, ToolChoice};
use crate::state::AppState;

/// What the answer must match: calls that are required, calls of strict functions wherever it has
/// some, a format wherever it has none. A format that cannot be used is an error even if calls
/// leave no text for it.
pub(super) fn constraint(
    state: &AppState,
    chat: &ChatRequest,
    thinking: Option<Thinking>,
) -> Result<Option<Constraint>, ApiError> {
    let grammars = &state.grammars;
    let needed = match chat.tools.choice {
        ToolChoice::Required | ToolChoice::Named => Needed::Must,
        ToolChoice::None | ToolChoice::Auto => Needed::May,
    };
    let format = chat.format.as_ref();
    if let Some(format) = format {
        let usable = match needed {
            // No text is left for it, but a wrong one should not pass.
            Needed::Must => grammars.compile(&format.grammar).map(drop),
            Needed::May => grammars.check(&format.grammar),
        };
        usable.map_err(|error| failed(&error, |reason| format.error(reason)))?;
    }
    let may_call = chat.tools.may_call();
    let is_strict = may_call && chat.tools.tools.iter().any(|tool| tool.strict);
    if needed == Needed::May && format.is_none() && !is_strict {
        return Ok(None);
    }
    let tools = match may_call {
        true => tool_schemas(state, &chat.tools.tools)?,
        false => Vec::new(),
    };
    let demand = Demand {
        tokenizer: &state.model.tokenizer,
        syntax: state.dialect.syntax(),
        tools: &tools,
        parallel: chat.tools.parallel && chat.tools.choice != ToolChoice::Named,
        needed,
        thinking,
        harmony: state.dialect.has_channels(),
        format: format.map(|format| &format.grammar),
    };
    let compiled = demand.grammar().map_err(GrammarError::Invalid);
    let compiled = compiled.and_then(|grammar| grammars.compile(&grammar));
    compiled.map(Some).map_err(|error| {
        failed(&error, |reason| match format {
            Some(format) if needed == Needed::May => format.error(reason),
            _ => tool_error(reason),
        })
    })
}

/// A failure of the grammar, in the words of what it came from, or of the machine.
fn failed(error: &GrammarError, invalid: impl FnOnce(&str) -> ApiError) -> ApiError {
    if *error != GrammarError::Busy {
        return invalid(&error.to_string());
    }
    let message = "This server compiles too many grammars at once. Please retry after a moment.";
    ApiError::overloaded(message.to_owned(), Duration::from_secs(2))
}

fn tool_error(reason: &str) -> ApiError {
    let message = format!("Invalid 'tools': {reason}.");
    ApiError::invalid("tools", "invalid_function_parameters", message)
}

/// Names of the functions, and schemas of their arguments. A strict schema must be one that can be
/// enforced; of another that cannot, only the form of an object is.
fn tool_schemas(state: &AppState, tools: &[Tool]) -> Result<Vec<(String, Value)>, ApiError> {
    let mut schemas = Vec::with_capacity(tools.len());
    for tool in tools {
        let schema = tool.schema();
        let grammar = Grammar::JsonSchema(schema.clone());
        let schema = match state.grammars.compile(&grammar) {
            Ok(_) => schema,
            Err(GrammarError::Invalid(reason)) if tool.strict => {
                let message = format!("Invalid schema for function '{}': {reason}.", tool.name);
                let code = "invalid_function_parameters";
                return Err(ApiError::invalid(&tool.param, code, message));
            }
            Err(GrammarError::Invalid(_)) => serde_json::json!({"type": "object"}),
            Err(error) => return Err(failed(&error, tool_error)),
        };
        schemas.push((tool.name.clone(), schema));
    }
    Ok(schemas)
}
