//! The law: the fold of a stream is the message, at every cut of the bytes.

use serde_json::json;

use super::*;

/// Draws without a dependency (Steele, Lea and Flood 2014).
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}

pub(super) const SYNTAXES: [ToolSyntax; 11] = [
    ToolSyntax::Hermes,
    ToolSyntax::Llama3,
    ToolSyntax::Mistral,
    ToolSyntax::Granite,
    ToolSyntax::DeepSeek,
    ToolSyntax::QwenXml,
    ToolSyntax::Pythonic,
    ToolSyntax::ToolCode,
    ToolSyntax::Gemma,
    ToolSyntax::Harmony,
    ToolSyntax::Json,
];

pub(super) fn rules(syntax: ToolSyntax, thinking: Option<Thinking>) -> AnswerRules {
    AnswerRules {
        thinking,
        harmony: syntax == ToolSyntax::Harmony,
        calls: Some(CallRules {
            syntax,
            tools: vec![
                (
                    "f".to_owned(),
                    json!({"properties": {"a": {"type": "string"}}}),
                ),
                ("get_weather".to_owned(), json!({})),
            ],
            parallel: true,
            required: false,
        }),
    }
}

/// A message, folded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) reasoning: String,
    pub(super) content: String,
    pub(super) calls: Vec<(String, String)>,
}

fn fold(message: &mut Message, deltas: Vec<Delta>) {
    for delta in deltas {
        match delta {
            Delta::Reasoning(text) => message.reasoning.push_str(&text),
            Delta::Content(text) => message.content.push_str(&text),
            Delta::Call { index, name } => {
                assert_eq!(index as usize, message.calls.len());
                message.calls.push((name, String::new()));
            }
            Delta::Arguments { index, json } => {
                assert_eq!(index as usize, message.calls.len() - 1);
                assert!(!json.is_empty());
                message.calls[index as usize].1.push_str(&json);
            }
        }
    }
}

pub(super) fn read(rules: &AnswerRules, pieces: &[&str]) -> Message {
    let mut parser = AnswerParser::new(rules);
    let mut message = Message::default();
    for piece in pieces {
        fold(&mut message, parser.push(piece));
    }
    fold(&mut message, parser.finish());
    message
}

fn calls(message: &Message) -> Vec<(&str, &str)> {
    let calls = message.calls.iter();
    calls
        .map(|(name, json)| (name.as_str(), json.as_str()))
        .collect()
}

