use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::*;

fn frozen() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

fn template(text: &str) -> ChatTemplate {
    ChatTemplate::from_text("chat_template.jinja", text, &Map::new(), frozen).unwrap()
}

fn render(text: &str) -> Result<String, TemplateError> {
    template(text).render(
        &json!([{"role": "user", "content": "Hi <b>"}]),
        None,
        true,
        &Map::new(),
    )
}

#[test]
fn a_template_that_does_not_compile_names_the_file() {
    let error =
        ChatTemplate::from_text("dir/t.jinja", "{% if %}", &Map::new(), frozen).unwrap_err();
    assert!(
        matches!(&error, TemplateError::Failed { file, .. } if file == "dir/t.jinja"),
        "{error}"
    );
}

#[test]
fn a_template_that_raises_says_its_own_words() {
    let error = render("{{ raise_exception('No, not \"this\"') }}").unwrap_err();
    assert!(
        matches!(&error, TemplateError::Raised(text) if text == "No, not \"this\""),
        "{error}"
    );
    let inside = "{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}";
    assert!(matches!(render(inside).unwrap_err(), TemplateError::Raised(text) if text == "deep"));
}

#[test]
fn endless_templates_are_stopped() {
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{{ a }}{% endfor %}{% endfor %}{% endfor %}";
    let recursion = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    let output = "{% set s = 'x' * 100000 %}{% for a in range(9999) %}{{ s }}{% endfor %}";
    for text in [loops, recursion, output] {
        let template = template(text);
        let started = Instant::now();
        let error = template
            .render(&json!([]), None, true, &Map::new())
            .unwrap_err();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert!(matches!(&error, TemplateError::Failed { .. }), "{error}");
    }
    let error = render(loops).unwrap_err().to_string();
    assert!(error.contains("does not end"), "{error}");
}

#[test]
fn functions_and_filters_of_real_templates() {
    assert_eq!(
        render("{{ strftime_now('%d %b %Y') }}").unwrap(),
        "02 Jan 2026"
    );
    assert_eq!(
        render("{{ messages | tojson }}").unwrap(),
        "[{\"role\": \"user\", \"content\": \"Hi <b>\"}]"
    );
    assert_eq!(
        render("{{ {'a': [1]} | tojson(indent=2) }}").unwrap(),
        "{\n  \"a\": [\n    1\n  ]\n}"
    );
    assert_eq!(render("{{ {'b': 'é', 'a': 1} | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}").unwrap(), "{\"a\":1,\"b\":\"\\u00e9\"}");
    assert!(render("{{ nothing | tojson }}").is_err());
    assert_eq!(
        render("{% generation %}a{%- endgeneration %}").unwrap(),
        "a"
    );
    assert_eq!(
        render("{{ messages[::-1][0].role.upper() }}{{ messages|list|length }}").unwrap(),
        "USER1"
    );
    assert_eq!(
        render("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}").unwrap(),
        "role=user;content=Hi <b>;"
    );
    assert_eq!(
        render("{% if tools is defined %}x{% endif %}{{ add_generation_prompt }}").unwrap(),
        "True"
    );
    assert_eq!(
        render("{% if tools is none %}none{% endif %}").unwrap(),
        "none"
    );
    let loops = "{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}";
    assert_eq!(render(loops).unwrap(), "4");
}

#[test]
fn messages_are_normalised() {
    let shows = template("{% for m in messages %}{{ m | tojson }}{% endfor %}");
    let messages = json!([
        {"role": "assistant", "content": null},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]);
    assert_eq!(
        shows.render(&messages, None, true, &Map::new()).unwrap(),
        "{\"role\": \"assistant\", \"content\": \"\"}{\"role\": \"user\", \"content\": \"ab\"}"
    );
}

#[test]
fn tool_calls_take_the_form_that_the_template_needs() {
    let call = |arguments: Value| {
        json!([{"role": "assistant", "content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}])
    };
    let start = "{% for m in messages %}{% for c in m.tool_calls %}";
    let end = "{% endfor %}{% endfor %}";
    let given = r#"{"b":1,  "a":"x"}"#;
    for (body, expected) in [
        (
            "{{ c.function.arguments | tojson }}",
            r#"{"b": 1, "a": "x"}"#,
        ),
        (
            "{{ '[' + c.function.arguments + ']' }}",
            r#"[{"b":1,  "a":"x"}]"#,
        ),
        ("{{ c.function.arguments }}", given),
        (
            "{% for k, v in c.function.arguments | items %}{{ k }}:{{ v }};{% endfor %}",
            "b:1;a:x;",
        ),
    ] {
        let template = template(&format!("{start}{body}{end}"));
        let text = template
            .render(&call(json!(given)), None, true, &Map::new())
            .unwrap();
        assert_eq!(text, expected, "{body}");
    }
}

#[test]
fn named_templates_and_tokens_come_from_the_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let config = json!({
        "bos_token": {"content": "<s>"}, "eos_token": "</s>",
        "chat_template": [
            {"name": "default", "template": "{{ bos_token }}plain{{ eos_token }}"},
            {"name": "tool_use", "template": "tools{{ tools | length }}"},
        ],
    });
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_dir(dir, frozen).unwrap().unwrap();
    let tools = json!([{"type": "function"}]);
    assert_eq!(
        template
            .render(&json!([]), None, true, &Map::new())
            .unwrap(),
        "<s>plain</s>"
    );
    assert_eq!(
        template
            .render(&json!([]), Some(&tools), true, &Map::new())
            .unwrap(),
        "tools1"
    );
    assert_eq!(
        template
            .render(&json!([]), Some(&json!([])), true, &Map::new())
            .unwrap(),
        "<s>plain</s>"
    );
    std::fs::write(dir.join("chat_template.jinja"), "file").unwrap();
    let template = ChatTemplate::from_dir(dir, frozen).unwrap().unwrap();
    assert_eq!(
        template
            .render(&json!([]), None, true, &Map::new())
            .unwrap(),
        "file"
    );
    std::fs::write(dir.join("chat_template.jinja"), "{% broken").unwrap();
    let error = ChatTemplate::from_dir(dir, frozen).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}
