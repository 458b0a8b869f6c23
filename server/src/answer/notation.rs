//! Grammars of calls in each family's notation.

use serde_json::Value;

use super::ToolSyntax;
use super::marks::{Marks, escaped};
use super::named::{Form, arguments};
use super::syntax::{DEEPSEEK_CALL, DEEPSEEK_SEPARATOR};
use crate::grammar::{lark_string, schema_in_lark};

/// Most calls in one forced answer: a model without an idea would call for ever.
const MAX_CALLS: usize = 16;

/// Calls as parts of a grammar.
pub(super) struct Notation {
    /// What the calls begin with. `None`: nothing, so that the first call must be told from text.
    pub(super) opening: Option<&'static str>,
    /// Blank space behind the mark.
    pub(super) gap: &'static str,
    /// The calls behind that.
    pub(super) calls: String,
    /// Rules that `calls` speaks of.
    pub(super) rules: String,
}

/// The notation of calls of these tools (names and schemas of their arguments).
pub(super) fn notation(
    syntax: ToolSyntax,
    tools: &[(String, Value)],
    parallel: bool,
    marks: &Marks<'_>,
) -> Result<Notation, String> {
    let more = if parallel { MAX_CALLS - 1 } else { 0 };
    let opening = syntax.opening().first().copied();
    let (gap, calls) = match syntax {
        ToolSyntax::Hermes | ToolSyntax::QwenXml => {
            let end = marks.after("\n", "</tool_call>");
            let next = marks.then("<tool_call>", "\n");
            (
                "\n",
                format!(
                    "object {end}{}",
                    further(&format!("\"\\n\" {next} object {end}"), more)
                ),
            )
        }
        ToolSyntax::Llama3 => ("", list("first", "object", "; ", more)),
        ToolSyntax::Json if more == 0 => ("", "first".to_owned()),
        ToolSyntax::Json | ToolSyntax::Pythonic => {
            let calls = list("first", "object", ", ", more);
            ("", format!("{calls} \"]\""))
        }
        ToolSyntax::Mistral | ToolSyntax::Granite => (
            "",
            format!("\"[\" {} \"]\"", list("object", "object", ", ", more)),
        ),
        ToolSyntax::ToolCode => (
            "\n",
            format!("{} \"\\n```\"", list("object", "object", "\n", more)),
        ),
        ToolSyntax::Gemma => {
            let end = marks.one("<end_function_call>");
            let next = marks.one("<start_function_call>");
            (
                "",
                format!(
                    "object {end}{}",
                    further(&format!("{next} object {end}"), more)
                ),
            )
        }
        ToolSyntax::DeepSeek => {
            let call = format!(
                "{} object {}",
                marks.one(DEEPSEEK_CALL),
                marks.one("<｜tool▁call▁end｜>")
            );
            let end = marks.one("<｜tool▁calls▁end｜>");
            ("", format!("{} {end}", list(&call, &call, "\n", more)))
        }
        // One call ends the answer.
        ToolSyntax::Harmony => ("", "object".to_owned()),
    };
    let is_bare = !syntax.bare().is_empty();
    Ok(Notation {
        opening: opening.filter(|_| !is_bare),
        gap,
        calls,
        rules: objects(syntax, tools, parallel, marks)?,
    })
}

fn list(first: &str, next: &str, separator: &str, more: usize) -> String {
    let next = format!("{} {next}", lark_string(separator));
    format!("{first}{}", further(&next, more))
}

/// Up to so many times more; Lark has no way to say none.
fn further(next: &str, more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!(" ({next}){{0,{more}}}"),
    }
}

/// One call of any of the tools. Where the first is told from text by nothing but itself, its
/// beginning is one literal, as far as text must not go: a lexer does not look back.
fn objects(
    syntax: ToolSyntax,
    tools: &[(String, Value)],
    parallel: bool,
    marks: &Marks<'_>,
) -> Result<String, String> {
    let names: Vec<String> = (0..tools.len()).map(|i| format!("tool{i}")).collect();
    let mut text = format!("object: {}\n", names.join(" | "));
    if !syntax.bare().is_empty() {
        let firsts: Vec<String> = (0..tools.len()).map(|i| format!("first{i}")).collect();
        text.push_str(&format!("first: {}\n", firsts.join(" | ")));
    }
    for (i, (name, schema)) in tools.iter().enumerate() {
        let (head, tail) = around(syntax, name, marks);
        text.push_str(&format!("tool{i}: {head} arguments{i}{tail}\n"));
        if !syntax.bare().is_empty() {
            let is_list = syntax == ToolSyntax::Pythonic || syntax == ToolSyntax::Json && parallel;
            let head = match is_list {
                true => head.replacen('"', "\"[", 1),
                false => head,
            };
            text.push_str(&format!("first{i}: {head} arguments{i}{tail}\n"));
        }
        let rule = format!("arguments{i}");
        text.push_str(&match syntax {
            ToolSyntax::QwenXml => arguments(&rule, schema, Form::Xml)?,
            ToolSyntax::Pythonic | ToolSyntax::ToolCode => arguments(&rule, schema, Form::Python)?,
            ToolSyntax::Gemma => arguments(&rule, schema, Form::Gemma)?,
            _ => format!("{rule}: {}\n", schema_in_lark(schema)?),
        });
    }
    Ok(text)
}

/// What comes before the arguments, and behind them.
fn around(syntax: ToolSyntax, name: &str, marks: &Marks<'_>) -> (String, &'static str) {
    let quoted = Value::String(name.to_owned());
    match syntax {
        ToolSyntax::DeepSeek => (format!("{quoted} {}", marks.one(DEEPSEEK_SEPARATOR)), ""),
        ToolSyntax::Llama3 => (
            lark_string(&format!("{{\"name\": {quoted}, \"parameters\": ")),
            " \"}\"",
        ),
        ToolSyntax::QwenXml => (
            lark_string(&format!("<function={name}>\n")),
            " \"</function>\"",
        ),
        ToolSyntax::Pythonic | ToolSyntax::ToolCode => (lark_string(&format!("{name}(")), " \")\""),
        ToolSyntax::Gemma => (lark_string(&format!("call:{name}{{")), " \"}\""),
        ToolSyntax::Harmony => {
            let header = lark_string(&format!("commentary to=functions.{name} "));
            let head = format!(
                "{} {header} {} \"json\" {}",
                marks.one("<|channel|>"),
                marks.one("<|constrain|>"),
                marks.one("<|message|>")
            );
            (head, "")
        }
        _ => (
            lark_string(&format!("{{\"name\": {quoted}, \"arguments\": ")),
            " \"}\"",
        ),
    }
}

/// A regular expression of what text must not be, lest it be read as a call: calls without marks
/// begin an answer, marks that are no control tokens may stand anywhere.
pub(super) fn mistakable(
    syntax: ToolSyntax,
    tools: &[(String, Value)],
    marks: &Marks<'_>,
) -> Vec<String> {
    let mut found: Vec<String> = syntax
        .opening()
        .iter()
        .filter(|mark| marks.id(mark).is_none())
        .map(|mark| format!("(?s:.*){}(?s:.*)", escaped(mark)))
        .collect();
    match syntax {
        ToolSyntax::Llama3 | ToolSyntax::Json => {
            found.push("\\s*\\[?\\s*\\{\\s*\"name\"(?s:.*)".to_owned());
        }
        ToolSyntax::Pythonic => {
            let names: Vec<String> = tools.iter().map(|(name, _)| escaped(name)).collect();
            found.push(format!("\\s*\\[\\s*({})\\s*\\((?s:.*)", names.join("|")));
        }
        _ => {}
    }
    found
}