#[test]
fn each_family_is_read() {
    let args = r#"{"city": "P}\"aris", "n": [1, {"a": null}]}"#;
    let hermes = format!(
        "Let me see.\n<tool_call>\n{{\"name\": \"f\", \"arguments\": {args}}}\n</tool_call>\n\
         <tool_call>\n{{\"arguments\": {{}}, \"name\": \"g\"}}\n</tool_call>"
    );
    let deepseek = format!(
        "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n\
         {args}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>g<｜tool▁sep｜>{{}}\
         <｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    );
    let mistral = format!(
        "Let me see.[TOOL_CALLS] [{{\"name\": \"f\", \"arguments\": {args}}}, {{\"name\": \"g\", \
         \"arguments\": {{}}}}]"
    );
    let named = format!("Let me see.[TOOL_CALLS]f[ARGS]{args}[TOOL_CALLS]g[ARGS]{{}}");
    let granite = format!(
        "Let me see.<|tool_call|>[{{\"name\": \"f\", \"arguments\": {args}}},\n{{\"name\": \"g\"}}]"
    );
    let xml = "Let me see.\n<tool_call>\n<function=f>\n<parameter=a>\nP\"aris\n\n</parameter>\n\
               <parameter=n>\n[1, {\"a\": null}]\n</parameter>\n</function>\n</tool_call>\n\
               <tool_call>\n<function=g>\n</function>\n</tool_call>";
    let gemma = "Let me see.<start_function_call>call:f{a:<escape>P\"aris\n<escape>,\
                 n:[1,{a:null}]}<end_function_call><start_function_call>call:g{}<end_function_call>";
    let python = "Let me see.\n```tool_code\nf(a='P\"aris\\n', n=[1, {'a': None}])\n```";
    let harmony = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary\
                   <|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary \
                   to=functions.f <|constrain|>json<|message|>{\"a\": \"P\\\"aris\\n\", \
                   \"n\": [1, {\"a\": null}]}<|call|><|start|>assistant to=functions.g\
                   <|channel|>commentary json<|message|><|call|>";
    let args_of_names = r#"{"a": "P\"aris\n", "n": [1, {"a": null}]}"#;
    for (syntax, text, n) in [
        (ToolSyntax::QwenXml, xml, 2),
        (ToolSyntax::Gemma, gemma, 2),
        (ToolSyntax::ToolCode, python, 1),
        (ToolSyntax::Harmony, harmony, 2),
    ] {
        let message = read(&rules(syntax, None), &[text]);
        assert_eq!(message.content, "Let me see.", "{syntax:?}");
        let expected = [("f", args_of_names), ("g", "{}")];
        assert_eq!(calls(&message), expected[..n], "{syntax:?}");
        assert_eq!(message.reasoning.is_empty(), syntax != ToolSyntax::Harmony);
    }
    for (syntax, text) in [
        (ToolSyntax::Hermes, hermes),
        (ToolSyntax::DeepSeek, deepseek),
        (ToolSyntax::Mistral, mistral),
        (ToolSyntax::Mistral, named),
        (ToolSyntax::Granite, granite),
    ] {
        let message = read(&rules(syntax, None), &[&text]);
        assert_eq!(message.content, "Let me see.", "{syntax:?}");
        assert_eq!(calls(&message), [("f", args), ("g", "{}")], "{syntax:?}");
    }
}

#[test]
fn calls_without_a_mark_must_name_a_tool() {
    let llama = rules(ToolSyntax::Llama3, None);
    let json = rules(ToolSyntax::Json, None);
    let one = r#"{"name": "f", "parameters": {"a": 1}}"#;
    for text in [one, &format!("\n {one}"), &format!("<|python_tag|>{one}")] {
        let message = read(&llama, &[text]);
        assert_eq!(calls(&message), [("f", r#"{"a": 1}"#)], "{text}");
        assert_eq!(message.content, "");
    }
    let fenced = format!("Sure:\n```json\n{one}\n```\n");
    let message = read(&json, &[&fenced]);
    assert_eq!(calls(&message), [("f", r#"{"a": 1}"#)]);
    assert_eq!(message.content, "Sure:");
    let two = format!("[{one}, {one}]");
    assert_eq!(read(&json, &[&two]).calls.len(), 2);
    for text in [
        r#"{"name": "Ada", "parameters": {"a": 1}}"#,
        r#" {"colour": "red"}  "#,
        "{not json",
        "[1, 2]",
        "Sure:\n```json\n{\"x\": 1}\n```",
        "{",
    ] {
        for rules in [&llama, &json] {
            let message = read(rules, &[text]);
            assert_eq!((message.content.as_str(), message.calls.len()), (text, 0));
        }
    }
}

#[test]
fn what_is_no_call_is_content_as_it_was() {
    for syntax in SYNTAXES {
        for text in [
            "",
            "  \n",
            "Hello.\n\n",
            "<tool_call> is a mark",
            "<tool_call>\n{\"nam",
            "a < b, [x], ``` code ```, <",
            "<tool_call>\nnothing\n</tool_call>",
            "[TOOL_CALLS] \u{e9}",
        ] {
            let message = read(&rules(syntax, None), &[text]);
            assert_eq!(message.content, text, "{syntax:?}");
            assert!(message.calls.is_empty());
        }
    }
}

#[test]
fn half_a_call_is_half_a_call() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"Par";
    let message = read(&rules(ToolSyntax::Hermes, None), &[text]);
    assert_eq!(calls(&message), [("f", "{\"city\": \"Par")]);
    let text = r#"<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>"#;
    let message = read(&rules(ToolSyntax::Hermes, None), &[text]);
    assert_eq!(calls(&message), [("f", r#"{"a": 1}"#)]);
}

#[test]
fn what_is_cut_of_a_required_call_is_no_content() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"Oslo\"}}\n</tool_call>";
    let xml =
        "<tool_call>\n<function=f>\n<parameter=a>\nOslo\n</parameter>\n</function>\n</tool_call>";
    let args = r#"{"a": "Oslo"}"#;
    for (syntax, text) in [
        (ToolSyntax::Hermes, text),
        (ToolSyntax::QwenXml, xml),
        (
            ToolSyntax::Llama3,
            &format!(r#"{{"name": "f", "parameters": {args}}}"#),
        ),
        (
            ToolSyntax::Mistral,
            &format!("[TOOL_CALLS][{{\"name\": \"f\", \"arguments\": {args}}}]"),
        ),
        (
            ToolSyntax::Granite,
            &format!("<|tool_call|>[{{\"name\": \"f\", \"arguments\": {args}}}]"),
        ),
        (
            ToolSyntax::DeepSeek,
            &format!(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{args}\
                 <｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            ),
        ),
        (ToolSyntax::Pythonic, "[f(a='Oslo')]"),
        (ToolSyntax::ToolCode, "```tool_code\nf(a='Oslo')\n```"),
        (
            ToolSyntax::Gemma,
            "<start_function_call>call:f{a:<escape>Oslo<escape>}<end_function_call>",
        ),
        (
            ToolSyntax::Harmony,
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": \
             \"Oslo\"}<|call|>",
        ),
        (
            ToolSyntax::Json,
            &format!("[{{\"name\": \"f\", \"arguments\": {args}}}]"),
        ),
    ] {
        let mut rules = rules(syntax, None);
        rules.calls.as_mut().unwrap().required = true;
        assert_eq!(calls(&read(&rules, &[text])), [("f", args)], "{syntax:?}");
        // What ends a call on a channel is one token, which no cut falls into.
        let n_cut = text
            .strip_suffix("<|call|>")
            .map_or(text.len(), |before| before.len() + 1);
        for end in (0..n_cut).filter(|end| text.is_char_boundary(*end)) {
            let cut = &text[..end];
            let message = read(&rules, &[cut]);
            assert_eq!(message.content, "", "{syntax:?} {cut:?}");
            let letters: Vec<String> = cut.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(read(&rules, &letters), message, "{syntax:?} {cut:?}");
            for (name, arguments) in &message.calls {
                assert_eq!(name, "f", "{syntax:?} {cut:?}");
                // On channels, what ends a call can be the end of the answer itself.
                let is_empty = syntax == ToolSyntax::Harmony && arguments == "{}";
                assert!(
                    is_empty || args.starts_with(arguments),
                    "{syntax:?} {cut:?} {arguments}"
                );
            }
        }
    }
}

#[test]
fn one_call_at_a_time_if_asked() {
    let mut rules = rules(ToolSyntax::Hermes, None);
    rules.calls.as_mut().unwrap().parallel = false;
    let one = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
    assert_eq!(calls(&read(&rules, &[one, one])), [("f", "{}")]);
}

#[test]
fn thoughts_are_apart() {
    let thinks = |thinking, text: &str| {
        let message = read(&rules(ToolSyntax::Hermes, thinking), &[text]);
        (message.reasoning, message.content)
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let may = Some(Thinking::MayBegin);
    assert_eq!(
        thinks(may, "<think>\nHm.\n</think>\n\nYes."),
        pair("Hm.", "Yes.")
    );
    assert_eq!(
        thinks(may, "No thoughts <think>"),
        pair("", "No thoughts <think>")
    );
    assert_eq!(thinks(may, "<thin"), pair("", "<thin"));
    let inside = Some(Thinking::Inside);
    assert_eq!(thinks(inside, "\nHm.</think>Yes."), pair("Hm.", "Yes."));
    assert_eq!(thinks(inside, "Hm. <b></th"), pair("Hm. <b></th", ""));
    assert_eq!(
        thinks(None, "<think>a</think>b"),
        pair("", "<think>a</think>b")
    );
    assert_eq!(Thinking::of_prompt("...<think>\n"), inside);
    assert_eq!(Thinking::of_prompt("<think>\n\n</think>\n\n"), None);
    assert_eq!(Thinking::of_prompt("assistant\n"), may);
}

/// What is likely to confuse: marks, halves of marks, JSON, blanks.
const FRAGMENTS: [&str; 69] = [
    "<tool_call>\n<function=f>\n<parameter=a>\nx < \"y\"\n</parameter>\n</function>\n</tool_call>",
    "<function=g><parameter=n>\n[1, {}]\n</parameter><parameter=b>é</parameter></function>",
    "<function=f>\n",
    "<parameter=a>\n",
    "\n</parameter>",
    "</function>",
    "[f(a='x', b=[1, {'c': None}]), get_weather()]",
    "[f(a=\"\\\"\", b=True)]",
    "f(a=1)",
    "f(1)",
    "```tool_code\nget_weather(a='Oslo')\n```",
    "<start_function_call>call:f{a:<escape>x<y<escape>,b:[1,true]}<end_function_call>",
    "<|tool_call>call:get_weather{a:<|\"|>é<|\"|>}<tool_call|>",
    "call:f{",
    "<escape>",
    "<|channel|>analysis<|message|>Hm.<|end|>",
    "<|start|>assistant<|channel|>final<|message|>Yes.",
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
    "<|start|>assistant to=functions.g<|channel|>commentary json<|message|>",
    "<|start|>assistant<|channel|>commentary<|message|>I look.",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "to=",
    "'",
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"<b>\"}}\n</tool_call>",
    "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
    "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [1]}}, {\"name\": \"g\"}]",
    "[TOOL_CALLS]get_weather[ARGS]{\"a\": {}}",
    "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1.5}}]",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"x\"}\
     <｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": null}}",
    "```json\n{\"name\": \"f\", \"arguments\": {\"a\": true}}\n```",
    "<tool_call>",
    "</tool_call>",
    "<tool_",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_call|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "function",
    "```json\n",
    "```",
    "\n",
    " ",
    "{\"name\": \"f\", \"arguments\": {\"x\": \"a\\\"}\"}}",
    "{\"name\": \"get_weather\", \"parameters\": {\"n\": [1, {}], \"s\": \"é\"}}",
    "{\"arguments\": {\"k\": 1}, \"name\": \"f\"}",
    "{\"name\": \"f\"}",
    "{\"name\": 7}",
    "{\"name\": \"f\", \"arguments\": \"{}\", \"id\": 12}",
    "{\"a\": 1}",
    "{}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ";",
    "f",
    "Hello, wörld.",
    "<think>",
    "</think>",
    "\u{1f600}",
];

/// Text out of fragments.
fn generated(draws: &mut Draws) -> String {
    let n = 1 + draws.below(9);
    (0..n).map(|_| draws.pick(&FRAGMENTS)).collect()
}

#[test]
fn the_fold_of_every_cut_is_the_message() {
    let mut draws = Draws(6);
    let mut n_calls = 0;
    for case in 0..10_000 {
        let text = generated(&mut draws);
        let syntax = SYNTAXES[case % SYNTAXES.len()];
        let thinking = [None, Some(Thinking::Inside), Some(Thinking::MayBegin)][draws.below(3)];
        let rules = rules(syntax, thinking);
        let whole = read(&rules, &[&text]);
        n_calls += whole.calls.len();
        for cut in (1..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let cut_in_two = read(&rules, &[&text[..cut], &text[cut..]]);
            assert_eq!(
                cut_in_two, whole,
                "{syntax:?} {thinking:?} {text:?} at {cut}"
            );
        }
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(
            read(&rules, &letters),
            whole,
            "{syntax:?} {thinking:?} {text:?}"
        );
    }
    assert!(n_calls > 1_000, "{n_calls}");
}
