//! Answers of gpt-oss: messages on channels.
//!
//! `<|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>final<|message|>text`.
//! A message to `functions.name`, whether the header says so before the channel or behind it, is a
//! call. Messages on the channel `commentary` to nobody are for the user.
//! Source: the description of the format that came with the models.

use super::marker::{Found, find};
use super::{CallRules, Deltas};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// Marks that end a message.
const ENDS: [&str; 5] = ["<|end|>", "<|return|>", "<|call|>", START, CHANNEL];

/// Marks that are control tokens, which text would leave out.
pub const HARMONY_MARKS: [&str; 7] = [
    START,
    CHANNEL,
    MESSAGE,
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|constrain|>",
];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thoughts,
    Content,
    /// Arguments of a call, and whether any have come.
    Call {
        is_empty: bool,
    },
    /// Of a call that is left out.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing has come yet: a header, or text without one.
    Beginning,
    Header,
    Body(Kind),
    /// After a message.
    Between,
}

#[derive(Debug)]
pub(super) struct HarmonyParser {
    at: At,
    pending: String,
    may_call: bool,
    parallel: bool,
    required: bool,
    n_calls: u32,
    has_thoughts: bool,
    has_content: bool,
    /// A message of a kind that has had one begins on a line of its own.
    is_first_text: bool,
}

impl HarmonyParser {
    pub(super) fn new(calls: Option<&CallRules>) -> Self {
        Self {
            at: At::Beginning,
            pending: String::new(),
            may_call: calls.is_some(),
            parallel: calls.is_none_or(|calls| calls.parallel),
            required: calls.is_some_and(|calls| calls.required),
            n_calls: 0,
            has_thoughts: false,
            has_content: false,
            is_first_text: true,
        }
    }

    pub(super) fn is_thinking(&self) -> bool {
        self.at == At::Body(Kind::Thoughts)
    }

    pub(super) fn push(&mut self, text: &str, deltas: &mut Deltas) {
        self.pending.push_str(text);
        while self.step(deltas) {}
    }

    /// The end: a header that has no message is text.
    pub(super) fn finish(&mut self, deltas: &mut Deltas) {
        let rest = std::mem::take(&mut self.pending);
        match self.at {
            At::Beginning if !self.required => {
                self.text(Kind::Content, &rest, deltas);
            }
            At::Body(kind) => {
                let kind = self.text(kind, &rest, deltas);
                self.end(kind, deltas);
            }
            At::Beginning | At::Header | At::Between => {}
        }
    }

    /// Reads on; false when more text is needed.
    fn step(&mut self, deltas: &mut Deltas) -> bool {
        match self.at {
            At::Beginning => self.begin(),
            At::Header => self.header(deltas),
            At::Body(kind) => self.body(kind, deltas),
            At::Between => self.between(),
        }
    }

    fn begin(&mut self) -> bool {
        const HEADERS: [&str; 4] = [START, CHANNEL, MESSAGE, "to="];
        let begun = self.pending.trim_start();
        if begun.is_empty() {
            return false;
        }
        if HEADERS.iter().any(|mark| begun.starts_with(mark)) {
            self.at = At::Header;
        } else if HEADERS.iter().any(|mark| mark.starts_with(begun)) {
            return false;
        } else {
            self.at = At::Body(Kind::Content);
        }
        true
    }

    fn header(&mut self, deltas: &mut Deltas) -> bool {
        let Some(n_header) = self.pending.find(MESSAGE) else {
            return false;
        };
        let header: String = self.pending.drain(..n_header + MESSAGE.len()).collect();
        let kind = self.kind_of(&header[..n_header], deltas);
        self.is_first_text = true;
        self.at = At::Body(kind);
        true
    }

    /// What a message is by its header. A call is told at once.
    fn kind_of(&mut self, header: &str, deltas: &mut Deltas) -> Kind {
        let (_, recipient) = header.split_once("to=").unwrap_or_default();
        let is_word = |c: char| !c.is_whitespace() && c != '<';
        let recipient = recipient.split(|c| !is_word(c)).next().unwrap_or_default();
        let (_, channel) = header.split_once(CHANNEL).unwrap_or(("", "final"));
        let channel = channel.split(|c| !is_word(c)).next().unwrap_or_default();
        match recipient.strip_prefix("functions.") {
            Some(name) if self.may_call && !name.is_empty() => {
                let is_counted = self.parallel || self.n_calls == 0;
                if !is_counted {
                    return Kind::Nothing;
                }
                deltas.call(self.n_calls, name.to_owned());
                self.n_calls += 1;
                Kind::Call { is_empty: true }
            }
            // Tools that run where the hosted models run are not here: what is said to them is
            // thinking aloud.
            _ if channel == "analysis" || !recipient.is_empty() => Kind::Thoughts,
            _ => Kind::Content,
        }
    }

    fn body(&mut self, kind: Kind, deltas: &mut Deltas) -> bool {
        match find(&self.pending, &ENDS) {
            Found::Whole { start, end } => {
                let text: String = self.pending.drain(..start).collect();
                let mark: String = self.pending.drain(..end - start).collect();
                let kind = self.text(kind, &text, deltas);
                self.end(kind, deltas);
                self.at = At::Between;
                if mark == START || mark == CHANNEL {
                    self.at = At::Header;
                    self.pending.insert_str(0, &mark);
                }
                true
            }
            Found::NotBefore(safe) => {
                let text: String = self.pending.drain(..safe).collect();
                let kind = self.text(kind, &text, deltas);
                self.at = At::Body(kind);
                false
            }
        }
    }

    /// Between messages nothing is said.
    fn between(&mut self) -> bool {
        match find(&self.pending, &[START, CHANNEL]) {
            Found::Whole { start, .. } => {
                self.pending.drain(..start);
                self.at = At::Header;
                true
            }
            Found::NotBefore(safe) => {
                self.pending.drain(..safe);
                false
            }
        }
    }

    /// Gives out text of a message; what the message is then.
    fn text(&mut self, kind: Kind, text: &str, deltas: &mut Deltas) -> Kind {
        if text.is_empty() {
            return kind;
        }
        let is_first = std::mem::replace(&mut self.is_first_text, false);
        match kind {
            Kind::Thoughts => {
                let had = std::mem::replace(&mut self.has_thoughts, true);
                deltas.reasoning(if is_first && had { "\n" } else { "" });
                deltas.reasoning(text);
            }
            Kind::Content => {
                let had = std::mem::replace(&mut self.has_content, true);
                deltas.content(if is_first && had { "\n" } else { "" });
                deltas.content(text);
            }
            Kind::Call { .. } => {
                deltas.arguments(self.n_calls - 1, text);
                return Kind::Call { is_empty: false };
            }
            Kind::Nothing => {}
        }
        kind
    }

    /// A message has ended.
    fn end(&mut self, kind: Kind, deltas: &mut Deltas) {
        if kind == (Kind::Call { is_empty: true }) {
            deltas.arguments(self.n_calls - 1, "{}");
        }
    }
}
