//! The functions that a request lets the model call.

use serde_json::{Map, Value, json};

use super::fields::{array_too_long, empty_array, invalid_value};
use super::formats::check_name;
use super::{ApiError, Fields};

/// Kinds of tools that the API has besides functions.
const HOSTED: [&str; 18] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "custom",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
];
/// Most functions of one request.
const MAX_TOOLS: usize = 128;

/// One function.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// A JSON schema; without one the function has no parameters.
    pub parameters: Option<Value>,
    /// Whether arguments must match the schema.
    pub strict: bool,
    /// Path of its schema in the request.
    pub param: String,
}

/// What the model has to do with its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// Answer without them.
    None,
    /// As it likes.
    Auto,
    /// Call one or more.
    Required,
    /// Call the one tool that is left.
    Named,
}

/// The tools of a request. Those that the choice rules out are gone already.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    /// More than one call in an answer.
    pub parallel: bool,
}

impl Tool {
    /// What chat templates expect: the nested form of chat completions.
    pub fn for_template(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".to_owned(), json!(self.name));
        if let Some(description) = &self.description {
            function.insert("description".to_owned(), json!(description));
        }
        function.insert("parameters".to_owned(), self.schema());
        json!({"type": "function", "function": function})
    }

    /// The schema of its arguments.
    pub fn schema(&self) -> Value {
        let none = || json!({"type": "object", "properties": {}});
        self.parameters.clone().unwrap_or_else(none)
    }
}

impl Tools {
    /// No tools at all.
    pub fn none() -> Self {
        Self {
            tools: Vec::new(),
            choice: ToolChoice::None,
            parallel: true,
        }
    }

    /// What the chat template is given, `None` where the model is to know of no tools.
    pub fn for_template(&self) -> Option<Value> {
        let is_used = self.choice != ToolChoice::None && !self.tools.is_empty();
        is_used.then(|| self.tools.iter().map(Tool::for_template).collect())
    }

    /// Whether an answer can hold calls at all.
    pub fn may_call(&self) -> bool {
        self.choice != ToolChoice::None && !self.tools.is_empty()
    }
}

/// Where a tool has its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In `function`: chat completions.
    Nested,
    /// Beside `type`: responses.
    Flat,
}

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn take(body: &mut Fields, form: Form) -> Result<Tools, ApiError> {
    let tools = match body.take("tools") {
        None => Vec::new(),
        Some(Value::Array(items)) if items.is_empty() && form == Form::Nested => {
            return Err(empty_array("tools"));
        }
        Some(Value::Array(items)) => read_tools(items, form)?,
        Some(other) => return Err(body.wrong_type("tools", "an array of objects", &other)),
    };
    let parallel = body.bool("parallel_tool_calls")?.unwrap_or(true);
    let mut found = Tools {
        choice: if tools.is_empty() {
            ToolChoice::None
        } else {
            ToolChoice::Auto
        },
        tools,
        parallel,
    };
    match body.take("tool_choice") {
        None => {}
        // Clients of responses write the default out, tools or not.
        Some(Value::String(word))
            if form == Form::Flat && word == "auto" && found.tools.is_empty() => {}
        Some(Value::String(word)) => found.choose(&word)?,
        Some(value @ Value::Object(_)) => {
            found.choose_by_name(Fields::from_value("tool_choice", value)?)?
        }
        Some(other) => {
            let expected = "one of a string or an object";
            return Err(body.wrong_type("tool_choice", expected, &other));
        }
    }
    Ok(found)
}

