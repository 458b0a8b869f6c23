//! What a request demands of the form of its answer: `response_format`, and the extensions that
//! name a grammar outright.

use serde_json::{Map, Value};

use super::fields::{empty_array, invalid_value};
use super::{ApiError, Fields};
use crate::grammar::{Grammar, is_gbnf, to_lark};

/// Bytes of a grammar that is read here; what is larger is refused by the compiler.
const MAX_GBNF_BYTES: usize = 64 << 10;

/// A grammar, and how to speak of it in errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    pub grammar: Grammar,
    /// The parameter it came from.
    pub param: String,
    /// The hosted wording: `Invalid schema for response_format 'name'`.
    pub complaint: String,
}

impl Format {
    fn new(param: &str, grammar: Grammar) -> Self {
        Self {
            grammar,
            param: param.to_owned(),
            complaint: format!("Invalid grammar in '{param}'"),
        }
    }

    /// The error of a grammar that cannot be compiled.
    pub fn error(&self, reason: &str) -> ApiError {
        let code = match self.grammar {
            Grammar::JsonSchema(_) => "invalid_json_schema",
            _ => "invalid_grammar",
        };
        let message = format!("{}: {reason}.", self.complaint);
        ApiError::invalid(&self.param, code, message)
    }
}

/// Takes `response_format` and the extensions; at most one of them may be there.
pub(super) fn take(body: &mut Fields) -> Result<Option<Format>, ApiError> {
    let mut formats = Vec::new();
    if let Some(format) = body.fields("response_format")? {
        formats.extend(response_format(format)?);
    }
    take_extensions(body, &mut formats)?;
    at_most_one(formats)
}

fn take_extensions(body: &mut Fields, formats: &mut Vec<Format>) -> Result<(), ApiError> {
    if let Some(mut outputs) = body.fields("structured_outputs")? {
        extensions(&mut outputs, formats)?;
        outputs.finish()?;
    }
    for name in ["regex", "grammar"] {
        if let Some(text) = body.string(name)? {
            formats.push(text_format(name, name, text)?);
        }
    }
    Ok(())
}

fn at_most_one(mut formats: Vec<Format>) -> Result<Option<Format>, ApiError> {
    match formats.len() {
        0 | 1 => Ok(formats.pop()),
        _ => {
            let param = &formats[1].param;
            let message = format!(
                "'{}' and '{param}' cannot be combined: an answer has one form.",
                formats[0].param
            );
            Err(ApiError::invalid(
                param,
                "invalid_parameter_combination",
                message,
            ))
        }
    }
}

/// The nested form of chat completions: `{"type", "json_schema": {"name", "schema", ...}}`.
fn response_format(mut format: Fields) -> Result<Option<Format>, ApiError> {
    const KINDS: [&str; 3] = ["text", "json_object", "json_schema"];
    let kind = format.required_string("type")?;
    let found = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Format::new("response_format", Grammar::json_object())),
        "json_schema" => {
            let path = format.path("json_schema");
            let nested = format.require("json_schema", "an object")?;
            let nested = Fields::from_value(&path, nested)?;
            Some(json_schema(nested, "response_format")?)
        }
        _ => return Err(invalid_value(&format.path("type"), &kind, &KINDS)),
    };
    format.finish()?;
    Ok(found)
}

/// The flat form of responses: `{"type", "name", "schema", ...}`. Its path is `text.format`.
pub(super) fn flat(mut format: Fields) -> Result<Option<Format>, ApiError> {
    const KINDS: [&str; 3] = ["text", "json_object", "json_schema"];
    const PARAM: &str = "text.format";
    let kind = format.required_string("type")?;
    match kind.as_str() {
        "json_schema" => {
            let path = format.path("schema");
            let schema = format.require("schema", "an object")?;
            Fields::from_value(&path, schema.clone())?;
            format.put("schema", schema);
            return json_schema(format, PARAM).map(Some);
        }
        "text" | "json_object" => format.finish()?,
        _ => return Err(invalid_value(&format.path("type"), &kind, &KINDS)),
    }
    Ok((kind == "json_object").then(|| Format::new(PARAM, Grammar::json_object())))
}

