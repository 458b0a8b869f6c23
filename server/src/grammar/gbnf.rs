//! GBNF, llama.cpp's notation of grammars, said in Lark's.
//!
//! Every character becomes a lexeme of its own: GBNF has no lexer, and a lexeme of several
//! characters would win over shorter ones that also fit.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Groups in groups.
const MAX_DEPTH: usize = 100;
/// Times that a part may be asked to come again.
const MAX_TIMES: u32 = 10_000;

/// Whether a grammar is in this notation: Lark's has no `::=` behind a name.
pub fn is_gbnf(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.skip();
    reader.name().is_some() && {
        reader.skip();
        reader.rest.starts_with("::=")
    }
}

/// The same grammar in Lark's notation, or what is wrong with it and where.
pub fn to_lark(text: &str) -> Result<String, String> {
    let mut reader = Reader::new(text);
    let mut lark = String::new();
    let mut names = Names::default();
    loop {
        reader.skip();
        if reader.rest.is_empty() {
            break;
        }
        let Some(name) = reader.name() else {
            return Err(reader.wrong("expected the name of a rule"));
        };
        reader.skip();
        if !reader.take("::=") {
            return Err(reader.wrong(&format!("expected '::=' behind '{name}'")));
        }
        let rule = names.defined(name)?;
        let mut body = String::new();
        reader.alternatives(&mut body, &mut names, 0)?;
        // A string takes whatever is written to it.
        writeln!(lark, "{rule}: {body}").ok();
    }
    names.check()?;
    Ok(lark)
}

/// What rules are called in Lark, where names are of fewer characters.
#[derive(Default)]
struct Names<'a> {
    /// Number, and whether it is defined.
    known: BTreeMap<&'a str, (usize, bool)>,
}

impl<'a> Names<'a> {
    fn used(&mut self, name: &'a str) -> String {
        let next = self.known.len();
        let (number, _) = self.known.entry(name).or_insert((next, false));
        if name == "root" {
            "start".to_owned()
        } else {
            format!("r_{number}")
        }
    }

    fn defined(&mut self, name: &'a str) -> Result<String, String> {
        let rule = self.used(name);
        match self.known.get_mut(name) {
            Some((_, is_defined)) if !*is_defined => *is_defined = true,
            _ => return Err(format!("the rule '{name}' is there twice")),
        }
        Ok(rule)
    }

    fn check(&self) -> Result<(), String> {
        if !self.known.contains_key("root") {
            return Err("there is no rule 'root'".to_owned());
        }
        let missing = self.known.iter().find(|(_, (_, is_defined))| !is_defined);
        missing.map_or(Ok(()), |(name, _)| {
            Err(format!("there is no rule '{name}'"))
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, rest: text }
    }

    fn wrong(&self, what: &str) -> String {
        let read = &self.text[..self.text.len() - self.rest.len()];
        format!("line {}: {what}", read.matches('\n').count() + 1)
    }

    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let found = chars.next();
        self.rest = chars.as_str();
        found
    }

