//! Grammars of whole answers: thoughts, then calls, a format, or text that may end in calls.

use serde_json::Value;

use super::marks::{Marks, escaped};
use super::notation::{Notation, mistakable, notation};
use super::reasoning::{CLOSE, OPEN};
use super::{Thinking, ToolSyntax};
use crate::grammar::{Grammar, lark_string, schema_in_lark};
use crate::text::Tokenizer;

/// Calls that an answer is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// It may have some, which must then be right.
    May,
    /// It consists of some.
    Must,
}

/// What an answer must be.
#[derive(Debug)]
pub struct Demand<'a> {
    pub tokenizer: &'a Tokenizer,
    pub syntax: ToolSyntax,
    /// Tools that may be called: names and schemas of their arguments.
    pub tools: &'a [(String, Value)],
    pub parallel: bool,
    pub needed: Needed,
    pub thinking: Option<Thinking>,
    /// Messages on channels.
    pub harmony: bool,
    /// What the text must match.
    pub format: Option<&'a Grammar>,
}

impl Demand<'_> {
    /// The grammar of such answers.
    ///
    /// # Errors
    /// Something of it cannot be enforced; what.
    pub fn grammar(&self) -> Result<Grammar, String> {
        if let (false, Some(grammar)) = (self.may_call(), self.format)
            && (!self.harmony && self.thinking.is_none() || matches!(grammar, Grammar::Lark(_)))
        {
            // Grammars in Lark's notation are their authors' and stay as they are.
            return Ok(grammar.clone());
        }
        let text = if self.harmony {
            self.on_channels()?
        } else {
            self.plain()?
        };
        Ok(Grammar::Lark(text))
    }

    /// Whether the answer has room for calls. Beside a format, calls without a mark have not: how
    /// they begin is how the format may begin.
    fn may_call(&self) -> bool {
        let is_told_apart = self.syntax.bare().is_empty() || self.format.is_none();
        !self.tools.is_empty() && (self.needed == Needed::Must || is_told_apart)
    }

    fn plain(&self) -> Result<String, String> {
        let marks = Marks(self.tokenizer);
        let mut answers = Vec::new();
        let mut rules = String::new();
        if self.may_call() {
            let notation = notation(self.syntax, self.tools, self.parallel, &marks)?;
            let opening = opening(&notation, &marks);
            answers.push(format!("{opening} {}", notation.calls));
            if self.needed == Needed::May && self.format.is_none() {
                rules.push_str(&self.free(&notation, &marks, &mut answers));
            }
            rules.push_str(&notation.rules);
        }
        if let (Some(format), false) = (self.format, self.needed == Needed::Must) {
            answers.push("body".to_owned());
            rules.push_str(&format!("body: {}\n", body(format)?));
        }
        Ok(format!(
            "start: {}answer\nanswer: {}\n{}{rules}",
            thoughts(self.thinking, &marks),
            answers.join(" | "),
            thought_rules(self.thinking, &marks)
        ))
    }

    /// Text without calls, and text before calls.
    fn free(&self, notation: &Notation, marks: &Marks<'_>, answers: &mut Vec<String>) -> String {
        let mut free = "/(?s:.*)/".to_owned();
        for regex in mistakable(self.syntax, self.tools, marks) {
            free.push_str(&format!(" & ~/{regex}/"));
        }
        let mut rules = format!("free: FREE\nFREE: {free}\n");
        answers.push("free".to_owned());
        let calls = &notation.calls;
        match notation.opening {
            Some(mark) if marks.id(mark).is_some() => {
                answers.push(format!("free {} {calls}", opening(notation, marks)));
            }
            Some(mark) => {
                let gap = match notation.gap {
                    "" => String::new(),
                    gap => lark_string(gap),
                };
                answers.push(format!("lead {gap} {calls}"));
                rules.push_str(&format!("lead[lazy]: /(?s:.*){}/\n", escaped(mark)));
            }
            None => {}
        }
        rules
    }

    fn on_channels(&self) -> Result<String, String> {
        let marks = Marks(self.tokenizer);
        let [channel, message, end] =
            ["<|channel|>", "<|message|>", "<|end|>"].map(|mark| marks.one(mark));
        let next = format!("{end} {} \"assistant\"", marks.one("<|start|>"));
        let mut answers = Vec::new();
        let mut rules = format!(
            "thoughts: {channel} \"analysis\" {message} free {next}\n\
             preamble: {channel} \"commentary\" {message} free {next}\n\
             free: /(?s:.*)/\n"
        );
        if !self.tools.is_empty() {
            let notation = notation(self.syntax, self.tools, self.parallel, &marks)?;
            answers.push(format!("preamble? {}", notation.calls));
            rules.push_str(&notation.rules);
        }
        if self.needed == Needed::May || self.tools.is_empty() {
            answers.push(format!("{channel} \"final\" {message} body"));
            let body = self.format.map_or(Ok("free".to_owned()), body)?;
            rules.push_str(&format!("body: {body}\n"));
        }
        Ok(format!(
            "start: thoughts? answer\nanswer: {}\n{rules}",
            answers.join(" | ")
        ))
    }
}

fn opening(notation: &Notation, marks: &Marks<'_>) -> String {
    match notation.opening {
        None => String::new(),
        Some(mark) if notation.gap.is_empty() => marks.one(mark),
        Some(mark) => marks.then(mark, notation.gap),
    }
}

/// A grammar as the right side of a rule.
fn body(grammar: &Grammar) -> Result<String, String> {
    Ok(match grammar {
        Grammar::JsonSchema(schema) => schema_in_lark(schema)?,
        Grammar::Regex(regex) => format!("/{}/", regex.replace('/', "\\/")),
        Grammar::Choice(choices) => {
            let choices: Vec<String> = choices.iter().map(|text| lark_string(text)).collect();
            choices.join(" | ")
        }
        Grammar::Lark(_) => {
            return Err("a grammar of one's own leaves no room for tools".to_owned());
        }
    })
}

fn thoughts(thinking: Option<Thinking>, marks: &Marks<'_>) -> String {
    match thinking {
        None => String::new(),
        Some(Thinking::Inside) => "thoughts gap ".to_owned(),
        Some(Thinking::MayBegin) => format!("({} thoughts gap)? ", marks.one(OPEN)),
    }
}

fn thought_rules(thinking: Option<Thinking>, marks: &Marks<'_>) -> String {
    let Some(_) = thinking else {
        return String::new();
    };
    let gap = "gap: /\\n{0,2}/\n";
    if marks.id(CLOSE).is_some() {
        format!("thoughts: /(.|\\n)*/ {}\n{gap}", marks.one(CLOSE))
    } else {
        format!("thoughts[lazy]: /(.|\\n)*<\\/think>/\n{gap}")
    }
}
