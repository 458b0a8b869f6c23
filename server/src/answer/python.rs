//! One call as Python writes it: `name(key=value, ...)`. Positional arguments have no name that a
//! client could be told, so that a call with some is no call.

use super::call::Progress;
use super::literal::{Literal, Notation, Step};

/// Longest name of a function or an argument.
const MAX_NAME: usize = 100;

#[derive(Debug)]
enum At {
    Name,
    /// Behind the bracket or a comma.
    KeyStart,
    Key,
    Equals,
    Value(Box<Literal>),
    AfterValue,
}

#[derive(Debug)]
pub(super) struct PythonScanner {
    at: At,
    /// What is being read: the name, or a key.
    word: String,
    name: Option<String>,
    is_announced: bool,
    arguments: String,
    n_arguments: usize,
}

impl PythonScanner {
    pub(super) fn new() -> Self {
        Self {
            at: At::Name,
            word: String::new(),
            name: None,
            is_announced: false,
            arguments: String::new(),
            n_arguments: 0,
        }
    }

    /// The name, once the first argument shows that it is a call.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.is_announced)
    }

    pub(super) fn take_arguments(&mut self) -> String {
        std::mem::take(&mut self.arguments)
    }

    pub(super) fn push(&mut self, c: char) -> Progress {
        let is_space = c.is_ascii_whitespace();
        match &mut self.at {
            At::Name if is_part(c) && self.word.len() < MAX_NAME => self.word.push(c),
            At::Name if c == '(' && !self.word.is_empty() => {
                self.name = Some(std::mem::take(&mut self.word));
                self.at = At::KeyStart;
            }
            At::KeyStart | At::Equals | At::AfterValue if is_space => {}
            At::KeyStart | At::AfterValue if c == ')' => return self.end(),
            At::AfterValue if c == ',' => self.at = At::KeyStart,
            At::KeyStart if is_part(c) => {
                self.word.push(c);
                self.at = At::Key;
            }
            At::Key if is_part(c) && self.word.len() < MAX_NAME => self.word.push(c),
            At::Key if is_space => self.at = At::Equals,
            At::Key | At::Equals if c == '=' => self.begin_value(),
            At::Value(literal) => {
                let step = literal.push(c);
                self.arguments.push_str(&literal.take());
                match step {
                    Step::More => {}
                    Step::Last => self.at = At::AfterValue,
                    Step::Before => {
                        self.at = At::AfterValue;
                        return self.push(c);
                    }
                    Step::Bad => return Progress::Bad,
                }
            }
            _ => return Progress::Bad,
        }
        Progress::More
    }

    fn begin_value(&mut self) {
        self.is_announced = true;
        let key = serde_json::Value::String(std::mem::take(&mut self.word));
        let before = if self.n_arguments == 0 { "{" } else { ", " };
        self.arguments.push_str(&format!("{before}{key}: "));
        self.n_arguments += 1;
        self.at = At::Value(Box::new(Literal::new(Notation::Python)));
    }

    fn end(&mut self) -> Progress {
        self.is_announced = true;
        let end = if self.n_arguments == 0 { "{}" } else { "}" };
        self.arguments.push_str(end);
        Progress::Done
    }
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c)
}
