//! Grammars of answers that must be calls, and of answers that begin with thoughts.

use serde_json::Value;

use super::reasoning::{CLOSE, OPEN};
use super::syntax::{DEEPSEEK_CALL, DEEPSEEK_SEPARATOR};
use super::{Thinking, ToolSyntax};
use crate::grammar::{Grammar, lark_string, schema_in_lark};
use crate::text::Tokenizer;

/// Most calls in one forced answer: a model without an idea would call for ever.
const MAX_CALLS: usize = 16;

/// The grammar of an answer that consists of calls of these tools (names and schemas of their
/// arguments), in the model's own syntax.
pub fn forced_calls(
    syntax: ToolSyntax,
    tools: &[(String, Value)],
    parallel: bool,
    thinking: Option<Thinking>,
    tokenizer: &Tokenizer,
) -> Result<Grammar, String> {
    let marks = Marks(tokenizer);
    let more = if parallel { MAX_CALLS - 1 } else { 0 };
    let (start, call) = match syntax {
        ToolSyntax::Hermes => {
            let call = format!(
                "{} object {}",
                marks.then("<tool_call>", "\n"),
                marks.after("\n", "</tool_call>")
            );
            (repeated("\"\\n\"", more), call)
        }
        ToolSyntax::Llama3 => (repeated("\"; \"", more), "object".to_owned()),
        ToolSyntax::Json if parallel => {
            let list = format!("\"[\" {} \"]\"", repeated("\", \"", more));
            (list, "object".to_owned())
        }
        ToolSyntax::Json => ("call".to_owned(), "object".to_owned()),
        ToolSyntax::Mistral | ToolSyntax::Granite => {
            let mark = marks.one(syntax.opening()[0]);
            let list = format!("{mark} \"[\" {} \"]\"", repeated("\", \"", more));
            (list, "object".to_owned())
        }
        ToolSyntax::DeepSeek => {
            let list = format!(
                "{} {} {}",
                marks.one("<｜tool▁calls▁begin｜>"),
                repeated("\"\\n\"", more),
                marks.one("<｜tool▁calls▁end｜>")
            );
            let call = format!(
                "{} object {}",
                marks.one(DEEPSEEK_CALL),
                marks.one("<｜tool▁call▁end｜>")
            );
            (list, call)
        }
    };
    let mut text = format!(
        "start: {}{start}\ncall: {call}\n",
        thoughts(thinking, &marks)
    );
    text.push_str(&thought_rules(thinking, &marks));
    let objects: Vec<String> = (0..tools.len()).map(|i| format!("tool{i}")).collect();
    text.push_str(&format!("object: {}\n", objects.join(" | ")));
    for (i, (name, schema)) in tools.iter().enumerate() {
        let head = head(syntax, name, &marks);
        let tail = match syntax {
            ToolSyntax::DeepSeek => "",
            _ => " \"}\"",
        };
        text.push_str(&format!("tool{i}: {head} arguments{i}{tail}\n"));
        text.push_str(&format!("arguments{i}: {}\n", schema_in_lark(schema)?));
    }
    Ok(Grammar::Lark(text))
}

/// What comes before the arguments.
fn head(syntax: ToolSyntax, name: &str, marks: &Marks<'_>) -> String {
    let name = Value::String(name.to_owned());
    match syntax {
        ToolSyntax::DeepSeek => format!("{name} {}", marks.one(DEEPSEEK_SEPARATOR)),
        ToolSyntax::Llama3 => lark_string(&format!("{{\"name\": {name}, \"parameters\": ")),
        _ => lark_string(&format!("{{\"name\": {name}, \"arguments\": ")),
    }
}

fn repeated(separator: &str, more: usize) -> String {
    match more {
        0 => "call".to_owned(),
        _ => format!("call ({separator} call){{0,{more}}}"),
    }
}

/// The grammar of an answer that may think before it matches `grammar`. Grammars in Lark's
/// notation are their authors' and stay as they are.
pub fn after_thoughts(
    grammar: Grammar,
    thinking: Option<Thinking>,
    tokenizer: &Tokenizer,
) -> Result<Grammar, String> {
    let body = match (&grammar, thinking) {
        (Grammar::Lark(_), _) | (_, None) => return Ok(grammar),
        (Grammar::JsonSchema(schema), _) => schema_in_lark(schema)?,
        (Grammar::Regex(regex), _) => format!("/{}/", regex.replace('/', "\\/")),
        (Grammar::Choice(choices), _) => {
            let choices: Vec<String> = choices.iter().map(|text| lark_string(text)).collect();
            choices.join(" | ")
        }
    };
    let marks = Marks(tokenizer);
    Ok(Grammar::Lark(format!(
        "start: {}body\nbody: {body}\n{}",
        thoughts(thinking, &marks),
        thought_rules(thinking, &marks)
    )))
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

/// Marks as Lark writes them: control tokens by their number, others as text.
struct Marks<'a>(&'a Tokenizer);

impl Marks<'_> {
    fn id(&self, mark: &str) -> Option<u32> {
        let id = self.0.token_id(mark);
        id.filter(|id| self.0.is_special(*id))
    }

    fn one(&self, mark: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("<[{id}]>"),
            None => lark_string(mark),
        }
    }

    /// A mark and text after it.
    fn then(&self, mark: &str, text: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("<[{id}]> {}", lark_string(text)),
            None => lark_string(&format!("{mark}{text}")),
        }
    }

    /// Text and a mark after it.
    fn after(&self, text: &str, mark: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("{} <[{id}]>", lark_string(text)),
            None => lark_string(&format!("{text}{mark}")),
        }
    }
}
