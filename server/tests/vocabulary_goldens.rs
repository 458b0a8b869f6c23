//! Tokenizers out of GGUF metadata against llama.cpp's own tests of theirs: real vocabularies,
//! texts in many scripts, and the tokens that they must become.
//!
//! The vocabularies are not part of this repository: `tests/fetch-templates.sh` downloads them
//! once to `target/test-data/vocabularies`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use models::Gguf;
use understudy::text::Tokenizer;

fn vocabularies() -> PathBuf {
    static FETCHED: Once = Once::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    FETCHED.call_once(|| {
        let script = root.join("tests/fetch-templates.sh");
        let status = Command::new("bash").arg(script).status();
        assert!(status.unwrap().success(), "tests/fetch-templates.sh failed");
    });
    root.join("target/test-data/vocabularies")
}

fn read(name: &str, end: &str) -> String {
    let path = vocabularies().join(format!("ggml-vocab-{name}.gguf.{end}"));
    std::fs::read_to_string(path).unwrap()
}

fn gguf(name: &str) -> Gguf {
    Gguf::open(&vocabularies().join(format!("ggml-vocab-{name}.gguf"))).unwrap()
}

fn check(name: &str) {
    let tokenizer = Tokenizer::from_gguf(&gguf(name)).unwrap();
    let texts = read(name, "inp");
    let expected = read(name, "out");
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let expected: Vec<&str> = expected.lines().collect();
    let mut n_cases = 0;
    for (text, expected) in texts.iter().zip(&expected) {
        let expected: Vec<u32> = expected
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        let found = tokenizer.encode(text, false).unwrap();
        assert_eq!(found, expected, "{name}: {text:?}");
        n_cases += 1;
    }
    assert!(n_cases >= 40, "{name}: {n_cases}");
}

macro_rules! vocabularies {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { check($name); })*
    };
}

vocabularies! {
    command_r: "command-r",
    deepseek_coder: "deepseek-coder",
    deepseek_llm: "deepseek-llm",
    falcon: "falcon",
    gpt_2: "gpt-2",
    llama_bpe: "llama-bpe",
    llama_spm: "llama-spm",
    mpt: "mpt",
    phi_3: "phi-3",
    qwen2: "qwen2",
    qwen35: "qwen35",
    refact: "refact",
    starcoder: "starcoder",
}

/// Kinds of tokenizer that no served family has are refused by their name.
#[test]
fn other_kinds_are_refused_by_name() {
    for (name, kind) in [
        ("bert-bge", "bert"),
        ("nomic-bert-moe", "t5"),
        ("gemma-4", "gemma4"),
    ] {
        let error = Tokenizer::from_gguf(&gguf(name)).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{kind:?} is not supported")),
            "{error}"
        );
    }
}
