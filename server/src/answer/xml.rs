//! One call as Qwen3-Coder and its relatives write it:
//! `<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>`.
//!
//! A value is the text itself. What it is in JSON is told by the function's schema: a string is
//! given out while it is read, everything else once it is whole.

use serde_json::Value;

use super::call::Progress;
use super::literal::push_escaped;

/// What a call begins with.
pub(super) const XML_CALL: &str = "<function=";
const XML_PARAMETER: &str = "<parameter=";
const XML_END: &str = "</function>";
/// Ends of a value; the line end before it is none of it.
const VALUE_ENDS: [&str; 2] = ["\n</parameter>", "</parameter>"];
/// Longest tag.
const MAX_TAG: usize = 200;

#[derive(Debug)]
enum At {
    /// In the tag that names the function, or between parameters.
    Tag,
    Text,
    /// A value that is no string, or may be none: what it may be.
    Other(Vec<String>),
}

#[derive(Debug)]
pub(super) struct XmlScanner {
    at: At,
    tag: String,
    name: Option<String>,
    /// Of the tools there are.
    schemas: Vec<(String, Value)>,
    /// What may be the end of the value.
    held: String,
    value: String,
    is_value_begun: bool,
    arguments: String,
    n_arguments: usize,
}

impl XmlScanner {
    pub(super) fn new(tools: &[(String, Value)]) -> Self {
        Self {
            at: At::Tag,
            tag: String::new(),
            name: None,
            schemas: tools.to_vec(),
            held: String::new(),
            value: String::new(),
            is_value_begun: false,
            arguments: String::new(),
            n_arguments: 0,
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn take_arguments(&mut self) -> String {
        std::mem::take(&mut self.arguments)
    }

    pub(super) fn push(&mut self, c: char) -> Progress {
        match self.at {
            At::Tag => self.tag(c),
            At::Text | At::Other(_) => {
                self.value(c);
                Progress::More
            }
        }
    }

    fn tag(&mut self, c: char) -> Progress {
        if self.tag.is_empty() && c.is_ascii_whitespace() {
            return Progress::More;
        }
        self.tag.push(c);
        let begins = |mark: &str| mark.starts_with(&self.tag) || self.tag.starts_with(mark);
        let is_known = match self.name {
            None => begins(XML_CALL),
            Some(_) => begins(XML_PARAMETER) || XML_END.starts_with(&self.tag),
        };
        if !is_known || self.tag.len() > MAX_TAG {
            return Progress::Bad;
        }
        if c != '>' {
            return Progress::More;
        }
        let tag = std::mem::take(&mut self.tag);
        let word = |mark: &str| tag.strip_prefix(mark)?.strip_suffix('>').map(str::trim);
        if let Some(name) = word(XML_CALL).filter(|name| !name.is_empty()) {
            self.name = Some(name.to_owned());
        } else if let Some(key) = word(XML_PARAMETER) {
            self.begin_value(key);
        } else if tag == XML_END {
            let end = if self.n_arguments == 0 { "{}" } else { "}" };
            self.arguments.push_str(end);
            return Progress::Done;
        } else {
            return Progress::Bad;
        }
        Progress::More
    }

    fn begin_value(&mut self, key: &str) {
        let before = if self.n_arguments == 0 { "{" } else { ", " };
        self.n_arguments += 1;
        let quoted = Value::String(key.to_owned());
        self.arguments.push_str(&format!("{before}{quoted}: "));
        self.is_value_begun = false;
        let schema = self
            .schemas
            .iter()
            .find(|(name, _)| Some(name) == self.name.as_ref());
        let schema = schema.map(|(_, schema)| &schema["properties"][key]);
        let types = schema.map(types_of).unwrap_or_default();
        self.at = if types == ["string"] {
            self.arguments.push('"');
            At::Text
        } else {
            At::Other(types)
        };
    }

    fn value(&mut self, c: char) {
        // One line end after the tag is the notation's.
        if !std::mem::replace(&mut self.is_value_begun, true) && c == '\n' {
            return;
        }
        self.held.push(c);
        if VALUE_ENDS.contains(&self.held.as_str()) {
            self.held.clear();
            return self.end_value();
        }
        while !VALUE_ENDS.iter().any(|end| end.starts_with(&self.held)) {
            let first = self.held.remove(0);
            match self.at {
                At::Text => push_escaped(&mut self.arguments, first),
                At::Tag | At::Other(_) => self.value.push(first),
            }
        }
    }

    fn end_value(&mut self) {
        match std::mem::replace(&mut self.at, At::Tag) {
            At::Text | At::Tag => self.arguments.push('"'),
            At::Other(types) => {
                let text = std::mem::take(&mut self.value);
                self.arguments.push_str(&as_json(&text, &types));
            }
        }
    }
}

/// What a text is that is not known to be a string.
fn as_json(text: &str, types: &[String]) -> String {
    let literal = match text.trim() {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    let allows = |word: &str| types.is_empty() || types.iter().any(|one| one == word);
    let is_meant = serde_json::from_str::<Value>(literal).is_ok_and(|value| match value {
        Value::Null => allows("null"),
        Value::Bool(_) => allows("boolean"),
        Value::Number(_) => allows("number") || allows("integer"),
        Value::Array(_) => allows("array"),
        Value::Object(_) => allows("object"),
        // With its quotes, it is one only if nothing else can be meant.
        Value::String(_) => !allows("string"),
    });
    if is_meant {
        literal.to_owned()
    } else {
        Value::String(text.to_owned()).to_string()
    }
}

/// Types that a schema allows; none if it does not say.
pub(super) fn types_of(schema: &Value) -> Vec<String> {
    let mut types = Vec::new();
    collect_types(schema, &mut types);
    types.dedup();
    types
}

fn collect_types(schema: &Value, types: &mut Vec<String>) {
    match &schema["type"] {
        Value::String(one) => return types.push(one.clone()),
        Value::Array(some) => {
            return types.extend(some.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        _ => {}
    }
    let listed = schema["enum"].as_array().into_iter().flatten();
    for value in listed.chain(schema.get("const")) {
        let word = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        types.push(word.to_owned());
    }
    for word in ["anyOf", "oneOf"] {
        for option in schema[word].as_array().into_iter().flatten() {
            collect_types(option, types);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_the_schema_says() {
        let maybe = json!({"anyOf": [{"type": "string"}, {"type": "null"}]});
        assert_eq!(types_of(&maybe), ["string", "null"]);
        assert_eq!(types_of(&json!({"enum": ["a", "b"]})), ["string"]);
        assert_eq!(types_of(&Value::Null), Vec::<String>::new());
        for (text, schema, json) in [
            ("12", json!({"type": "integer"}), "12"),
            (
                "12",
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                "\"12\"",
            ),
            ("None", maybe, "null"),
            ("{\"a\": [1]}", json!({"type": "object"}), "{\"a\": [1]}"),
            ("\"x\"", json!({}), "\"\\\"x\\\"\""),
            ("some \"text\"", json!({}), "\"some \\\"text\\\"\""),
            ("True", json!({"type": "boolean"}), "true"),
        ] {
            assert_eq!(as_json(text, &types_of(&schema)), json, "{text} {schema}");
        }
    }
}
