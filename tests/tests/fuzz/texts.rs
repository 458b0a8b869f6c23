//! Chat templates, grammars, and files of keys.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tests::fuzz::{Taken, mutate_json, mutate_text};
use tests::rng::Rng;
use understudy::auth::ApiKeys;
use understudy::grammar::{Grammar, GrammarCompiler, to_lark};
use understudy::text::{ChatTemplate, Tokenizer};

use crate::{fixtures, run};

const TEMPLATES: [&str; 4] = [
    crate::server::TEMPLATE,
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content %}\
     {% set messages = messages[1:] %}{% endif %}{% for message in messages %}\
     {{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + eos_token }}{% endfor %}",
    "{% macro show(x, n) %}{% for k, v in x.items() | sort %}{{ k ~ ': ' ~ v | tojson(indent=2) }}\
     {% endfor %}{% endmacro %}{% for t in tools or [] %}{{ show(t.function, loop.index0) }}\
     {% endfor %}{%- for m in messages -%}{{ m.content.split('x')[-1].strip()[:10] }}{%- endfor -%}",
    "{% set ns = namespace(n=0) %}{% for m in messages | selectattr('role', 'equalto', 'user') %}\
     {% set ns.n = ns.n + 1 %}{{ ns.n }}{{ raise_exception('no') if ns.n > 3 }}{% endfor %}\
     {{ range(ns.n) | list | length }}{{ strftime_now('%Y') }}",
];

const TEMPLATE_WORDS: [&str; 28] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{% for x in messages %}",
    "{% endfor %}",
    "{% if x %}",
    "{% endif %}",
    "range(99999999)",
    "'x' * 999999999",
    "[0] * 999999999",
    "messages | tojson",
    "| join",
    "| batch(2)",
    "| indent(99999999)",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "x[::-1]",
    "**99999",
    "| center(99999999)",
    "'%999999999d' | format(1)",
    "namespace()",
    "{% set x = x ~ x %}",
    "| replace('', 'xxxxxxxx')",
    "loop.cycle",
    "| unique | sort",
    "{#",
    "| list * 99999999",
    "(9223372036854775807 + 1)",
];

#[test]
fn templates() {
    let base = json!([
        {"role": "system", "content": "You are."},
        {"role": "user", "content": "Hi xx"},
        {"role": "assistant", "content": "Hello", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "user", "content": "Bye"},
    ]);
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    run("templates", |rng| {
        let mut text = (*rng.pick(&TEMPLATES)).to_owned();
        if rng.chance(900) {
            mutate_text(rng, &mut text, &TEMPLATE_WORDS);
        }
        let mut messages = base.clone();
        if rng.chance(500) {
            mutate_json(
                rng,
                &mut messages,
                &["content", "role", "tool_calls", "name"],
            );
        }
        let Ok(template) = ChatTemplate::from_text("fuzz", &text, &Map::new(), SystemTime::now)
        else {
            return Taken::Refused;
        };
        let rendered = template.render(&messages, Some(&tools), rng.chance(500), &Map::new());
        match rendered {
            Ok(_) => Taken::Accepted,
            Err(_) => Taken::Refused,
        }
    });
}

const LARK: &str = "start: item (\",\" item)*\nitem: NUMBER | \"[\" start \"]\" | WORD\n\
                    NUMBER: /[0-9]{1,5}/\nWORD: /[a-z]+/\n";
const LARK_WORDS: [&str; 14] = [
    "start",
    "item",
    ":",
    "|",
    "(",
    ")*",
    "{0,999999}",
    "/(a+)+$/",
    "/.*.*.*x/",
    "%ignore /x/",
    "%json {}",
    "\"\"",
    "\n",
    "/[^]/",
];
const REGEX_WORDS: [&str; 16] = [
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{1000}",
    "{0,99999}",
    "(a+)+",
    "[^a]",
    "\\p{L}",
    ".*",
    "(?=x)",
    "\\d",
    "(?i)",
    "\\b",
];
const GBNF: &str =
    "root ::= item (\",\" item){0,3} # list\nitem ::= [a-z]{1,4} | \"(\" root \")\"\n";
