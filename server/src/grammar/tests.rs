//! Whatever a constraint lets through matches its grammar, and bad grammars are refused in time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::walk::{compiler, walk};
use super::*;

/// A schema and what must hold of whatever it admits.
type Case = (Value, fn(&Value) -> bool);

fn cases() -> [Case; 8] {
    [
        (
            json!({"type": "object", "properties": {"a": {"enum": ["x", "yy"]}},
                "required": ["a"], "additionalProperties": false}),
            |v| v == &json!({"a": "x"}) || v == &json!({"a": "yy"}),
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}),
            |v| {
                let items = v.as_array().unwrap();
                (2..=3).contains(&items.len()) && items.iter().all(Value::is_boolean)
            },
        ),
        (
            json!({"type": "integer", "minimum": 10, "maximum": 99}),
            |v| (10..=99).contains(&v.as_i64().unwrap()),
        ),
        (json!({"type": "string", "pattern": "^[a-c]{2}\\d$"}), |v| {
            let text = v.as_str().unwrap();
            text.len() == 3 && text.ends_with(|c: char| c.is_ascii_digit())
        }),
        (
            json!({"$defs": {"p": {"type": "object", "properties": {"n": {"type": "null"}},
                "required": ["n"], "additionalProperties": false}}, "$ref": "#/$defs/p"}),
            |v| v == &json!({"n": null}),
        ),
        (
            json!({"anyOf": [{"const": 7}, {"type": "string", "maxLength": 2}]}),
            |v| v == &json!(7) || v.as_str().unwrap().chars().count() <= 2,
        ),
        (
            json!({"$defs": {"t": {"anyOf": [{"type": "null"}, {"type": "object",
                "properties": {"next": {"$ref": "#/$defs/t"}}, "required": ["next"],
                "additionalProperties": false}]}}, "$ref": "#/$defs/t"}),
            |v| v.is_null() || v.get("next").is_some(),
        ),
        (json!({"type": "object", "required": ["k"]}), |v| {
            v.get("k").is_some()
        }),
    ]
}

#[test]
fn what_ends_is_valid() {
    let (compiler, tokenizer) = compiler();
    let mut n_ended = 0;
    for (schema, holds) in cases() {
        let constraint = compiler
            .compile(&Grammar::JsonSchema(schema.clone()))
            .unwrap();
        for seed in 0..25 {
            let Some(text) = walk(&constraint, &tokenizer, seed) else {
                continue;
            };
            n_ended += 1;
            let value: Value = match serde_json::from_str(&text) {
                Ok(value) => value,
                // JSON bounds no number; this reader does.
                Err(error) if error.to_string().contains("out of range") => continue,
                Err(error) => panic!("{schema}: {text:?}: {error}"),
            };
            assert!(holds(&value), "{schema}: {text}");
        }
    }
    assert!(n_ended > 120, "{n_ended}");
}

#[test]
fn other_grammars_hold_too() {
    let (compiler, tokenizer) = compiler();
    let ends = |grammar: Grammar| {
        let constraint = compiler.compile(&grammar).unwrap();
        walk(&constraint, &tokenizer, 1).unwrap()
    };
    let choices = ["yes \"indeed\"".to_owned(), "no\n".to_owned()];
    assert!(choices.contains(&ends(Grammar::Choice(choices.to_vec()))));
    assert_eq!(ends(Grammar::Regex("a{3}b".to_owned())), "aaab");
    assert_eq!(
        ends(Grammar::Lark("start: \"x\" y\ny: \"z\"".to_owned())),
        "xz"
    );
    let object = ends(Grammar::json_object());
    assert!(serde_json::from_str::<Value>(&object).unwrap().is_object());
}

/// What a grammar of llama.cpp's notation admits, drawn by chance.
fn drawn(gbnf: &str, seed: u64) -> Option<String> {
    let (compiler, tokenizer) = compiler();
    assert!(is_gbnf(gbnf), "{gbnf}");
    let constraint = compiler.compile(&Grammar::Lark(to_lark(gbnf).unwrap()));
    walk(&constraint.unwrap(), &tokenizer, seed)
}

