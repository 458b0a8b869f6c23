//! JSON as Python's `json.dumps` writes it: prompts must equal those that models were trained on.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The arguments of `json.dumps`.
#[derive(Debug)]
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    /// One level of indentation; `None`: everything on one line.
    pub(super) indent: Option<String>,
    /// Between items.
    pub(super) item: String,
    /// Between key and value.
    pub(super) key: String,
    pub(super) sort_keys: bool,
}

impl Default for JsonStyle {
    fn default() -> Self {
        Self {
            ensure_ascii: false,
            indent: None,
            item: ", ".into(),
            key: ": ".into(),
            sort_keys: false,
        }
    }
}

impl JsonStyle {
    pub(super) fn write(&self, value: &Value) -> String {
        let mut out = String::new();
        self.value(&mut out, value, 0);
        out
    }

    fn value(&self, out: &mut String, value: &Value, depth: usize) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => out.push_str(&python_number(number)),
            Value::String(text) => self.string(out, text),
            Value::Array(items) => {
                self.container(out, ('[', ']'), depth, items, |out, item| {
                    self.value(out, item, depth + 1);
                });
            }
            Value::Object(map) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| key.as_str());
                }
                self.container(out, ('{', '}'), depth, &entries, |out, (key, value)| {
                    self.string(out, key);
                    out.push_str(&self.key);
                    self.value(out, value, depth + 1);
                });
            }
        }
    }

    fn container<T>(
        &self,
        out: &mut String,
        (open, close): (char, char),
        depth: usize,
        items: &[T],
        write: impl Fn(&mut String, &T),
    ) {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item);
            }
            self.line(out, depth + 1);
            write(out, item);
        }
        if !items.is_empty() {
            self.line(out, depth);
        }
        out.push(close);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("writing to a string cannot fail");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Integers as they are; floats as Python's `repr` (`1e+20`, not `1e20`).
fn python_number(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    if float != 0.0 && !(1e-4..1e16).contains(&float.abs()) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn style(ensure_ascii: bool, indent: Option<&str>) -> JsonStyle {
        let item = if indent.is_some() { "," } else { ", " };
        JsonStyle {
            ensure_ascii,
            indent: indent.map(str::to_string),
            item: item.into(),
            key: ": ".into(),
            sort_keys: ensure_ascii,
        }
    }

    #[test]
    fn equals_python() {
        let value = json!({"b": [1, 2.5, 1e20, 1e-7, 1.0, 123456789.125], "a": {}, "c": "<é🙂\n\u{1}\u{7f}>", "d": []});
        assert_eq!(
            style(false, None).write(&value),
            "{\"b\": [1, 2.5, 1e+20, 1e-07, 1.0, 123456789.125], \"a\": {}, \"c\": \"<é🙂\\n\\u0001\u{7f}>\", \"d\": []}"
        );
        assert_eq!(
            style(true, Some("  ")).write(&json!({"z": [1], "a": "é🙂\u{7f}"})),
            "{\n  \"a\": \"\\u00e9\\ud83d\\ude42\\u007f\",\n  \"z\": [\n    1\n  ]\n}"
        );
    }
}
