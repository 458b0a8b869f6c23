//! The body of `POST /v1/decisions`: questions about an input.

use std::fmt::Write;

use serde_json::{Value, json};

use super::chat_request::take_cache_options;
use super::fields::{array_too_long, empty_array, invalid_value, type_name};
use super::{ApiError, Fields, Serving, items};

/// Most questions of one request.
const MAX_QUESTIONS: usize = 400;
/// Fewest and most answers to choose from.
const CHOICES: (usize, usize) = (2, 255);

/// A request for decisions, checked.
#[derive(Clone, Debug)]
pub struct DecisionRequest {
    /// Items that every question is about.
    pub input: Vec<Value>,
    pub questions: Vec<Question>,
    pub serving: Serving,
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub name: Option<String>,
    pub instructions: String,
    pub kind: QuestionKind,
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq)]
pub enum QuestionKind {
    /// Whether a statement is true.
    Predicate,
    /// One of these values.
    Choice(Vec<Choice>),
    /// A level; they are in order.
    Score(Vec<Level>),
}

/// A value, a string or a boolean, that can be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub value: Value,
    pub description: Option<String>,
}

/// A level of a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub label: String,
    pub description: Option<String>,
}

impl DecisionRequest {
    /// Reads a body whose `model` has been taken already.
    pub fn parse(mut body: Fields) -> Result<Self, ApiError> {
        let mut input = body.require("input", "one of a string or an array of objects")?;
        write_out_json(&mut input);
        body.put("input", input);
        let input = items::take_input(&mut body)?;
        if input.is_empty() {
            return Err(empty_array("input"));
        }
        for (i, item) in input.iter().enumerate() {
            if ["reasoning", "item_reference"].contains(&item["type"].as_str().unwrap_or_default())
            {
                let value = format!("items of type {}", item["type"]);
                return Err(ApiError::unsupported_value(
                    &format!("input[{i}].type"),
                    &value,
                ));
            }
        }
        let questions = questions(&mut body)?;
        let serving = Serving::take(&mut body)?;
        body.string("safety_identifier")?;
        take_cache_options(&mut body)?;
        body.finish()?;
        Ok(Self {
            input,
            questions,
            serving,
        })
    }
}

/// Parts of type `input_json` become text, which is how models read them.
fn write_out_json(input: &mut Value) {
    let items = input.as_array_mut().into_iter().flatten();
    let parts = items.filter_map(|item| item.get_mut("content")?.as_array_mut());
    for part in parts.flatten() {
        if part["type"] == "input_json" && (part["data"].is_object() || part["data"].is_array()) {
            *part = json!({"type": "input_text", "text": part["data"].to_string()});
        }
    }
}

fn questions(body: &mut Fields) -> Result<Vec<Question>, ApiError> {
    const EXPECTED: &str = "an array of objects";
    let found = match body.require("questions", EXPECTED)? {
        Value::Array(found) => found,
        other => return Err(body.wrong_type("questions", EXPECTED, &other)),
    };
    match found.len() {
        0 => return Err(empty_array("questions")),
        n if n > MAX_QUESTIONS => return Err(array_too_long("questions", MAX_QUESTIONS, n)),
        _ => {}
    }
    let found = found.into_iter().enumerate();
    found
        .map(|(i, value)| question(Fields::from_value(&format!("questions[{i}]"), value)?))
        .collect()
}

fn question(mut fields: Fields) -> Result<Question, ApiError> {
    const KINDS: [&str; 3] = ["predicate", "choice", "score"];
    let kind = fields.required_string("type")?;
    let kind = match kind.as_str() {
        "predicate" => QuestionKind::Predicate,
        "choice" => QuestionKind::Choice(choices(&mut fields)?),
        "score" => QuestionKind::Score(levels(&mut fields)?),
        _ => return Err(invalid_value(&fields.path("type"), &kind, &KINDS)),
    };
    let question = Question {
        name: fields.string("name")?,
        instructions: instructions(&mut fields)?,
        kind,
    };
    fields.finish()?;
    Ok(question)
}

fn instructions(fields: &mut Fields) -> Result<String, ApiError> {
    const EXPECTED: &str = "one of a string or an array of parts";
    let path = fields.path("instructions");
    let parts = match fields.require("instructions", EXPECTED)? {
        Value::String(text) => return Ok(text),
        Value::Array(parts) if parts.is_empty() => return Err(empty_array(&path)),
        Value::Array(parts) => parts,
        other => return Err(fields.wrong_type("instructions", EXPECTED, &other)),
    };
    let mut text = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        let mut part = Fields::from_value(&format!("{path}[{i}]"), part)?;
        let kind = part.required_string("type")?;
        let piece = match kind.as_str() {
            "input_text" => part.required_string("text")?,
            "input_json" => match part.require("data", "an object")? {
                data @ (Value::Object(_) | Value::Array(_)) => data.to_string(),
                other => return Err(part.wrong_type("data", "an object", &other)),
            },
            "input_image" => {
                let value = "'input_image' parts";
                return Err(ApiError::unsupported_value(&part.path("type"), value));
            }
            _ => {
                const PARTS: [&str; 2] = ["input_text", "input_json"];
                return Err(invalid_value(&part.path("type"), &kind, &PARTS));
            }
        };
        part.finish()?;
        let line_end = if text.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        write!(text, "{line_end}{piece}").ok();
    }
    Ok(text)
}

