//! Answers read as messages: reasoning, content and tool calls, out of a stream of text.
//!
//! One incremental parser serves streams and whole answers alike: a whole answer is the fold of
//! its stream. What comes out does not depend on how the text was cut.

mod call;
mod forced;
mod marker;
mod reasoning;
mod splitter;
mod syntax;
mod taught;

pub use forced::{after_thoughts, forced_calls};
pub use reasoning::{THINKING_MARKS, Thinking};
pub use syntax::ToolSyntax;
pub use taught::{has_calls, taught};

use reasoning::ReasoningSplitter;
use splitter::ToolSplitter;

/// What a piece of text adds to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    Reasoning(String),
    Content(String),
    /// Call `index` begins; calls are numbered from 0 in order.
    Call {
        index: u32,
        name: String,
    },
    /// More of the arguments of call `index`, as JSON text.
    Arguments {
        index: u32,
        json: String,
    },
}

/// How answers to one request are read.
#[derive(Clone, Debug, Default)]
pub struct AnswerRules {
    /// `None`: the model does not think, or nobody asked.
    pub thinking: Option<Thinking>,
    /// `None`: no tools, so that all is content.
    pub calls: Option<CallRules>,
}

/// How tool calls are read.
#[derive(Clone, Debug)]
pub struct CallRules {
    pub syntax: ToolSyntax,
    /// Names of the tools there are.
    pub names: Vec<String>,
    /// Calls after the first are left out.
    pub parallel: bool,
}

/// Reads one choice.
#[derive(Debug)]
pub struct AnswerParser {
    reasoning: ReasoningSplitter,
    calls: Option<ToolSplitter>,
}

/// Deltas of one push, neighbours of a kind joined.
#[derive(Debug, Default)]
struct Deltas(Vec<Delta>);

impl Deltas {
    fn reasoning(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Reasoning(last)) => last.push_str(text),
            _ => self.0.push(Delta::Reasoning(text.to_owned())),
        }
    }

    fn content(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Content(last)) => last.push_str(text),
            _ => self.0.push(Delta::Content(text.to_owned())),
        }
    }

    fn call(&mut self, index: u32, name: String) {
        self.0.push(Delta::Call { index, name });
    }

    fn arguments(&mut self, call: u32, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Delta::Arguments { index, json }) if *index == call => json.push_str(text),
            _ => self.0.push(Delta::Arguments {
                index: call,
                json: text.to_owned(),
            }),
        }
    }
}

impl AnswerParser {
    pub fn new(rules: &AnswerRules) -> Self {
        Self {
            reasoning: ReasoningSplitter::new(rules.thinking),
            calls: rules.calls.as_ref().map(ToolSplitter::new),
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        let content = self.reasoning.push(text, &mut deltas);
        self.content(&content, &mut deltas);
        deltas.0
    }

    /// What was held back, at the end of the answer.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        let content = self.reasoning.finish(&mut deltas);
        self.content(&content, &mut deltas);
        if let Some(calls) = &mut self.calls {
            calls.finish(&mut deltas);
        }
        deltas.0
    }

    /// Whether all of the answer so far was thoughts.
    pub fn is_thinking(&self) -> bool {
        self.reasoning.is_thinking()
    }

    /// Whether the answer has called a tool so far.
    pub fn has_calls(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.n_calls() > 0)
    }

    fn content(&mut self, text: &str, deltas: &mut Deltas) {
        match &mut self.calls {
            None => deltas.content(text),
            Some(calls) => calls.push(text, deltas),
        }
    }
}

#[cfg(test)]
mod tests;
