//! Real chat templates against the reference renderer.
//!
//! Their texts are not part of this repository: `tests/fetch-templates.sh` downloads them once to
//! `target/test-data/templates`; `UNDERSTUDY_TEMPLATES_DIR` names another folder.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use understudy::text::{ChatTemplate, TemplateError};

/// The time at which the goldens were rendered: 2026-01-02 03:04:05.
fn frozen() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn goldens() -> Value {
    let path = root().join("tests/fixtures/goldens/templates.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn templates_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("UNDERSTUDY_TEMPLATES_DIR") {
        return dir.into();
    }
    static FETCHED: Once = Once::new();
    FETCHED.call_once(|| {
        let script = root().join("tests/fetch-templates.sh");
        let status = Command::new("bash").arg(script).status();
        assert!(status.unwrap().success(), "tests/fetch-templates.sh failed");
    });
    root().join("target/test-data/templates")
}

fn load(dir: &Path, golden: &Value) -> ChatTemplate {
    let name = golden["template"].as_str().unwrap();
    let path = dir.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run tests/fetch-templates.sh", path.display())
    });
    let mut hash = String::new();
    for byte in Sha256::digest(&text) {
        write!(hash, "{byte:02x}").unwrap();
    }
    assert_eq!(
        hash,
        golden["sha256"].as_str().unwrap(),
        "{name}: another text than the goldens'"
    );
    let mut tokens = Map::new();
    for token in ["bos_token", "eos_token"] {
        tokens.insert(token.into(), golden[token].clone());
    }
    ChatTemplate::from_text(name, &text, &tokens, frozen).unwrap()
}

fn render(template: &ChatTemplate, case: &Value, tools: &Value) -> Result<String, TemplateError> {
    template.render(
        &case["messages"],
        (case["tools"] == json!(true)).then_some(tools),
        case["add_generation_prompt"].as_bool().unwrap(),
        case["kwargs"].as_object().unwrap(),
    )
}

fn case<'a>(golden: &'a Value, name: &str) -> &'a Value {
    let cases = golden["cases"].as_array().unwrap();
    cases.iter().find(|case| case["case"] == name).unwrap()
}

/// Why a rendering that differs from the reference's is right, or what is wrong with it.
fn judge(
    golden: &Value,
    case_: &Value,
    ours: &Result<String, TemplateError>,
) -> Result<&'static str, String> {
    let name = case_["case"].as_str().unwrap();
    if let (Ok(ours), Some(theirs)) = (ours, case_["text"].as_str())
        && ours == theirs
    {
        return Ok("equal");
    }
    if let Some(error) = case_["error"].as_object() {
        let raised = error["type"] == "TemplateError";
        return match ours {
            Err(TemplateError::Raised(message)) if raised && error["message"] == json!(message) => {
                Ok("raises the same")
            }
            // `list.append` is no part of a sandbox: lists are values here too.
            Err(TemplateError::Failed { .. }) if error["type"] == "SecurityError" => {
                Ok("list.append")
            }
            // The reference renders the request as it is; a server normalises it first.
            Ok(ours) if !raised && name == "content-parts" => {
                let joined = ours.contains("Part one. Part two.");
                joined.then_some("normalised").ok_or(format!("{ours:?}"))
            }
            Ok(_) if !raised && name == "tool-call-null-content" => Ok("normalised"),
            // Arguments in the form that the template needs make both spellings the same prompt.
            Ok(ours) if name.starts_with("tool-call") || name == "two-calls" => {
                let dict = &case(golden, "tool-call-dict")["text"];
                let text = &case(golden, "tool-call-json-string")["text"];
                let same = [dict, text].iter().any(|t| t.as_str() == Some(ours));
                let comparable = ["tool-call-dict", "tool-call-json-string"].contains(&name);
                if same || !comparable {
                    Ok("normalised")
                } else {
                    Err(format!("{ours:?}"))
                }
            }
            // With no tools the variable is undefined and not None.
            Ok(_) if error["message"] == "'NoneType' object is not iterable" => Ok("normalised"),
            other => Err(format!("{other:?} instead of {error:?}")),
        };
    }
    if name == "tool-call-json-string"
        && let Ok(ours) = ours
        && case(golden, "tool-call-dict")["text"].as_str() == Some(ours)
    {
        return Ok("normalised");
    }
    if ["content-parts", "tool-call-null-content"].contains(&name) && ours.is_ok() {
        return Ok("normalised");
    }
    Err(match ours {
        Ok(ours) => format!(
            "\n ours   {ours:?}\n theirs {:?}",
            case_["text"].as_str().unwrap()
        ),
        Err(error) => format!("{error:?}"),
    })
}

