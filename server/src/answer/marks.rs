//! Marks in grammars: control tokens by their number, others as text.

use crate::grammar::lark_string;
use crate::text::Tokenizer;

pub(super) struct Marks<'a>(pub(super) &'a Tokenizer);

impl Marks<'_> {
    /// The control token that a mark is, if it is one.
    pub(super) fn id(&self, mark: &str) -> Option<u32> {
        let id = self.0.token_id(mark);
        id.filter(|id| self.0.is_special(*id))
    }

    pub(super) fn one(&self, mark: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("<[{id}]>"),
            None => lark_string(mark),
        }
    }

    /// A mark and text after it.
    pub(super) fn then(&self, mark: &str, text: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("<[{id}]> {}", lark_string(text)),
            None => lark_string(&format!("{mark}{text}")),
        }
    }

    /// Text and a mark after it.
    pub(super) fn after(&self, text: &str, mark: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("{} <[{id}]>", lark_string(text)),
            None => lark_string(&format!("{text}{mark}")),
        }
    }
}

/// A text as a regular expression that matches nothing else.
pub(super) fn escaped(text: &str) -> String {
    const SPECIAL: &str = r"\.+*?()|[]{}^$#&-~/";
    let mut regex = String::new();
    for c in text.chars() {
        if SPECIAL.contains(c) {
            regex.push('\\');
        }
        match c {
            '\n' => regex.push_str("\\n"),
            c => regex.push(c),
        }
    }
    regex
}
