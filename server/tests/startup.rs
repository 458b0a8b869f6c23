//! A model that cannot be served: one clear line naming the file and what is wrong with it, an
//! exit code that is not zero, and no panic.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::assert_refused;
use tempfile::TempDir;

/// A scratch copy of a micro checkpoint, removed when dropped.
struct Model(TempDir);

impl Model {
    fn copy() -> Self {
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/llama31-gqa");
        let to = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let copy = to.path().join(entry.file_name());
            fs::write(copy, fs::read(entry.path()).unwrap()).unwrap();
        }
        Self(to)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn edit(&self, name: &str, edit: impl Fn(&str) -> String) {
        let text = fs::read_to_string(self.file(name)).unwrap();
        let edited = edit(&text);
        assert_ne!(text, edited, "the edit of {name} changed nothing");
        fs::write(self.file(name), edited).unwrap();
    }
}

fn serve(model: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["serve", "--port", "0"])
        .arg(model)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

/// The server refuses `model` in one line that contains all of `parts`.
fn refused(model: &Path, parts: &[&str]) {
    assert_refused(serve(model), parts);
}

#[test]
fn missing_model() {
    refused(Path::new("/no/such/model"), &["/no/such/model"]);
}

#[test]
fn config_with_a_missing_field() {
    let model = Model::copy();
    model.edit("config.json", |text| {
        text.replace("\"hidden_size\"", "\"hidden\"")
    });
    refused(model.dir(), &["config.json", "hidden_size"]);
}

#[test]
fn config_with_a_field_of_the_wrong_type() {
    let model = Model::copy();
    model.edit("config.json", |text| {
        text.replace("\"hidden_size\": 64", "\"hidden_size\": \"64\"")
    });
    refused(model.dir(), &["config.json", "hidden_size"]);
}

#[test]
fn config_that_is_not_json() {
    let model = Model::copy();
    model.edit("config.json", |text| text[..text.len() / 2].to_owned());
    refused(model.dir(), &["config.json"]);
}

#[test]
fn unknown_architecture() {
    let model = Model::copy();
    model.edit("config.json", |text| {
        text.replace("LlamaForCausalLM", "ZebraForCausalLM")
            .replace("\"llama\"", "\"zebra\"")
    });
    refused(model.dir(), &["config.json", "zebra", "llama"]);
}

#[test]
fn safetensors_with_a_lying_header() {
    let model = Model::copy();
    let path = model.file("model.safetensors");
    let whole = fs::read(&path).unwrap();

    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &lying).unwrap();
    refused(model.dir(), &["model.safetensors"]);

    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    refused(model.dir(), &["model.safetensors"]);

    fs::write(&path, b"").unwrap();
    refused(model.dir(), &["model.safetensors"]);
}

#[test]
fn tensor_of_the_wrong_shape() {
    let model = Model::copy();
    model.edit("config.json", |text| {
        text.replace("\"intermediate_size\": 160", "\"intermediate_size\": 192")
    });
    refused(
        model.dir(),
        &["model.safetensors", "model.layers.0.mlp", "160", "192"],
    );
}

#[test]
fn truncated_gguf() {
    let model = Model::copy();
    let path = model.file("broken.gguf");
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(5_u64.to_le_bytes());
    bytes.extend(9_u64.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    refused(&path, &["broken.gguf", "metadata count"]);

    fs::write(&path, b"not a gguf file at all").unwrap();
    refused(&path, &["broken.gguf", "GGUF"]);
}

#[test]
fn template_that_does_not_compile() {
    let model = Model::copy();
    fs::write(
        model.file("chat_template.jinja"),
        "{% for m in messages %}{{ m.content }}",
    )
    .unwrap();
    refused(model.dir(), &["chat_template.jinja"]);
}

#[test]
fn template_that_raises() {
    let model = Model::copy();
    fs::write(
        model.file("chat_template.jinja"),
        "{{ raise_exception('no users here') }}",
    )
    .unwrap();
    refused(model.dir(), &["chat_template.jinja", "no users here"]);
}

#[test]
fn template_that_loops() {
    let model = Model::copy();
    let text =
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}";
    fs::write(model.file("chat_template.jinja"), text).unwrap();
    refused(model.dir(), &["chat_template.jinja"]);
}

#[test]
fn broken_tokenizer() {
    let model = Model::copy();
    fs::write(model.file("tokenizer.json"), "{}").unwrap();
    refused(model.dir(), &["tokenizer.json"]);
}

/// What is refused by flags, in one line that contains all of `parts`.
fn refused_with(flags: &[&str], parts: &[&str]) {
    let model = Model::copy();
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["serve", "--port", "0"])
        .arg(model.dir())
        .args(flags)
        .output()
        .unwrap();
    assert_refused(output, parts);
}

#[test]
fn aliases_that_hide_a_name_or_stand_for_nothing() {
    let named = ["--served-model-name", "m", "--alias"];
    refused_with(&[&named[..], &["m=zz"]].concat(), &["--alias m", "hide"]);
    refused_with(&[&named[..], &["a=b"]].concat(), &["--alias a", "`b`"]);
}

#[test]
fn adapters_that_are_nowhere() {
    refused_with(&["--pin", "zz"], &["--pin zz"]);
    refused_with(&["--adapter-dir", "/nope"], &["--adapter-dir /nope"]);
    refused_with(&["--adapter", "x=/nope"], &["`x`", "/nope"]);
}

#[test]
fn memory_for_not_even_a_block() {
    refused_with(
        &["--kv-cache-memory", "1"],
        &["--kv-cache-memory is 1 B", "block"],
    );
}

#[test]
fn a_log_of_objects_ends_with_one() {
    refused_with(
        &["--log-format", "json", "--pin", "zz"],
        &["{\"timestamp\"", "\"ERROR\"", "--pin zz"],
    );
}

#[test]
fn impossible_settings() {
    let model = Model::copy();
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["serve", "--port", "0", "--max-model-len", "100000"])
        .arg(model.dir())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("max-model-len") && stderr.contains("256"),
        "{stderr}"
    );
}