/// The objects of an array of a length that can be decided among.
fn options(fields: &mut Fields, name: &str) -> Result<Vec<Fields>, ApiError> {
    const EXPECTED: &str = "an array of objects";
    let path = fields.path(name);
    let found = match fields.require(name, EXPECTED)? {
        Value::Array(found) => found,
        other => return Err(fields.wrong_type(name, EXPECTED, &other)),
    };
    let (min, max) = CHOICES;
    if found.len() > max {
        return Err(array_too_long(&path, max, found.len()));
    }
    if found.len() < min {
        let message = format!(
            "Invalid '{path}': array too short. Expected an array with minimum length {min}, but \
             got an array with length {} instead.",
            found.len()
        );
        return Err(ApiError::invalid(&path, "array_below_min_length", message));
    }
    let found = found.into_iter().enumerate();
    found
        .map(|(i, value)| Fields::from_value(&format!("{path}[{i}]"), value))
        .collect()
}

fn choices(fields: &mut Fields) -> Result<Vec<Choice>, ApiError> {
    let mut choices: Vec<Choice> = Vec::new();
    for mut option in options(fields, "choices")? {
        const EXPECTED: &str = "one of a string or a boolean";
        let path = option.path("value");
        let value = match option.require("value", EXPECTED)? {
            value @ (Value::String(_) | Value::Bool(_)) => value,
            other => return Err(ApiError::wrong_type(&path, EXPECTED, type_name(&other))),
        };
        if choices.iter().any(|choice| choice.value == value) {
            let message = format!("Invalid '{path}': there is another choice {value}.");
            return Err(ApiError::invalid(&path, "invalid_value", message));
        }
        let description = option.string("description")?;
        option.finish()?;
        choices.push(Choice { value, description });
    }
    Ok(choices)
}

fn levels(fields: &mut Fields) -> Result<Vec<Level>, ApiError> {
    let options = options(fields, "levels")?.into_iter();
    options
        .map(|mut option| {
            let label = option.required_string("label")?;
            let description = option.string("description")?;
            option.finish()?;
            Ok(Level { label, description })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(questions: Value) -> Result<DecisionRequest, ApiError> {
        let body = json!({"input": [{"role": "user", "content": [
            {"type": "input_json", "data": {"a": 1}}]}], "questions": questions});
        DecisionRequest::parse(Fields::from_value("", body)?)
    }

    #[test]
    fn parts_of_json_are_text() {
        let predicate = json!([{"type": "predicate", "instructions": [
            {"type": "input_text", "text": "It is"}, {"type": "input_json", "data": {"b": []}}]}]);
        let request = parse(predicate).unwrap();
        assert_eq!(request.input[0]["content"][0]["text"], r#"{"a":1}"#);
        assert_eq!(request.questions[0].instructions, "It is\n{\"b\":[]}");
        assert_eq!(request.questions[0].kind, QuestionKind::Predicate);
    }

    #[test]
    fn errors_point_at_the_question() {
        let choice =
            |choices: Value| json!([{"type": "choice", "instructions": "x", "choices": choices}]);
        for (questions, param, code) in [
            (json!([]), "questions", "empty_array"),
            (
                json!([{"type": "guess"}]),
                "questions[0].type",
                "invalid_value",
            ),
            (
                json!([{"type": "predicate"}]),
                "questions[0].instructions",
                "missing_required_parameter",
            ),
            (
                choice(json!([{"value": "a"}])),
                "questions[0].choices",
                "array_below_min_length",
            ),
            (
                choice(json!([{"value": "a"}, {"value": 1}])),
                "questions[0].choices[1].value",
                "invalid_type",
            ),
            (
                choice(json!([{"value": "a"}, {"value": "a"}])),
                "questions[0].choices[1].value",
                "invalid_value",
            ),
            (
                json!([{"type": "predicate", "instructions": [{"type": "input_image"}]}]),
                "questions[0].instructions[0].type",
                "unsupported_value",
            ),
            (
                json!([{"type": "predicate", "instructions": "x", "why": 1}]),
                "questions[0].why",
                "unknown_parameter",
            ),
        ] {
            let error = parse(questions.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{questions}");
            assert_eq!(error.code.as_deref(), Some(code), "{questions}");
        }
        let typed = choice(json!([{"value": "true"}, {"value": true}]));
        assert!(parse(typed).is_ok(), "values have types");
    }
}
