//! Parts tool calls from content.

use super::call::{CallScanner, Progress};
use super::marker::{Found, find};
use super::scanner::{Beginning, Scanner};
use super::syntax::{DEEPSEEK_CALL, DEEPSEEK_SEPARATOR};
use super::xml::XML_CALL;
use super::{CallRules, Deltas, ToolSyntax};

/// Longest text between a mark and the arguments that is still taken for a name.
const MAX_HEADER: usize = 300;

#[derive(Debug)]
enum State {
    Text,
    /// After a mark or a call: another call, or the end of them.
    Between,
    /// A name before an object of arguments.
    Header,
    Call(Box<Scanner>),
}

/// Reads content and calls of one choice.
#[derive(Debug)]
pub(super) struct ToolSplitter {
    rules: CallRules,
    state: State,
    /// Text that has not been read.
    pending: String,
    /// Text read since the last mark, to be content after all if no call comes of it.
    raw: String,
    /// Blank space that belongs to the content only if more content follows.
    space: String,
    /// The call in progress has been announced.
    is_announced: bool,
    n_calls: u32,
    /// No call may begin without a mark any more.
    is_past_start: bool,
}

impl ToolSplitter {
    pub(super) fn new(rules: &CallRules) -> Self {
        Self {
            rules: rules.clone(),
            state: State::Text,
            pending: String::new(),
            raw: String::new(),
            space: String::new(),
            is_announced: false,
            n_calls: 0,
            is_past_start: false,
        }
    }

    pub(super) fn push(&mut self, text: &str, deltas: &mut Deltas) {
        self.pending.push_str(text);
        while self.step(deltas) {}
    }

    /// The end: half a call with a name stays half a call, all else is content if there may be any.
    pub(super) fn finish(&mut self, deltas: &mut Deltas) {
        if !self.is_announced || matches!(self.state, State::Text) {
            let rest = std::mem::take(&mut self.raw) + &self.pending;
            self.pending.clear();
            self.text(&rest, deltas);
        }
        if self.n_calls == 0 {
            deltas.content(&std::mem::take(&mut self.space));
        }
    }

    /// Reads on; false when more text is needed.
    fn step(&mut self, deltas: &mut Deltas) -> bool {
        match &self.state {
            State::Text => self.read_text(deltas),
            State::Between => self.read_between(deltas),
            State::Header => self.read_header(deltas),
            State::Call(_) => self.read_call(deltas),
        }
    }

    fn read_text(&mut self, deltas: &mut Deltas) -> bool {
        if !self.is_past_start && !self.rules.syntax.bare().is_empty() {
            let begun = self.pending.trim_start();
            let Some(first) = begun.chars().next() else {
                return false;
            };
            self.is_past_start = true;
            if self.rules.syntax.bare().contains(&first) {
                self.state = State::Between;
                return true;
            }
        }
        match find(&self.pending, self.rules.syntax.opening()) {
            Found::Whole { start, end } => {
                let before: String = self.pending.drain(..start).collect();
                self.text(&before, deltas);
                self.is_past_start = true;
                self.state = State::Between;
                // Marks that are part of a call are read again, as that.
                if !self.pending.starts_with(DEEPSEEK_CALL) && !self.pending.starts_with(XML_CALL) {
                    self.consume(end - start);
                }
                true
            }
            Found::NotBefore(safe) => {
                let clear: String = self.pending.drain(..safe).collect();
                self.text(&clear, deltas);
                false
            }
        }
    }

    fn read_between(&mut self, deltas: &mut Deltas) -> bool {
        let n_blank = self.pending.len() - self.pending.trim_start().len();
        self.consume(n_blank);
        let Some(first) = self.pending.chars().next() else {
            return false;
        };
        let syntax = self.rules.syntax;
        match Scanner::of_beginning(&self.rules, &self.pending) {
            Beginning::Call(scanner) => {
                self.is_announced = false;
                self.state = State::Call(scanner);
                return true;
            }
            Beginning::Unclear => return false,
            Beginning::NoCall => {}
        }
        if syntax == ToolSyntax::DeepSeek && self.pending.starts_with(DEEPSEEK_CALL) {
            self.is_announced = false;
            self.consume(DEEPSEEK_CALL.len());
            self.state = State::Header;
            return true;
        }
        let may_become =
            |mark: &str| mark.len() > self.pending.len() && mark.starts_with(self.pending.as_str());
        let mut marks = syntax.between().iter().map(|(mark, _)| *mark);
        if marks.any(may_become) || may_become(DEEPSEEK_CALL) {
            return false;
        }
        for (mark, goes_on) in syntax.between() {
            if self.pending.starts_with(mark) {
                self.consume(mark.len());
                if *goes_on {
                    self.close(deltas);
                }
                return true;
            }
        }
        if syntax == ToolSyntax::Mistral && (first.is_alphanumeric() || first == '_') {
            self.is_announced = false;
            self.state = State::Header;
        } else {
            self.close(deltas);
        }
        true
    }

