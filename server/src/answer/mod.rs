//! Answers read as messages: reasoning, content and tool calls, out of a stream of text.
//!
//! One incremental parser serves streams and whole answers alike: a whole answer is the fold of
//! its stream. What comes out does not depend on how the text was cut.

mod call;
mod demand;
mod gemma;
mod harmony;
mod literal;
mod marker;
mod marks;
mod named;
mod notation;
mod python;
mod reasoning;
mod scanner;
mod splitter;
mod syntax;
mod taught;
mod xml;

pub use demand::{Demand, Needed};
pub use harmony::HARMONY_MARKS;
pub use reasoning::{ReasoningSyntax, THINKING_MARKS, Thinking};
pub use syntax::ToolSyntax;
pub use taught::{has_calls, taught};

use serde_json::Value;

use harmony::HarmonyParser;
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
    /// The answer is messages on channels, thoughts and calls among them.
    pub harmony: bool,
}

/// How tool calls are read.
#[derive(Clone, Debug)]
pub struct CallRules {
    pub syntax: ToolSyntax,
    /// The tools there are: names, and schemas of their arguments.
    pub tools: Vec<(String, Value)>,
    /// Calls after the first are left out.
    pub parallel: bool,
    /// A grammar sees to it that there are calls and, but on channels, no text.
    pub required: bool,
}

impl CallRules {
    fn knows(&self, name: &str) -> bool {
        self.tools.iter().any(|(known, _)| known == name)
    }
}

/// Reads one choice.
#[derive(Debug)]
pub struct AnswerParser(Parser);

#[derive(Debug)]
enum Parser {
    /// Thoughts, then content with calls in it.
    Plain(ReasoningSplitter, Option<Box<ToolSplitter>>),
    Harmony(Box<HarmonyParser>),
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
        if rules.harmony {
            return Self(Parser::Harmony(Box::new(HarmonyParser::new(
                rules.calls.as_ref(),
            ))));
        }
        let calls = rules.calls.as_ref().map(ToolSplitter::new);
        let reasoning = ReasoningSplitter::new(rules.thinking);
        Self(Parser::Plain(reasoning, calls.map(Box::new)))
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Parser::Harmony(parser) => parser.push(text, &mut deltas),
            Parser::Plain(reasoning, calls) => {
                let text = reasoning.push(text, &mut deltas);
                content(calls.as_deref_mut(), &text, &mut deltas);
            }
        }
        deltas.0
    }

    /// What was held back, at the end of the answer.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Deltas::default();
        match &mut self.0 {
            Parser::Harmony(parser) => parser.finish(&mut deltas),
            Parser::Plain(reasoning, calls) => {
                let text = reasoning.finish(&mut deltas);
                content(calls.as_deref_mut(), &text, &mut deltas);
                if let Some(calls) = calls {
                    calls.finish(&mut deltas);
                }
            }
        }
        deltas.0
    }

    /// Whether all of the answer so far was thoughts.
    pub fn is_thinking(&self) -> bool {
        match &self.0 {
            Parser::Harmony(parser) => parser.is_thinking(),
            Parser::Plain(reasoning, _) => reasoning.is_thinking(),
        }
    }
}

fn content(calls: Option<&mut ToolSplitter>, text: &str, deltas: &mut Deltas) {
    match calls {
        None => deltas.content(text),
        Some(calls) => calls.push(text, deltas),
    }
}

#[cfg(test)]
mod demand_tests;
#[cfg(test)]
mod tests;
