//! Values as Python and Gemma write them, turned into JSON while they are read.

/// Whose notation. JSON's own is read in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    /// `{"a": [1, 'x', True]}`.
    Python,
    /// `{a:[1,<escape>x<escape>,true]}`, or with `<|"|>` around texts.
    Gemma,
}

/// Marks around texts of Gemma models.
const GEMMA_QUOTES: [&str; 2] = ["<escape>", "<|\"|>"];
/// Longest number or word.
const MAX_WORD: usize = 100;

/// A list or an object that is open.
#[derive(Debug)]
struct Open {
    close: char,
    is_object: bool,
    is_empty: bool,
}

#[derive(Debug)]
enum At {
    Value,
    Key,
    Colon,
    /// A number, a word, or a key without quotes.
    Word(String),
    /// The beginning of a mark that quotes.
    Mark(String),
    /// In a text that ends by a mark. What may be that is held back.
    Text(&'static str, String),
    Escape(&'static str),
    /// Digits of a character, and how many there must be.
    Digits(&'static str, String, usize),
    After,
}

/// What a character has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// It was the last of the value.
    Last,
    /// The value ended before it.
    Before,
    Bad,
}

/// Reads one value.
#[derive(Debug)]
pub(super) struct Literal {
    notation: Notation,
    at: At,
    open: Vec<Open>,
    /// What is read is a key.
    is_key: bool,
    json: String,
}

impl Literal {
    pub(super) fn new(notation: Notation) -> Self {
        Self {
            notation,
            at: At::Value,
            open: Vec::new(),
            is_key: false,
            json: String::new(),
        }
    }

    /// JSON that has not been given out.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.json)
    }

    pub(super) fn push(&mut self, c: char) -> Step {
        let is_space = c.is_ascii_whitespace();
        match std::mem::replace(&mut self.at, At::After) {
            At::Text(end, held) => self.text(end, held, c),
            At::Escape(end) => self.escape(end, c),
            At::Digits(end, digits, n) => self.digits(end, digits, n, c),
            At::Mark(mark) => self.mark(mark, c),
            At::Word(word) => self.word(word, c),
            at @ (At::Value | At::Key | At::Colon | At::After) if is_space => self.go(at),
            At::Value => self.value(c),
            At::Key if c == '}' => self.close(),
            At::Key => {
                self.comma();
                self.is_key = true;
                self.scalar(c)
            }
            At::Colon if c == ':' => {
                self.json.push_str(": ");
                self.go(At::Value)
            }
            At::Colon => Step::Bad,
            At::After => self.after(c),
        }
    }

    fn go(&mut self, at: At) -> Step {
        self.at = at;
        Step::More
    }

    /// A value begins, or its list ends.
    fn value(&mut self, c: char) -> Step {
        if let Some(open) = self.open.last().filter(|open| !open.is_object) {
            if c == open.close {
                return self.close();
            }
            self.comma();
        }
        match c {
            '{' => self.begin('{', '}'),
            '[' => self.begin('[', ']'),
            '(' if self.notation == Notation::Python => self.begin('[', ')'),
            _ => self.scalar(c),
        }
    }

    /// Between this item and the one before, if there is one.
    fn comma(&mut self) {
        if let Some(open) = self.open.last_mut()
            && !std::mem::replace(&mut open.is_empty, false)
        {
            self.json.push_str(", ");
        }
    }

    fn begin(&mut self, json: char, close: char) -> Step {
        let is_object = close == '}';
        self.json.push(json);
        self.open.push(Open {
            close,
            is_object,
            is_empty: true,
        });
        self.go(if is_object { At::Key } else { At::Value })
    }

    fn close(&mut self) -> Step {
        let Some(open) = self.open.pop() else {
            return Step::Bad;
        };
        self.json.push(if open.is_object { '}' } else { ']' });
        self.end()
    }

    /// A value or a key has ended.
    fn end(&mut self) -> Step {
        if std::mem::take(&mut self.is_key) {
            return self.go(At::Colon);
        }
        self.at = At::After;
        if self.open.is_empty() {
            Step::Last
        } else {
            Step::More
        }
    }

    fn after(&mut self, c: char) -> Step {
        match self.open.last() {
            Some(open) if c == open.close => self.close(),
            Some(open) if c == ',' => {
                let next = if open.is_object { At::Key } else { At::Value };
                self.go(next)
            }
            _ => Step::Bad,
        }
    }

    /// A text, a number or a word begins.
    fn scalar(&mut self, c: char) -> Step {
        match c {
            '"' => self.begin_text("\""),
            '\'' if self.notation == Notation::Python => self.begin_text("'"),
            '<' if self.notation == Notation::Gemma => self.go(At::Mark(c.into())),
            _ if is_word(c) => self.go(At::Word(c.into())),
            _ => Step::Bad,
        }
    }

    fn begin_text(&mut self, end: &'static str) -> Step {
        self.json.push('"');
        self.go(At::Text(end, String::new()))
    }

    fn mark(&mut self, mut mark: String, c: char) -> Step {
        mark.push(c);
        if let Some(quote) = GEMMA_QUOTES.iter().find(|quote| **quote == mark) {
            return self.begin_text(quote);
        }
        if GEMMA_QUOTES.iter().any(|quote| quote.starts_with(&mark)) {
            return self.go(At::Mark(mark));
        }
        Step::Bad
    }

    fn text(&mut self, end: &'static str, mut held: String, c: char) -> Step {
        held.push(c);
        if held == end {
            self.json.push('"');
            return self.end();
        }
        if end.len() == 1 && c == '\\' {
            return self.go(At::Escape(end));
        }
        // The rest is no part of the end, but what follows it may be.
        while !end.starts_with(&held) {
            let first = held.remove(0);
            push_escaped(&mut self.json, first);
        }
        self.go(At::Text(end, held))
    }

    fn escape(&mut self, end: &'static str, c: char) -> Step {
        let n = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if n > 0 {
            return self.go(At::Digits(end, String::new(), n));
        }
        match c {
            'n' | 't' | 'r' | 'b' | 'f' | '\\' | '"' => {
                self.json.push('\\');
                self.json.push(c);
            }
            '\'' | '/' => self.json.push(c),
            '\n' => {}
            '0' => push_escaped(&mut self.json, '\0'),
            // Python keeps what it does not know.
            _ => {
                self.json.push_str("\\\\");
                push_escaped(&mut self.json, c);
            }
        }
        self.go(At::Text(end, String::new()))
    }

    fn digits(&mut self, end: &'static str, mut digits: String, n: usize, c: char) -> Step {
        if !c.is_ascii_hexdigit() {
            return Step::Bad;
        }
        digits.push(c);
        if digits.len() < n {
            return self.go(At::Digits(end, digits, n));
        }
        if n == 4 {
            // As it is: halves of a character come one after the other.
            self.json.push_str("\\u");
            self.json.push_str(&digits);
        } else {
            let number = u32::from_str_radix(&digits, 16).ok();
            let Some(character) = number.and_then(char::from_u32) else {
                return Step::Bad;
            };
            push_escaped(&mut self.json, character);
        }
        self.go(At::Text(end, String::new()))
    }

    fn word(&mut self, mut word: String, c: char) -> Step {
        if is_word(c) && word.len() < MAX_WORD {
            word.push(c);
            return self.go(At::Word(word));
        }
        let is_key = self.is_key;
        let Some(json) = self.word_as_json(&word) else {
            return Step::Bad;
        };
        self.json.push_str(&json);
        match self.end() {
            Step::Last => Step::Before,
            _ if is_key || !self.open.is_empty() => self.push(c),
            step => step,
        }
    }

    fn word_as_json(&self, word: &str) -> Option<String> {
        let quoted = || serde_json::Value::String(word.to_owned()).to_string();
        if self.is_key {
            return (self.notation == Notation::Gemma).then(quoted);
        }
        match word {
            "True" | "true" => return Some("true".to_owned()),
            "False" | "false" => return Some("false".to_owned()),
            "None" | "null" => return Some("null".to_owned()),
            _ => {}
        }
        if serde_json::from_str::<serde_json::Number>(word).is_ok() {
            return Some(word.to_owned());
        }
        (self.notation == Notation::Gemma).then(quoted)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || ['_', '.', '+', '-'].contains(&c)
}

/// A character as it stands in a JSON text.
pub(super) fn push_escaped(json: &mut String, c: char) {
    match c {
        '"' => json.push_str("\\\""),
        '\\' => json.push_str("\\\\"),
        '\n' => json.push_str("\\n"),
        '\r' => json.push_str("\\r"),
        '\t' => json.push_str("\\t"),
        c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => json.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(notation: Notation, text: &str) -> Option<String> {
        let mut literal = Literal::new(notation);
        let mut chars = text.chars();
        loop {
            match literal.push(chars.next()?) {
                Step::More => {}
                Step::Bad => return None,
                Step::Last | Step::Before => return Some(literal.take()),
            }
        }
    }

    #[test]
    fn python_becomes_json() {
        for (python, json) in [
            ("'a\"b'", r#""a\"b""#),
            (
                r#""a\x41\u00e9\U0001F600\d\n""#,
                "\"aA\\u00e9\u{1f600}\\\\d\\n\"",
            ),
            ("1.5e3,", "1.5e3"),
            ("None)", "null"),
            ("[1, (True, False,), []]", "[1, [true, false], []]"),
            (
                "{'a': {}, \"b\": [{'c':'d'}],}",
                r#"{"a": {}, "b": [{"c": "d"}]}"#,
            ),
        ] {
            assert_eq!(
                read(Notation::Python, python).as_deref(),
                Some(json),
                "{python}"
            );
        }
        for bad in [
            "x ", "[1 2]", "{a: 1}", "{'a' 1}", "'\\xzz'", "]", "[1}", "0x10,",
        ] {
            assert_eq!(read(Notation::Python, bad), None, "{bad}");
        }
    }

    #[test]
    fn gemma_becomes_json() {
        for (gemma, json) in [
            (
                "{a:<escape>x<y<escape>,b:[1,true,<escape><escape>]}",
                r#"{"a": "x<y", "b": [1, true, ""]}"#,
            ),
            (
                "{a:<|\"|>say \"x\" <|<|\"|>,b:{c:null}}",
                r#"{"a": "say \"x\" <|", "b": {"c": null}}"#,
            ),
            (
                "{\"a\": \"\\n\", unit:celsius}",
                r#"{"a": "\n", "unit": "celsius"}"#,
            ),
        ] {
            assert_eq!(
                read(Notation::Gemma, gemma).as_deref(),
                Some(json),
                "{gemma}"
            );
        }
        assert_eq!(read(Notation::Gemma, "{a:<b>}"), None);
    }
}
