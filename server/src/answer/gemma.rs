//! One call as Gemma models write it between their marks: `call:name{key:value,...}`.

use super::call::Progress;
use super::literal::{Literal, Notation, Step};

/// What a call begins with.
pub(super) const GEMMA_CALL: &str = "call:";

/// Longest name of a function.
const MAX_NAME: usize = 100;

#[derive(Debug)]
pub(super) struct GemmaScanner {
    /// What was read before the arguments.
    header: String,
    name: Option<String>,
    arguments: Literal,
}

impl GemmaScanner {
    pub(super) fn new() -> Self {
        Self {
            header: String::new(),
            name: None,
            arguments: Literal::new(Notation::Gemma),
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn take_arguments(&mut self) -> String {
        self.arguments.take()
    }

    pub(super) fn push(&mut self, c: char) -> Progress {
        if self.name.is_none() && c == '{' {
            let name = self.header.strip_prefix(GEMMA_CALL).map(str::trim);
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return Progress::Bad;
            };
            self.name = Some(name.to_owned());
        }
        if self.name.is_none() {
            self.header.push(c);
            let is_call =
                self.header.starts_with(GEMMA_CALL) || GEMMA_CALL.starts_with(&self.header);
            let is_name = !c.is_whitespace() && self.header.len() <= MAX_NAME;
            return if is_call && is_name {
                Progress::More
            } else {
                Progress::Bad
            };
        }
        match self.arguments.push(c) {
            Step::More => Progress::More,
            Step::Last => Progress::Done,
            Step::Before | Step::Bad => Progress::Bad,
        }
    }
}