    /// Calls have ended. What was read without a call coming of it is content.
    fn close(&mut self, deltas: &mut Deltas) {
        let raw = std::mem::take(&mut self.raw);
        if !self.is_announced {
            self.text(&raw, deltas);
        }
        self.is_announced = false;
        self.state = State::Text;
    }

    fn read_header(&mut self, deltas: &mut Deltas) -> bool {
        let Some(n_header) = self.pending.find('{') else {
            if self.pending.len() > MAX_HEADER {
                self.close(deltas);
                return true;
            }
            return false;
        };
        let header = self.pending[..n_header].to_owned();
        let name = match header.split_once(DEEPSEEK_SEPARATOR) {
            Some((kind, rest)) if kind.trim() == "function" => rest.lines().next(),
            Some((name, _)) => Some(name),
            None => header.split('[').next(),
        };
        let name = name.unwrap_or_default().trim().to_owned();
        if name.is_empty() || name.contains(char::is_whitespace) || n_header > MAX_HEADER {
            self.close(deltas);
            return true;
        }
        self.consume(n_header);
        self.announce(name, deltas);
        let scanner = Scanner::Json(CallScanner::of_arguments());
        self.state = State::Call(Box::new(scanner));
        true
    }

    fn read_call(&mut self, deltas: &mut Deltas) -> bool {
        let State::Call(scanner) = &mut self.state else {
            return false;
        };
        let mut n_read = 0;
        let mut progress = Progress::More;
        for c in self.pending.chars() {
            progress = scanner.push(c);
            if progress == Progress::Bad {
                break;
            }
            n_read += c.len_utf8();
            if progress == Progress::Done {
                break;
            }
        }
        let name = scanner.name().map(str::to_owned);
        let arguments = match self.is_announced || name.is_some() {
            true => scanner.take_arguments(),
            false => String::new(),
        };
        let has_arguments = scanner.has_arguments();
        self.consume(n_read);
        if let Some(name) = name.filter(|_| !self.is_announced) {
            if self.rules.syntax.must_be_known() && !self.rules.knows(&name) {
                self.give_up(deltas);
                return true;
            }
            self.announce(name, deltas);
        }
        if self.is_announced {
            self.arguments(&arguments, deltas);
        }
        match progress {
            Progress::More => return false,
            Progress::Done if has_arguments => self.state = State::Between,
            Progress::Done => {
                self.arguments("{}", deltas);
                self.state = State::Between;
            }
            Progress::Bad => self.give_up(deltas),
        }
        true
    }

    /// This is no call, or has stopped being one.
    fn give_up(&mut self, deltas: &mut Deltas) {
        let raw = std::mem::take(&mut self.raw);
        if !self.is_announced {
            self.text(&raw, deltas);
        }
        self.is_announced = false;
        self.state = State::Text;
    }

    fn announce(&mut self, name: String, deltas: &mut Deltas) {
        self.is_announced = true;
        self.raw.clear();
        self.space.clear();
        if self.is_counted(self.n_calls) {
            deltas.call(self.n_calls, name);
        }
        self.n_calls += 1;
    }

    fn arguments(&mut self, json: &str, deltas: &mut Deltas) {
        let index = self.n_calls - 1;
        if self.is_counted(index) {
            deltas.arguments(index, json);
        }
    }

    fn is_counted(&self, index: u32) -> bool {
        self.rules.parallel || index == 0
    }

    /// Takes text that is no content, unless nothing comes of it.
    fn consume(&mut self, n_bytes: usize) {
        let read: String = self.pending.drain(..n_bytes).collect();
        if !self.is_announced {
            self.raw.push_str(&read);
        }
    }

    /// Content. Blank space is held back: before a call it is no part of the message. An answer
    /// that is all calls has none: what reads like text there is the beginning of a call.
    fn text(&mut self, text: &str, deltas: &mut Deltas) {
        if self.rules.required {
            return;
        }
        self.space.push_str(text);
        let n_text = self.space.trim_end().len();
        if n_text > 0 {
            let ready: String = self.space.drain(..n_text).collect();
            deltas.content(&ready);
        }
    }
}