/// The extensions that name a grammar outright, beside a format of another name.
pub(super) fn take_beside(
    body: &mut Fields,
    format: Option<Format>,
) -> Result<Option<Format>, ApiError> {
    let mut formats: Vec<Format> = format.into_iter().collect();
    take_extensions(body, &mut formats)?;
    at_most_one(formats)
}

fn json_schema(mut fields: Fields, param: &str) -> Result<Format, ApiError> {
    let name = fields.required_string("name")?;
    check_name(&fields.path("name"), &name)?;
    fields.string("description")?;
    // Without it the schema is enforced all the same.
    fields.bool("strict")?;
    let schema = fields.object("schema")?.unwrap_or_default();
    fields.finish()?;
    Ok(Format {
        grammar: Grammar::JsonSchema(Value::Object(schema)),
        param: param.to_owned(),
        complaint: format!("Invalid schema for response_format '{name}'"),
    })
}

/// Names of schemas and functions.
pub(crate) fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let message = format!(
        "Invalid '{path}': string does not match pattern. Expected a string that matches the \
         pattern '^[a-zA-Z0-9_-]{{1,64}}$'."
    );
    Err(ApiError::invalid(path, "invalid_value", message))
}

/// A pattern, or a grammar in one of two notations.
fn text_format(path: &str, name: &str, text: String) -> Result<Format, ApiError> {
    if name == "regex" {
        return Ok(Format::new(path, Grammar::Regex(text)));
    }
    if text.len() > MAX_GBNF_BYTES || !is_gbnf(&text) {
        return Ok(Format::new(path, Grammar::Lark(text)));
    }
    let mut format = Format::new(path, Grammar::Lark(String::new()));
    let lark = to_lark(&text).map_err(|reason| format.error(&reason))?;
    format.grammar = Grammar::Lark(lark);
    Ok(format)
}

/// `structured_outputs`, as other servers of open models have it.
fn extensions(outputs: &mut Fields, formats: &mut Vec<Format>) -> Result<(), ApiError> {
    if let Some(schema) = outputs.take("json") {
        let param = outputs.path("json");
        let schema = match schema {
            Value::String(text) => serde_json::from_str::<Map<String, Value>>(&text)
                .map(Value::Object)
                .map_err(|error| {
                    let message = format!("Invalid schema in '{param}': {error}.");
                    ApiError::invalid(&param, "invalid_json_schema", message)
                })?,
            schema => schema,
        };
        formats.push(Format::new(&param, Grammar::JsonSchema(schema)));
    }
    for name in ["regex", "grammar"] {
        if let Some(text) = outputs.string(name)? {
            formats.push(text_format(&outputs.path(name), name, text)?);
        }
    }
    if let Some(choices) = outputs.take("choice") {
        let param = outputs.path("choice");
        formats.push(Format::new(
            &param,
            Grammar::Choice(texts(&param, choices)?),
        ));
    }
    if outputs.bool("json_object")? == Some(true) {
        let param = outputs.path("json_object");
        formats.push(Format::new(&param, Grammar::json_object()));
    }
    Ok(())
}

fn texts(path: &str, value: Value) -> Result<Vec<String>, ApiError> {
    let Value::Array(items) = value else {
        let found = super::fields::type_name(&value);
        return Err(ApiError::wrong_type(path, "an array of strings", found));
    };
    if items.is_empty() {
        return Err(empty_array(path));
    }
    let texts = items.into_iter().enumerate().map(|(i, item)| match item {
        Value::String(text) => Ok(text),
        other => {
            let found = super::fields::type_name(&other);
            Err(ApiError::wrong_type(
                &format!("{path}[{i}]"),
                "a string",
                found,
            ))
        }
    });
    texts.collect()
}
