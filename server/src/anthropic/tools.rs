//! Tools and the choice among them.

use serde_json::Value;

use super::content::take_cache_control;
use crate::openai::{
    ApiError, Fields, Tool, ToolChoice, Tools, array_too_long, check_arguments, check_name,
    invalid_value,
};

/// Most tools of one request.
const MAX_TOOLS: usize = 128;

/// Takes `tools` and `tool_choice`.
pub(super) fn take(body: &mut Fields) -> Result<Tools, ApiError> {
    let items = match body.take("tools") {
        None => Vec::new(),
        Some(Value::Array(items)) if items.len() > MAX_TOOLS => {
            return Err(array_too_long("tools", MAX_TOOLS, items.len()));
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(body.wrong_type("tools", "an array of objects", &other)),
    };
    let mut tools = Tools::none();
    for (i, item) in items.into_iter().enumerate() {
        let path = format!("tools[{i}]");
        let tool = tool(Fields::from_value(&path, item)?)?;
        if tools.tools.iter().any(|other| other.name == tool.name) {
            let message = format!("Invalid '{path}': there are two tools '{}'.", tool.name);
            return Err(ApiError::invalid(&path, "invalid_value", message));
        }
        tools.tools.push(tool);
    }
    if !tools.tools.is_empty() {
        tools.choice = ToolChoice::Auto;
    }
    choose(body, &mut tools)?;
    Ok(tools)
}

fn tool(mut fields: Fields) -> Result<Tool, ApiError> {
    if let Some(kind) = fields.string("type")?
        && kind != "custom"
    {
        let value = format!("tools of type '{kind}'");
        return Err(ApiError::unsupported_value(&fields.path("type"), &value));
    }
    let name = fields.required_string("name")?;
    check_name(&fields.path("name"), &name)?;
    let param = fields.path("input_schema");
    let schema = match fields.require("input_schema", "an object")? {
        schema @ Value::Object(_) => schema,
        other => return Err(fields.wrong_type("input_schema", "an object", &other)),
    };
    check_arguments(&param, &name, &schema)?;
    let tool = Tool {
        name,
        param,
        description: fields.string("description")?,
        parameters: Some(schema),
        strict: fields.bool("strict")?.unwrap_or(false),
    };
    take_cache_control(&mut fields)?;
    // Arguments are streamed as they come anyway.
    fields.bool("eager_input_streaming")?;
    if fields.bool("defer_loading")? == Some(true) {
        return Err(ApiError::unsupported_value(
            &fields.path("defer_loading"),
            "true",
        ));
    }
    for name in ["allowed_callers", "input_examples"] {
        fields.refuse(name)?;
    }
    fields.finish()?;
    Ok(tool)
}

fn choose(body: &mut Fields, tools: &mut Tools) -> Result<(), ApiError> {
    const KINDS: [&str; 4] = ["auto", "any", "tool", "none"];
    let Some(mut choice) = body.fields("tool_choice")? else {
        return Ok(());
    };
    let kind = choice.required_string("type")?;
    let has_tools = !tools.tools.is_empty();
    if choice.bool("disable_parallel_tool_use")? == Some(true) {
        tools.parallel = false;
    }
    match kind.as_str() {
        "auto" | "none" if !has_tools => {}
        "auto" => tools.choice = ToolChoice::Auto,
        "none" => tools.choice = ToolChoice::None,
        "any" if has_tools => tools.choice = ToolChoice::Required,
        "any" => {
            let message = "Invalid 'tool_choice': there are no 'tools' to choose from.";
            return Err(ApiError::invalid("tool_choice", "invalid_value", message));
        }
        "tool" => {
            let name = choice.required_string("name")?;
            if !tools.tools.iter().any(|tool| tool.name == name) {
                let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
                let param = choice.path("name");
                return Err(ApiError::invalid(&param, "invalid_value", message));
            }
            tools.tools.retain(|tool| tool.name == name);
            tools.choice = ToolChoice::Named;
        }
        _ => return Err(invalid_value(&choice.path("type"), &kind, &KINDS)),
    }
    choice.finish()
}
