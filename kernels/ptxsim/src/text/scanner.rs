//! Cuts the text into items: scopes, labels, directives and statements, each with its line.

use crate::fault::PtxError;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Open,
    Close,
    Label(String),
    /// Begins with a dot.
    Directive(String),
    Statement(String),
}

pub(super) struct Scanner {
    text: Vec<u8>,
    at: usize,
    line: u32,
}

/// The text with comments blanked out, so that lines stay where they are.
fn without_comments(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at + 1 < bytes.len() {
        let end: &[u8] = match &bytes[at..at + 2] {
            b"//" => b"\n",
            b"/*" => b"*/",
            _ => {
                at += 1;
                continue;
            }
        };
        let found = bytes[at..].windows(end.len()).position(|w| w == end);
        let stop = found.map_or(bytes.len(), |n| at + n + if end == b"*/" { 2 } else { 0 });
        for byte in &mut bytes[at..stop] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = stop;
    }
    bytes
}

impl Scanner {
    pub(super) fn new(text: &str) -> Self {
        let text = without_comments(text);
        let (at, line) = (0, 1);
        Self { text, at, line }
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                break;
            }
            self.line += u32::from(*byte == b'\n');
            self.at += 1;
        }
    }

    /// Takes the text up to the first byte that `stop` names, which is taken only if `eat`.
    fn take(&mut self, stop: impl Fn(u8) -> bool, eat: bool) -> String {
        let rest = &self.text[self.at..];
        let n = rest.iter().position(|b| stop(*b)).unwrap_or(rest.len());
        let taken = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.line += rest[..n].iter().filter(|b| **b == b'\n').count() as u32;
        self.at += n + usize::from(eat && n < rest.len());
        taken.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Skips a section of debug data, braces and all.
    fn skip_section(&mut self) {
        self.take(|b| b == b'}', true);
    }

    fn directive(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let starts = |word: &[u8]| rest.starts_with(word);
        if starts(b".section") {
            self.skip_section();
            return None;
        }
        let of_a_line: [&[u8]; 5] = [b".loc", b".file", b".version", b".target", b".address_size"];
        // `.local` is not `.loc`.
        let blank = |at: usize| rest.get(at).is_none_or(u8::is_ascii_whitespace);
        let whole = |word: &&[u8]| starts(word) && blank(word.len());
        if of_a_line.iter().any(whole) {
            return Some(self.take(|b| b == b'\n', false));
        }
        let end = rest.iter().position(|b| *b == b';').unwrap_or(rest.len());
        let head = String::from_utf8_lossy(&rest[..end]);
        if head.contains(".entry") || head.contains(".func") {
            // A definition ends at its body, a declaration at the semicolon.
            let text = self.take(|b| b == b'{' || b == b';', false);
            if self.text.get(self.at) == Some(&b';') {
                self.at += 1;
                return None;
            }
            return Some(text);
        }
        Some(self.take(|b| b == b';', true))
    }

    /// The label here, if one is.
    fn label(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'%');
        let n = rest.iter().position(|b| !is_name(b))?;
        let after = rest[n..].iter().position(|b| *b != b' ')? + n;
        if n == 0 || rest[after] != b':' || rest.get(after + 1) == Some(&b':') {
            return None;
        }
        let name = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.at += after + 1;
        Some(name)
    }

    /// The next item and its line.
    pub(super) fn next(&mut self) -> Result<Option<(Item, u32)>, PtxError> {
        loop {
            self.skip_blank();
            let line = self.line;
            let Some(first) = self.text.get(self.at).copied() else {
                return Ok(None);
            };
            let item = match first {
                b'{' | b'}' => {
                    self.at += 1;
                    if first == b'{' {
                        Item::Open
                    } else {
                        Item::Close
                    }
                }
                b';' => {
                    self.at += 1;
                    continue;
                }
                b'.' => match self.directive() {
                    Some(text) => Item::Directive(text),
                    None => continue,
                },
                _ => match self.label() {
                    Some(name) => Item::Label(name),
                    None => {
                        let text = self.take(|b| b == b';', true);
                        if self.at >= self.text.len() && self.text.last() != Some(&b';') {
                            return Err(PtxError::new(line, "the statement has no end"));
                        }
                        Item::Statement(text)
                    }
                },
            };
            return Ok(Some((item, line)));
        }
    }
}
