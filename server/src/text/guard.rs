//! Control tokens in user text are text.
//!
//! A rendered conversation is tokenised with control tokens recognised, because the template
//! spells them out. What a client wrote must not be read that way: `<|im_end|>` in a message is
//! eleven characters. So every spelling of a control token inside the client's strings is broken
//! by a character that occurs nowhere else before the template sees it, and healed afterwards.
//! The character survives whatever a template does with the text around it (trimming, splitting,
//! writing it as JSON), and conversations without such spellings are left exactly as they are.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Characters that may be the mark: a plane of private use.
const MARKS: RangeInclusive<char> = '\u{f0000}'..='\u{ffff0}';

/// Spellings of control tokens, by their first character.
#[derive(Debug, Default)]
pub(super) struct Spellings {
    by_start: HashMap<char, Vec<String>>,
}

impl Spellings {
    /// Spellings of one character cannot be broken and are left out.
    pub(super) fn new(spellings: impl Iterator<Item = String>) -> Self {
        let mut by_start: HashMap<char, Vec<String>> = HashMap::new();
        for spelling in spellings.filter(|spelling| spelling.chars().nth(1).is_some()) {
            let start = spelling.chars().next().expect("it has two characters");
            by_start.entry(start).or_default().push(spelling);
        }
        Self { by_start }
    }

    /// Whether a spelling begins where `rest` begins with `start`.
    fn begins(&self, start: char, rest: &str) -> bool {
        let candidates = self.by_start.get(&start);
        candidates.is_some_and(|all| all.iter().any(|one| rest.starts_with(one)))
    }

    fn occurs_in(&self, text: &str) -> bool {
        text.char_indices().any(|(i, c)| self.begins(c, &text[i..]))
    }
}

/// A conversation's strings, with spellings of control tokens broken where there are any.
#[derive(Debug)]
pub struct Guard<'a> {
    spellings: &'a Spellings,
    /// `None`: there is nothing to break.
    mark: Option<char>,
    spare: char,
}

impl<'a> Guard<'a> {
    /// A guard for all that the client sent; `None` if no character is left to be the mark.
    pub(super) fn new(spellings: &'a Spellings, strings: &[&Value]) -> Option<Self> {
        let mut is_needed = false;
        let mut used = HashSet::new();
        for value in strings {
            for_each_string(value, &mut |text| {
                is_needed = is_needed || spellings.occurs_in(text);
                used.extend(text.chars().filter(|c| MARKS.contains(c)));
            });
        }
        let mut free = MARKS.clone().filter(|mark| !used.contains(mark));
        let (mark, spare) = (free.next()?, free.next()?);
        Some(Self {
            spellings,
            mark: is_needed.then_some(mark),
            spare,
        })
    }

    /// Another character that the client's strings do not have, to mark something else with.
    pub fn spare(&self) -> char {
        self.spare
    }

    /// The character that breaks spellings, if any was broken.
    pub fn mark(&self) -> Option<char> {
        self.mark
    }

    /// `value` with all its strings guarded (keys of objects as well).
    pub fn guard(&self, value: &Value) -> Value {
        match self.mark {
            None => value.clone(),
            Some(mark) => self.value(value, mark),
        }
    }

    /// `map` with all its strings guarded; its own keys are names of variables and stay.
    pub fn guard_map(&self, map: &Map<String, Value>) -> Map<String, Value> {
        map.iter()
            .map(|(name, value)| (name.clone(), self.guard(value)))
            .collect()
    }

    fn value(&self, value: &Value, mark: char) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text, mark)),
            Value::Array(items) => items.iter().map(|item| self.value(item, mark)).collect(),
            Value::Object(map) => {
                let entries = map
                    .iter()
                    .map(|(key, value)| (self.text(key, mark), self.value(value, mark)));
                Value::Object(entries.collect())
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, mark: char) -> String {
        let mut guarded = String::with_capacity(text.len());
        for (i, c) in text.char_indices() {
            guarded.push(c);
            if self.spellings.begins(c, &text[i..]) {
                guarded.push(mark);
            }
        }
        guarded
    }
}

/// All strings in `value`, keys included.
fn for_each_string(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => {
            for item in items {
                for_each_string(item, visit);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                visit(key);
                for_each_string(value, visit);
            }
        }
        _ => {}
    }
}

/// The mark as JSON with only ASCII spells it: a template may write strings that way.
fn escaped(mark: char) -> String {
    let mut units = [0; 2];
    let units = mark.encode_utf16(&mut units).iter();
    units.map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Rendered text in which every broken spelling has the mark itself inside.
pub(super) fn unescape(rendered: &str, mark: char) -> String {
    rendered.replace(&escaped(mark), &mark.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_spellings_are_broken() {
        let spellings = Spellings::new(["<|a|>", "<|a|>b", "|>x"].map(String::from).into_iter());
        let value = json!({"k<|a|>": ["plain", "x<|a|>b|>x", 7]});
        let guard = Guard::new(&spellings, &[&value]).unwrap();
        let mark = guard.mark().unwrap();
        let guarded = guard.guard(&value);
        assert_eq!(
            guarded[format!("k<{mark}|a|>")][1],
            format!("x<{mark}|a|>b|{mark}>x")
        );
        assert_eq!(guarded.to_string().replace(mark, ""), value.to_string());
    }

    #[test]
    fn ordinary_text_is_not_touched() {
        let spellings = Spellings::new(["<|a|>".to_owned()].into_iter());
        let value = json!(["<|a|", "a|>", "<|A|>"]);
        let guard = Guard::new(&spellings, &[&value]).unwrap();
        assert_eq!(guard.mark(), None);
        assert_eq!(guard.guard(&value), value);
    }

    #[test]
    fn a_mark_that_occurs_is_not_taken() {
        let spellings = Spellings::new(["<|a|>".to_owned()].into_iter());
        let value = json!("<|a|>\u{f0000}");
        let mark = Guard::new(&spellings, &[&value]).unwrap().mark().unwrap();
        assert_eq!(mark, '\u{f0001}');
        let guard = Guard::new(&spellings, std::slice::from_ref(&&value)).unwrap();
        assert_eq!(guard.spare(), '\u{f0002}');
        let text = json!({"x": format!("<{mark}|a|>")}).to_string();
        assert_eq!(unescape(&text.replace(mark, "\\udb80\\udc01"), mark), text);
    }
}