fn read_tools(items: Vec<Value>, form: Form) -> Result<Vec<Tool>, ApiError> {
    if items.len() > MAX_TOOLS {
        return Err(array_too_long("tools", MAX_TOOLS, items.len()));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let path = format!("tools[{i}]");
        let mut fields = Fields::from_value(&path, item)?;
        let kind = fields.required_string("type")?;
        if kind != "function" {
            let value = format!("tools of type '{kind}'");
            return Err(ApiError::unsupported_value(&fields.path("type"), &value));
        }
        let tool = match form {
            Form::Nested => nested_tool(fields)?,
            Form::Flat => function(fields)?,
        };
        if tools.iter().any(|other| other.name == tool.name) {
            let message = format!("Invalid '{path}': there are two functions '{}'.", tool.name);
            return Err(ApiError::invalid(&path, "invalid_value", message));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn nested_tool(mut fields: Fields) -> Result<Tool, ApiError> {
    let path = fields.path("function");
    let nested = Fields::from_value(&path, fields.require("function", "an object")?)?;
    fields.finish()?;
    function(nested)
}

fn function(mut fields: Fields) -> Result<Tool, ApiError> {
    let name = fields.required_string("name")?;
    check_name(&fields.path("name"), &name)?;
    let param = fields.path("parameters");
    let parameters = fields.object("parameters")?.map(Value::Object);
    if let Some(schema) = &parameters {
        check_arguments(&param, &name, schema)?;
    }
    let tool = Tool {
        name,
        param,
        description: fields.string("description")?,
        parameters,
        strict: fields.bool("strict")?.unwrap_or(false),
    };
    fields.finish()?;
    Ok(tool)
}

/// Arguments are objects: a schema `at` a path that asks for something else can never be met.
pub(crate) fn check_arguments(at: &str, name: &str, schema: &Value) -> Result<(), ApiError> {
    match &schema["type"] {
        // What is not said is left open.
        Value::Null if schema.get("type").is_none() => Ok(()),
        Value::String(kind) if kind == "object" => Ok(()),
        other => {
            let message = format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \
                 \"object\"', got 'type: {other}'."
            );
            Err(ApiError::invalid(
                at,
                "invalid_function_parameters",
                message,
            ))
        }
    }
}

impl Tools {
    fn choose(&mut self, word: &str) -> Result<(), ApiError> {
        self.choice = match word {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => {
                return Err(invalid_value(
                    "tool_choice",
                    word,
                    &["none", "auto", "required"],
                ));
            }
        };
        if self.choice != ToolChoice::None && self.tools.is_empty() {
            let message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when \
                           'tools' are specified.";
            return Err(ApiError::bad_request(message).with_param("tool_choice"));
        }
        Ok(())
    }

    /// `{"type": "function", "function": {"name"}}`, the same without nesting, or
    /// `{"type": "allowed_tools", ...}`.
    fn choose_by_name(&mut self, mut choice: Fields) -> Result<(), ApiError> {
        let kind = choice.required_string("type")?;
        match kind.as_str() {
            "function" => {
                let name = tool_name(choice)?;
                self.keep("tool_choice", &[name])?;
                self.choice = ToolChoice::Named;
                Ok(())
            }
            "allowed_tools" => self.choose_among(choice),
            known if HOSTED.contains(&known) => {
                let value = format!("tools of type '{kind}'");
                Err(ApiError::unsupported_value("tool_choice.type", &value))
            }
            _ => Err(invalid_value(
                "tool_choice.type",
                &kind,
                &["function", "allowed_tools"],
            )),
        }
    }

    fn choose_among(&mut self, mut choice: Fields) -> Result<(), ApiError> {
        // Nested in chat completions, flat in responses.
        if let Some(nested) = choice.fields("allowed_tools")? {
            choice.finish()?;
            choice = nested;
        }
        let mode = choice.required_string("mode")?;
        let path = choice.path("tools");
        let items = match choice.require("tools", "an array of objects")? {
            Value::Array(items) if items.is_empty() => return Err(empty_array(&path)),
            Value::Array(items) => items,
            other => return Err(choice.wrong_type("tools", "an array of objects", &other)),
        };
        let mut names = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let mut tool = Fields::from_value(&format!("{path}[{i}]"), item)?;
            allowed_kind(&mut tool)?;
            names.push(tool_name(tool)?);
        }
        choice.finish()?;
        self.keep(&path, &names)?;
        self.choice = match mode.as_str() {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => {
                let param = "tool_choice.allowed_tools.mode";
                return Err(invalid_value(param, &mode, &["auto", "required"]));
            }
        };
        Ok(())
    }

    /// Only these are left.
    fn keep(&mut self, param: &str, names: &[String]) -> Result<(), ApiError> {
        for name in names {
            if !self.tools.iter().any(|tool| tool.name == *name) {
                let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
                return Err(ApiError::invalid(param, "invalid_value", message));
            }
        }
        self.tools.retain(|tool| names.contains(&tool.name));
        Ok(())
    }
}

/// Only functions can be allowed; clients leave that out.
fn allowed_kind(tool: &mut Fields) -> Result<(), ApiError> {
    match tool.string("type")?.as_deref() {
        None | Some("function") => Ok(()),
        Some(known) if HOSTED.contains(&known) => {
            let value = format!("tools of type '{known}'");
            Err(ApiError::unsupported_value(&tool.path("type"), &value))
        }
        Some(other) => Err(invalid_value(&tool.path("type"), other, &["function"])),
    }
}

fn tool_name(mut fields: Fields) -> Result<String, ApiError> {
    let name = match fields.fields("function")? {
        Some(mut nested) => {
            let name = nested.required_string("name")?;
            nested.finish()?;
            name
        }
        None => fields.required_string("name")?,
    };
    fields.finish()?;
    Ok(name)
}
