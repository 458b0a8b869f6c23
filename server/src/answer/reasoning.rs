//! The thoughts of models that think before they answer: `<think>...</think>`.

use std::str::FromStr;

use super::Deltas;
use super::marker::{Found, find};

/// How a model writes down what it thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningSyntax {
    /// It does not: all is content.
    None,
    /// `<think>...</think>` before the answer.
    Think,
    /// On the channel `analysis`: gpt-oss.
    Harmony,
}

impl ReasoningSyntax {
    /// What a chat template tells.
    pub fn of_template(template: &str) -> Self {
        if template.contains("<|channel|>") {
            Self::Harmony
        } else if template.contains(CLOSE) {
            Self::Think
        } else {
            Self::None
        }
    }
}

impl FromStr for ReasoningSyntax {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(Self::None),
            "think" => Ok(Self::Think),
            "harmony" => Ok(Self::Harmony),
            _ => Err("expected one of none, think, harmony".to_owned()),
        }
    }
}

/// Where an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// The prompt has opened the thoughts.
    Inside,
    /// The model opens them itself, or does not.
    MayBegin,
}

/// Marks that a tokenizer may have as control tokens.
pub const THINKING_MARKS: [&str; 2] = [OPEN, CLOSE];

pub(super) const OPEN: &str = "<think>";
pub(super) const CLOSE: &str = "</think>";

impl Thinking {
    /// What a prompt says that ends in the middle of an answer.
    pub fn of_beginning(text: &str) -> Option<Self> {
        let is_inside = text.rfind(OPEN) > text.rfind(CLOSE);
        is_inside.then_some(Self::Inside)
    }

    /// What the end of a rendered prompt says, for a model whose template knows of thoughts.
    /// `None`: the prompt holds them already, closed.
    pub fn of_prompt(prompt: &str) -> Option<Self> {
        let end = prompt.trim_end();
        if end.ends_with(OPEN) {
            Some(Self::Inside)
        } else if end.ends_with(CLOSE) {
            None
        } else {
            Some(Self::MayBegin)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    MayBegin,
    Inside,
    /// Right after the thoughts: blank space belongs to neither side.
    Closed,
    Content,
}

/// Parts thoughts from content.
#[derive(Debug)]
pub(super) struct ReasoningSplitter {
    state: State,
    pending: String,
    /// Nothing but blank space was thought so far.
    is_blank: bool,
}

impl ReasoningSplitter {
    pub(super) fn new(thinking: Option<Thinking>) -> Self {
        Self {
            state: match thinking {
                None => State::Content,
                Some(Thinking::Inside) => State::Inside,
                Some(Thinking::MayBegin) => State::MayBegin,
            },
            pending: String::new(),
            is_blank: true,
        }
    }

    pub(super) fn is_thinking(&self) -> bool {
        self.state == State::Inside
    }

    /// Takes text, and gives back what of it is content.
    pub(super) fn push(&mut self, text: &str, deltas: &mut Deltas) -> String {
        if self.state == State::Content {
            return text.to_owned();
        }
        self.pending.push_str(text);
        if self.state == State::MayBegin {
            let begun = self.pending.trim_start();
            if let Some(rest) = begun.strip_prefix(OPEN) {
                self.pending = rest.to_owned();
                self.state = State::Inside;
            } else if OPEN.starts_with(begun) {
                return String::new();
            } else {
                self.state = State::Content;
                return std::mem::take(&mut self.pending);
            }
        }
        if self.state == State::Inside {
            self.think(deltas);
        }
        if self.state == State::Closed {
            let content = self.pending.trim_start().to_owned();
            self.pending.clear();
            if !content.is_empty() {
                self.state = State::Content;
            }
            return content;
        }
        String::new()
    }

    fn think(&mut self, deltas: &mut Deltas) {
        match find(&self.pending, &[CLOSE]) {
            Found::Whole { start, end } => {
                let thoughts = self.pending[..start].trim_end().to_owned();
                self.emit(&thoughts, deltas);
                self.pending.drain(..end);
                self.state = State::Closed;
            }
            Found::NotBefore(safe) => {
                // Blank space may be that before the end.
                let safe = self.pending[..safe].trim_end().len();
                let thoughts: String = self.pending.drain(..safe).collect();
                self.emit(&thoughts, deltas);
            }
        }
    }

    fn emit(&mut self, thoughts: &str, deltas: &mut Deltas) {
        let thoughts = if self.is_blank {
            thoughts.trim_start()
        } else {
            thoughts
        };
        self.is_blank &= thoughts.is_empty();
        deltas.reasoning(thoughts);
    }

    /// The end: what was held back is no marker.
    pub(super) fn finish(&mut self, deltas: &mut Deltas) -> String {
        let rest = std::mem::take(&mut self.pending);
        match self.state {
            State::Inside => {
                self.emit(rest.trim_end(), deltas);
                String::new()
            }
            State::MayBegin | State::Closed | State::Content => rest,
        }
    }
}