const GBNF_WORDS: [&str; 14] = [
    "root",
    "::=",
    "|",
    "(",
    ")*",
    "[^\\x00-é]",
    "\"\\u00e9\"",
    "{0}",
    "{9999,}",
    "\n",
    "#",
    ".",
    "\"\"",
    "[\\]-]",
];
const SCHEMA_NAMES: [&str; 16] = [
    "type",
    "properties",
    "items",
    "enum",
    "pattern",
    "anyOf",
    "allOf",
    "oneOf",
    "$ref",
    "minItems",
    "maxItems",
    "maxLength",
    "required",
    "additionalProperties",
    "minimum",
    "const",
];

fn grammar(rng: &mut Rng) -> Grammar {
    match rng.range(0, 4) {
        0 => {
            let mut schema = json!({
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z]{2,5}$", "maxLength": 8},
                    "n": {"type": "integer", "minimum": 1, "maximum": 99},
                    "list": {"type": "array", "items": {"$ref": "#/$defs/x"}, "maxItems": 3},
                },
                "required": ["name"],
                "$defs": {"x": {"anyOf": [{"type": "null"}, {"enum": ["a", 1]}]}},
            });
            mutate_json(rng, &mut schema, &SCHEMA_NAMES);
            Grammar::JsonSchema(schema)
        }
        1 => {
            let mut text = "(yes|no)[0-9]{1,3}( maybe)?".to_owned();
            mutate_text(rng, &mut text, &REGEX_WORDS);
            Grammar::Regex(text)
        }
        2 => {
            let mut text = LARK.to_owned();
            mutate_text(rng, &mut text, &LARK_WORDS);
            Grammar::Lark(text)
        }
        3 => {
            let mut text = GBNF.to_owned();
            mutate_text(rng, &mut text, &GBNF_WORDS);
            Grammar::Lark(to_lark(&text).unwrap_or_default())
        }
        _ => {
            let mut choices = json!(["yes", "no", "é"]);
            mutate_json(rng, &mut choices, &["x"]);
            let texts = choices.as_array().into_iter().flatten();
            Grammar::Choice(texts.map(Value::to_string).collect())
        }
    }
}

#[test]
fn grammars() {
    let tokenizer = Tokenizer::from_dir(&fixtures().join("tokenizers/gpt2")).unwrap();
    let compiler = GrammarCompiler::new(tokenizer, Arc::from([2_u32].as_slice()));
    run("grammars", |rng| {
        let Ok(mut constraint) = compiler.compile(&grammar(rng)) else {
            return Taken::Refused;
        };
        for _ in 0..8 {
            let Ok(allowed) = constraint.allowed() else {
                break;
            };
            let ids = (0..allowed.len() as u32 * 32)
                .filter(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1);
            let ids: Vec<u32> = ids.collect();
            if ids.is_empty() || constraint.accept(*rng.pick(&ids)).is_err() {
                break;
            }
        }
        Taken::Accepted
    });
}

#[test]
fn keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let words = [
        "[[key]]",
        "name",
        "=",
        "'sk'",
        "sha256",
        "scopes",
        "['admin']",
        "models = ['*']",
        "-1",
        "tokens_per_day = 99999999999999999999",
        "\"\"\"",
        "[key]",
        "requests_per_minute = 1e9",
    ];
    run("keys", |rng| {
        let mut text = "[[key]]\nname = 'a'\nkey = 'sk-1'\nscopes = ['inference']\n\
                        adapters = ['a-*']\nrequests_per_minute = 5\n"
            .to_owned();
        mutate_text(rng, &mut text, &words);
        std::fs::write(&path, &text).unwrap();
        match ApiKeys::open(["flag"], [], Some(path.clone())) {
            Ok(keys) => {
                assert!(keys.are_required());
                Taken::Accepted
            }
            Err(_) => Taken::Refused,
        }
    });
}