#[test]
fn grammars_of_the_other_notation_hold() {
    for (gbnf, admitted) in [
        (
            "root ::= \"a\\x42\\u00e9\\n\" \"\" [^\\x00-y\\U0000007b-\\U0010ffff]",
            vec!["aB\u{e9}\nz"],
        ),
        (
            "# first\nroot ::= two-x | \n  (\"c\" # or\n | \"d\" \"e\"){0}\ntwo-x\n::= [x-]{2} two_x\ntwo_x ::= \"/\"?",
            vec!["xx", "x-", "-x", "--", "xx/", "x-/", "-x/", "--/", ""],
        ),
        // The longest lexeme would be the wrong one here.
        ("root ::= \"a\" \"b\" | \"ab\" \"c\"", vec!["ab", "abc"]),
        (
            "root ::= \"(\" root \")\" | \".\"",
            vec![".", "(.)", "((.))", "(((.)))", "((((.))))"],
        ),
    ] {
        for seed in 0..20 {
            let text = drawn(gbnf, seed).unwrap();
            let is_nested = text.len() > 9 && text.contains("((((");
            assert!(
                is_nested || admitted.contains(&text.as_str()),
                "{gbnf}: {text:?}"
            );
        }
    }
    let json = r#"
        root   ::= object
        value  ::= object | array | string | number | ("true" | "false" | "null") ws
        object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
        array  ::= "[" ws ( value ("," ws value)* )? "]" ws
        string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
        number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,1})? ws
        ws     ::= | " " | "\n" [ \t]{0,20}
    "#;
    let texts: Vec<String> = (0..40).filter_map(|seed| drawn(json, seed)).collect();
    for text in &texts {
        serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    }
    assert!(texts.len() > 10, "{}", texts.len());
}

