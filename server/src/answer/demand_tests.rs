//! What a grammar lets through is what the parser of the same family reads.

use serde_json::{Value, json};

use super::tests::{Message, SYNTAXES, read, rules};
use super::*;
use crate::grammar::Grammar;
use crate::grammar::walk::{compiler, walk};
use crate::text::Tokenizer;

fn tools() -> Vec<(String, Value)> {
    let whole = json!({"type": "object", "additionalProperties": false,
        "required": ["city", "n"], "properties": {
            "city": {"type": "string", "maxLength": 6},
            "unit": {"enum": ["C", "F"]},
            "n": {"anyOf": [{"type": "boolean"}, {"type": "array", "maxItems": 2,
                "items": {"$ref": "#/$defs/digit"}}]}},
        "$defs": {"digit": {"enum": [1, 2, null]}}});
    vec![
        ("get_weather".to_owned(), whole),
        (
            "f".to_owned(),
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
        ),
    ]
}

fn demand<'a>(
    tokenizer: &'a Tokenizer,
    syntax: ToolSyntax,
    tools: &'a [(String, Value)],
    needed: Needed,
) -> Demand<'a> {
    Demand {
        tokenizer,
        syntax,
        tools,
        parallel: true,
        needed,
        thinking: None,
        harmony: syntax == ToolSyntax::Harmony,
        format: None,
    }
}

fn check(syntax: ToolSyntax, text: &str, message: &Message) {
    for (name, arguments) in &message.calls {
        let what = format!("{syntax:?}: {name}({arguments}) of {text:?}");
        let value: Value =
            serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{what}: {e}"));
        let object = value.as_object().expect(&what);
        if name == "f" {
            assert!(object.is_empty(), "{what}");
            continue;
        }
        assert_eq!(name, "get_weather", "{what}");
        assert!(
            value["city"].as_str().expect(&what).chars().count() <= 6,
            "{what}"
        );
        let n = &value["n"];
        assert!(
            n.is_boolean() || n.as_array().expect(&what).len() <= 2,
            "{what}"
        );
        let unit = object.get("unit");
        assert!(unit.is_none_or(|unit| unit == "C" || unit == "F"), "{what}");
    }
}

#[test]
fn forced_calls_of_every_family_are_read_back() {
    let (compiler, tokenizer) = compiler();
    let tools = tools();
    for syntax in SYNTAXES {
        let grammar = demand(&tokenizer, syntax, &tools, Needed::Must)
            .grammar()
            .unwrap();
        let constraint = compiler.compile(&grammar);
        let constraint = constraint.unwrap_or_else(|e| panic!("{syntax:?}: {e}\n{grammar:?}"));
        let mut n_ended = 0;
        // Text before a call, which some may have, has no end that chance would find.
        for seed in 0..200 {
            let Some(text) = walk(&constraint, &tokenizer, seed) else {
                continue;
            };
            n_ended += 1;
            if n_ended > 20 {
                break;
            }
            let mut rules = rules(syntax, None);
            rules.calls.as_mut().unwrap().tools = tools.clone();
            let message = read(&rules, &[&text]);
            assert!(!message.calls.is_empty(), "{syntax:?}: {text:?}");
            assert_eq!(message.content, "", "{syntax:?}: {text:?}");
            check(syntax, &text, &message);
        }
        assert!(n_ended >= 10, "{syntax:?}: {n_ended}");
    }
}

/// Text goes through, a wrong call does not, a right one does.
#[test]
fn calls_that_may_be_must_be_right() {
    let (compiler, tokenizer) = compiler();
    let tools = tools();
    let call = |arguments: &str| {
        format!("Hm.<tool_call>\n{{\"name\": \"f\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    let bare = |arguments: &str| format!("{{\"name\": \"f\", \"parameters\": {arguments}}}");
    let named = |arguments: &str| format!("[f({arguments})]");
    for (syntax, right, wrong) in [
        (ToolSyntax::Hermes, call("{}"), call("{\"x\": 1}")),
        (ToolSyntax::Llama3, bare("{}"), bare("{\"x\": 1}")),
        (ToolSyntax::Pythonic, named(""), named("x=1")),
    ] {
        let grammar = demand(&tokenizer, syntax, &tools, Needed::May)
            .grammar()
            .unwrap();
        let constraint = compiler
            .compile(&grammar)
            .unwrap_or_else(|e| panic!("{syntax:?}: {e}\n{grammar:?}"));
        let passes = |text: &str| {
            let mut constraint = constraint.clone();
            let tokens = tokenizer.encode(text, false).unwrap();
            tokens.iter().all(|token| constraint.accept(*token).is_ok())
        };
        for text in ["Hello, [1] {x} <tool", "", "{\"a\": 1}", right.as_str()] {
            assert!(passes(text), "{syntax:?}: {text}");
        }
        assert!(!passes(&wrong), "{syntax:?}: {wrong}");
    }
}

#[test]
fn a_format_leaves_room_for_calls() {
    let (compiler, tokenizer) = compiler();
    let tools = tools();
    let format = Grammar::JsonSchema(json!({"enum": [1, 22]}));
    for syntax in SYNTAXES {
        let mut demand = demand(&tokenizer, syntax, &tools, Needed::May);
        demand.format = Some(&format);
        let constraint = compiler.compile(&demand.grammar().unwrap()).unwrap();
        let mut kinds = [0, 0];
        for seed in 0..40 {
            let Some(text) = walk(&constraint, &tokenizer, seed) else {
                continue;
            };
            let mut rules = rules(syntax, None);
            rules.calls.as_mut().unwrap().tools = tools.clone();
            let message = read(&rules, &[&text]);
            check(syntax, &text, &message);
            let is_format = ["1", "22"].contains(&message.content.as_str());
            assert!(
                is_format || !message.calls.is_empty(),
                "{syntax:?}: {text:?}"
            );
            kinds[usize::from(is_format)] += 1;
        }
        assert!(kinds.iter().sum::<i32>() > 5, "{syntax:?}: {kinds:?}");
    }
}