    /// White space and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        (!name.is_empty()).then(|| {
            self.rest = rest;
            name
        })
    }

    /// Up to the end of the group or of the rule.
    fn alternatives(
        &mut self,
        lark: &mut String,
        names: &mut Names<'a>,
        depth: usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(&format!("groups are more than {MAX_DEPTH} levels deep")));
        }
        loop {
            self.skip();
            if self.take("|") {
                lark.push_str(" | ");
                continue;
            }
            let is_end = self.rest.is_empty() || self.rest.starts_with(')');
            if is_end || depth == 0 && is_gbnf(self.rest) {
                return Ok(());
            }
            let start = lark.len();
            self.part(lark, names, depth)?;
            self.times(lark, start)?;
            lark.push(' ');
        }
    }

    fn part(
        &mut self,
        lark: &mut String,
        names: &mut Names<'a>,
        depth: usize,
    ) -> Result<(), String> {
        if self.take("(") {
            lark.push('(');
            self.alternatives(lark, names, depth + 1)?;
            if !self.take(")") {
                return Err(self.wrong("a group is not closed"));
            }
            lark.push(')');
            return Ok(());
        }
        if self.take("\"") {
            lark.push('(');
            while !self.take("\"") {
                let c = self.character("a string")?;
                write!(lark, "/\\x{{{:x}}}/ ", u32::from(c)).ok();
            }
            lark.push(')');
            return Ok(());
        }
        if self.take("[") {
            return self.class(lark);
        }
        if self.take(".") {
            lark.push_str("/(?s:.)/");
            return Ok(());
        }
        if self.rest.starts_with('<') || self.rest.starts_with("!<") {
            return Err(self.wrong("tokens in angle brackets are not supported; write their text"));
        }
        match self.name() {
            Some(name) => lark.push_str(&names.used(name)),
            None => return Err(self.wrong("expected a part of a rule")),
        }
        Ok(())
    }

    /// Behind the opening bracket.
    fn class(&mut self, lark: &mut String) -> Result<(), String> {
        lark.push_str(if self.take("^") { "/[^" } else { "/[" });
        let mut is_empty = true;
        while !self.take("]") {
            is_empty = false;
            let first = self.character("a set of characters")?;
            write!(lark, "\\x{{{:x}}}", u32::from(first)).ok();
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let last = self.character("a set of characters")?;
                if last < first {
                    return Err(self.wrong("a range of characters ends before it begins"));
                }
                write!(lark, "-\\x{{{:x}}}", u32::from(last)).ok();
            }
        }
        if is_empty {
            return Err(self.wrong("a set of characters is empty"));
        }
        lark.push_str("]/");
        Ok(())
    }

    /// A character of a string or a set.
    fn character(&mut self, place: &str) -> Result<char, String> {
        let n_digits = match self.next() {
            None => return Err(self.wrong(&format!("{place} is not closed"))),
            Some('\\') => match self.next() {
                Some('n') => return Ok('\n'),
                Some('r') => return Ok('\r'),
                Some('t') => return Ok('\t'),
                Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^')) => return Ok(c),
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                _ => return Err(self.wrong("nobody knows this escape")),
            },
            Some(c) => return Ok(c),
        };
        let digits = self.rest.get(..n_digits);
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match number.and_then(char::from_u32) {
            Some(c) => {
                self.rest = &self.rest[n_digits..];
                Ok(c)
            }
            None => Err(self.wrong("an escape names no character")),
        }
    }

    /// `*`, `+`, `?`, `{n}`, `{n,}` or `{n,m}` behind a part, which begins at `start`.
    fn times(&mut self, lark: &mut String, start: usize) -> Result<(), String> {
        for sign in ["*", "+", "?"] {
            if self.take(sign) {
                lark.push_str(sign);
                return Ok(());
            }
        }
        if !self.take("{") {
            return Ok(());
        }
        let end = self.rest.find('}');
        let inside = end.map(|end| &self.rest[..end]);
        let (least, most) = inside
            .and_then(bounds)
            .ok_or_else(|| self.wrong("expected '{n}', '{n,}' or '{n,m}', at most 10000"))?;
        self.rest = &self.rest[end.map_or(0, |end| end + 1)..];
        match most {
            // Lark knows no part that never comes.
            Some(0) => {
                lark.truncate(start);
                lark.push_str("()");
                return Ok(());
            }
            Some(most) => write!(lark, "{{{least},{most}}}"),
            None => write!(lark, "{{{least},}}"),
        }
        .ok();
        Ok(())
    }
}

/// How often at least and at most.
fn bounds(text: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| {
        let n: u32 = text.trim().parse().ok()?;
        (n <= MAX_TIMES).then_some(n)
    };
    let Some((least, most)) = text.split_once(',') else {
        let n = number(text)?;
        return Some((n, Some(n)));
    };
    let least = number(if least.trim().is_empty() { "0" } else { least })?;
    if most.trim().is_empty() {
        return Some((least, None));
    }
    let most = number(most)?;
    (least <= most).then_some((least, Some(most)))
}
