//! One call, in whatever notation.

use serde_json::Value;

use super::call::{CallScanner, Progress};
use super::gemma::{GEMMA_CALL, GemmaScanner};
use super::python::PythonScanner;
use super::xml::{XML_CALL, XmlScanner};
use super::{CallRules, ToolSyntax};

/// Reads one call, character by character. Its name is known before any argument is given out.
#[derive(Debug)]
pub(super) enum Scanner {
    Json(CallScanner),
    Python(PythonScanner),
    Gemma(GemmaScanner),
    Xml(XmlScanner),
}

/// What text is, where a call may begin.
pub(super) enum Beginning {
    Call(Box<Scanner>),
    /// More must come before that can be told.
    Unclear,
    NoCall,
}

impl Scanner {
    /// What `text`, which is not empty, begins with.
    pub(super) fn of_beginning(rules: &CallRules, text: &str) -> Beginning {
        let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
        let scanner = match rules.syntax {
            ToolSyntax::DeepSeek | ToolSyntax::Harmony => return Beginning::NoCall,
            ToolSyntax::Pythonic | ToolSyntax::ToolCode if text.starts_with(is_name) => {
                Self::Python(PythonScanner::new())
            }
            ToolSyntax::Pythonic | ToolSyntax::ToolCode => return Beginning::NoCall,
            ToolSyntax::Gemma => return Self::marked(GEMMA_CALL, text, &rules.tools),
            ToolSyntax::QwenXml if !text.starts_with('{') => {
                return Self::marked(XML_CALL, text, &rules.tools);
            }
            _ if text.starts_with('{') => Self::Json(CallScanner::new()),
            _ => return Beginning::NoCall,
        };
        Beginning::Call(Box::new(scanner))
    }

    /// A call that begins with a mark of its own.
    fn marked(mark: &str, text: &str, tools: &[(String, Value)]) -> Beginning {
        if text.starts_with(mark) {
            let scanner = match mark {
                XML_CALL => Self::Xml(XmlScanner::new(tools)),
                _ => Self::Gemma(GemmaScanner::new()),
            };
            Beginning::Call(Box::new(scanner))
        } else if mark.starts_with(text) {
            Beginning::Unclear
        } else {
            Beginning::NoCall
        }
    }

    pub(super) fn push(&mut self, c: char) -> Progress {
        match self {
            Self::Json(scanner) => scanner.push(c),
            Self::Python(scanner) => scanner.push(c),
            Self::Gemma(scanner) => scanner.push(c),
            Self::Xml(scanner) => scanner.push(c),
        }
    }

    /// The name, once it is known.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Json(scanner) => scanner.name(),
            Self::Python(scanner) => scanner.name(),
            Self::Gemma(scanner) => scanner.name(),
            Self::Xml(scanner) => scanner.name(),
        }
    }

    /// Arguments that have not been given out.
    pub(super) fn take_arguments(&mut self) -> String {
        match self {
            Self::Json(scanner) => scanner.take_arguments(),
            Self::Python(scanner) => scanner.take_arguments(),
            Self::Gemma(scanner) => scanner.take_arguments(),
            Self::Xml(scanner) => scanner.take_arguments(),
        }
    }

    /// Whether the call has said anything of its arguments.
    pub(super) fn has_arguments(&self) -> bool {
        match self {
            Self::Json(scanner) => scanner.has_arguments(),
            Self::Python(_) | Self::Gemma(_) | Self::Xml(_) => true,
        }
    }
}