#[test]
fn what_is_wrong_in_the_other_notation_is_told() {
    for (gbnf, words) in [
        ("rule ::= \"a\"", "no rule 'root'"),
        ("root ::= other", "no rule 'other'"),
        ("root ::= \"a\"\nroot ::= \"b\"", "'root' is there twice"),
        ("root ::= \"a", "line 1: a string is not closed"),
        (
            "root ::= \"a\"\n | [b",
            "line 2: a set of characters is not closed",
        ),
        ("root ::= []", "is empty"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= (\"a\"", "not closed"),
        ("root ::= \"a\")", "expected the name of a rule"),
        ("root ::= \"a\"{3,2}", "'{n,m}'"),
        ("root ::= \"a\"{99999999}", "at most 10000"),
        ("root ::= \"\\q\"", "escape"),
        ("root ::= \"\\uD800\"", "names no character"),
        ("root ::= <think>", "not supported"),
        ("root ::= *", "expected a part"),
    ] {
        let error = to_lark(gbnf).unwrap_err();
        assert!(error.contains(words), "{gbnf}: {error}");
    }
    assert!(to_lark(&format!("root ::= {}", "(".repeat(100_000))).is_err());
    assert!(!is_gbnf("start: \"a::=\""));
}

#[test]
fn a_token_that_is_not_allowed_fails() {
    let (compiler, tokenizer) = compiler();
    let mut constraint = compiler.compile(&Grammar::Regex("ab".to_owned())).unwrap();
    let wrong = tokenizer.encode("x", false).unwrap()[0];
    assert!(constraint.accept(wrong).is_err());
    // It stays failed: nothing is let through afterwards.
    assert!(constraint.allowed().is_err());
}

/// Whether they are refused or end with an error later: nobody waits for them, and no memory fills up.
#[test]
fn repetitions_without_end_are_within_the_limits() {
    let (compiler, _) = compiler();
    for grammar in [
        Grammar::Regex("x{1000000000}".to_owned()),
        Grammar::JsonSchema(json!({"type": "string", "pattern": "^x{1000000000}$"})),
        Grammar::Lark("start: C\nC: B{1000}\nB: A{1000}\nA: /x{1000}/".to_owned()),
    ] {
        let started = Instant::now();
        if let Err(error) = compiler.compile(&grammar) {
            assert!(!error.to_string().contains("too long"), "{grammar:?}");
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{grammar:?}: {took:?}");
    }
}

#[test]
fn hostile_grammars_are_refused_in_time() {
    let (compiler, _) = compiler();
    let mut deep = json!({"type": "null"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    let words: Vec<String> = (0..60_000).map(|i| format!("word number {i}")).collect();
    let hostile = [
        Grammar::JsonSchema(deep),
        Grammar::JsonSchema(json!({"type": "integer", "minimum": -1e30, "maximum": -1e30})),
        Grammar::JsonSchema(json!({"type": "integer", "exclusiveMaximum": i64::MIN})),
        Grammar::JsonSchema(json!({"enum": words})),
        Grammar::JsonSchema(json!({"type": "strnig"})),
        Grammar::JsonSchema(json!({"$ref": "#/$defs/none"})),
        Grammar::JsonSchema(json!({"$ref": "https://example.com/schema.json"})),
        Grammar::JsonSchema(json!({"type": "string", "pattern": "("})),
        Grammar::JsonSchema(json!({"type": "string", "pattern": "(?=a)b"})),
        Grammar::JsonSchema(json!({"allOf": [{"type": "string"}, {"type": "null"}]})),
        Grammar::JsonSchema(json!([1, 2])),
        Grammar::Regex("(".to_owned()),
        Grammar::Regex("x".repeat(40_000)),
        Grammar::Choice(Vec::new()),
        Grammar::Choice(vec!["y".repeat(70_000)]),
        Grammar::Lark("start: undefined".to_owned()),
        Grammar::Lark("begin: \"a\"".to_owned()),
        Grammar::Lark(String::new()),
        Grammar::Lark("start: ".to_owned() + &"(".repeat(20_000)),
    ];
    for grammar in hostile {
        let started = Instant::now();
        let result = compiler.compile(&grammar);
        let took = started.elapsed();
        let shown: String = format!("{grammar:?}").chars().take(120).collect();
        assert!(result.is_err(), "{shown}");
        let message = result.unwrap_err().to_string();
        assert!(
            !message.is_empty() && message.len() < 4_000,
            "{shown}: {message}"
        );
        assert!(took < Duration::from_secs(2), "{shown}: {took:?}");
    }
    let reason = |grammar| compiler.compile(&grammar).unwrap_err().to_string();
    let ahead = reason(Grammar::JsonSchema(
        json!({"type": "string", "pattern": "(?=a)b"}),
    ));
    assert!(ahead.contains("look-around"), "{ahead}");
    assert_eq!(
        reason(Grammar::Lark("start: start".to_owned())),
        "nothing can match it"
    );
    // What can be matched at a bounded cost need not be refused.
    for regex in [
        "((((a{1,100}){1,100}){1,100}){1,100}){1,100}".to_owned(),
        "(a|b)*a".to_owned() + &"(a|b){500}".repeat(200),
        "(a*)*(a*)*(a*)*b".to_owned(),
    ] {
        let started = Instant::now();
        if let Ok(mut constraint) = compiler.compile(&Grammar::Regex(regex.clone())) {
            assert!(constraint.allowed().is_ok());
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{regex:.60}: {took:?}");
    }
    // What generators of schemas write for integers of a size.
    let sized = [(i64::MIN, i64::MAX), (i64::MIN, 0), (0, i64::MAX)];
    for (minimum, maximum) in sized {
        let schema = json!({"type": "integer", "minimum": minimum, "maximum": maximum});
        let compiled = compiler.compile(&Grammar::JsonSchema(schema));
        assert!(compiled.is_ok(), "{minimum} {maximum}: {compiled:?}");
    }
    // And it goes on as before.
    assert!(compiler.compile(&Grammar::json_object()).is_ok());
}

#[test]
fn what_is_forced_is_all_that_is_allowed() {
    let (compiler, tokenizer) = compiler();
    let schema = json!({"type": "object", "required": ["a long name"], "properties":
        {"a long name": {"enum": ["the first value", "the second"]}}});
    let mut constraint = compiler.compile(&Grammar::JsonSchema(schema)).unwrap();
    let mut n_forced = 0;
    // It draws the last of what is allowed, which is a forced one wherever there is one.
    let mut tokens: Vec<u32> = Vec::new();
    while tokens.last() != Some(&2) {
        let forced: Vec<u32> = constraint.forced().iter().copied().collect();
        let mut alike = constraint.clone();
        for (i, token) in forced.iter().enumerate() {
            let allowed = alike.allowed().unwrap();
            let n_allowed: u32 = allowed.iter().map(|word| word.count_ones()).sum();
            assert_eq!(n_allowed, 1, "{forced:?}[{i}]");
            assert_eq!(allowed[*token as usize / 32], 1 << (token % 32));
            assert!(alike.forced().iter().eq(&forced[i..]), "it stays the same");
            alike.accept(*token).unwrap();
        }
        n_forced += forced.len();
        tokens.extend(forced);
        constraint = alike;
        if tokens.last() == Some(&2) {
            break;
        }
        let allowed = constraint.allowed().unwrap();
        let last = (0..512).rfind(|id: &u32| allowed[(*id / 32) as usize] >> (*id % 32) & 1 == 1);
        constraint.accept(last.unwrap()).unwrap();
        tokens.extend(last);
    }
    let text = tokenizer.decode(&tokens);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value["a long name"].as_str().unwrap().starts_with("the "));
    assert!(
        n_forced * 2 > tokens.len(),
        "{n_forced} of {}",
        tokens.len()
    );
}

/// Follows the first of what may come until the end, forced or not; the bytes of each forced run.
fn runs(regex: &str, ends: fn(&str) -> bool) -> (String, Vec<usize>, Result<(), String>) {
    let (compiler, tokenizer) = compiler();
    let mut constraint = compiler.compile(&Grammar::Regex(regex.to_owned())).unwrap();
    let (mut text, mut runs) = (String::new(), Vec::new());
    loop {
        let forced: Vec<u32> = constraint.forced().iter().copied().collect();
        runs.push(tokenizer.decode(&forced).len());
        let tokens = match &forced[..] {
            [] => match constraint.allowed() {
                Ok(allowed) => (0..512)
                    .rfind(|id: &u32| allowed[*id as usize / 32] >> (id % 32) & 1 == 1)
                    .into_iter()
                    .collect(),
                Err(error) => return (text, runs, Err(error)),
            },
            forced => forced.to_vec(),
        };
        for token in &tokens {
            if let Err(error) = constraint.accept(*token) {
                return (text, runs, Err(error));
            }
        }
        text += &tokenizer.decode(&tokens);
        if tokens.last() == Some(&2) || ends(&text) {
            return (text, runs, Ok(()));
        }
    }
}

#[test]
fn long_runs_are_forced_piece_by_piece() {
    let (text, runs, ended) = runs("(a|b)x{40000}", |_| false);
    assert_eq!(ended, Ok(()));
    let (first, rest) = text.split_at(1);
    assert!(["a", "b"].contains(&first) && rest.len() == 40_000 && rest.bytes().all(|b| b == b'x'));
    assert!(runs.iter().all(|n_bytes| *n_bytes <= 256), "{runs:?}");
    let n_forced: usize = runs.iter().sum();
    assert!(n_forced > 39_900, "{n_forced}");
}

#[test]
fn only_what_has_no_end_within_the_limits_fails() {
    let (text, runs, ended) = runs("(a|b)x{60000}", |_| false);
    let error = ended.unwrap_err();
    assert!(error.contains("its repetitions are too many"), "{error}");
    assert!(text.len() > 45_000, "{}", text.len());
    assert!(runs.iter().all(|n_bytes| *n_bytes <= 256));
}

/// A grammar whose bytes are dear: what is walked costs little beside what a mask may.
#[test]
fn dear_runs_end_nothing() {
    let regex = "(a|b)(y|(x|xx|xxx){1,300}z){1,200}";
    let (text, runs, ended) = runs(regex, |text| text.len() > 600);
    assert_eq!(ended, Ok(()), "{} {runs:?}", text.len());
}