#[test]
fn real_templates_render_as_the_reference_does() {
    let dir = templates_dir();
    let goldens = goldens();
    let mut failures = String::new();
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for golden in goldens["templates"].as_array().unwrap() {
        let template = load(&dir, golden);
        for case in golden["cases"].as_array().unwrap() {
            let ours = render(&template, case, &goldens["tools"]);
            match judge(golden, case, &ours) {
                Ok(kind) => *counts.entry(kind).or_default() += 1,
                Err(why) => {
                    writeln!(failures, "{} {}: {why}", golden["template"], case["case"]).unwrap()
                }
            }
        }
    }
    assert!(failures.is_empty(), "{counts:?}\n{failures}");
    assert_eq!(
        Vec::from_iter(counts),
        [
            ("equal", 475),
            ("list.append", 10),
            ("normalised", 61),
            ("raises the same", 21)
        ]
    );
}

/// A conversation of a thousand messages is no endless loop.
#[test]
fn long_conversations_stay_below_the_limits() {
    let turns = (0..500).flat_map(|turn| {
        [
            json!({"role": "user", "content": format!("Question {turn}")}),
            json!({"role": "assistant", "content": format!("Answer {turn}")}),
        ]
    });
    let messages = Value::Array(
        turns
            .chain([json!({"role": "user", "content": "Bye"})])
            .collect(),
    );
    for golden in goldens()["templates"].as_array().unwrap() {
        let template = load(&templates_dir(), golden);
        let text = template.render(&messages, None, true, &Map::new());
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", golden["template"]));
        assert!(text.contains("Answer 0") && text.contains("Bye"));
    }
}

/// The templates of the micro checkpoints, one from each kind of place.
#[test]
fn templates_beside_a_tokenizer() {
    let tools = &goldens()["tools"];
    let load = |name: &str| {
        let dir = root().join("tests/fixtures/tokenizers").join(name);
        ChatTemplate::from_dir(&dir, frozen).unwrap().unwrap()
    };
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Zürich? "},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
            "function": {"name": "f", "arguments": "{\"city\":\"Zürich\"}"}}]},
        {"role": "tool", "content": [{"type": "text", "text": "21"}]},
    ]);
    let chatml = load("gpt2")
        .render(&messages, None, true, &Map::new())
        .unwrap();
    assert_eq!(
        chatml,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nZürich?<|im_end|>\n\
         <|im_start|>assistant\n<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"Zürich\"}}\
         </tool_call><|im_end|>\n<|im_start|>tool\n21<|im_end|>\n<|im_start|>assistant\n"
    );
    let with_tools = load("llama3")
        .render(&messages, Some(tools), false, &Map::new())
        .unwrap();
    assert!(
        with_tools.starts_with("<|im_start|>system\nBe brief.\n\nTools:\n{\"type\": \"function\"")
    );
    let llama2 = load("spm");
    let turns = json!([
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Bye"},
    ]);
    assert_eq!(
        llama2.render(&turns, None, true, &Map::new()).unwrap(),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Ho </s><s>[INST] Bye [/INST]"
    );
    let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let error = llama2.render(&twice, None, true, &Map::new()).unwrap_err();
    assert!(
        matches!(&error, TemplateError::Raised(why) if why.contains("must alternate")),
        "{error}"
    );
}
