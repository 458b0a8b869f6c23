//! Tokenizers against the reference implementation: ids, texts and the text of every prefix.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use understudy::text::{Detokenizer, Tokenizer};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn goldens() -> Value {
    let text = std::fs::read_to_string(fixtures().join("goldens/tokenizers.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_dir(&fixtures().join("tokenizers").join(name)).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn texts_become_the_ids_of_the_reference() {
    let mut n_cases = 0;
    for (name, cases) in goldens().as_object().unwrap() {
        let tokenizer = tokenizer(name);
        assert_eq!(tokenizer.vocab_size(), 512);
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let encode = |special| tokenizer.encode(text, special).unwrap();
            assert_eq!(encode(true), ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(
                encode(false),
                ids(&case["ids_no_special"]),
                "{name}: {text:?}"
            );
            n_cases += 1;
        }
    }
    assert!(n_cases > 100);
}

#[test]
fn ids_become_the_text_of_the_reference() {
    for (name, cases) in goldens().as_object().unwrap() {
        let tokenizer = tokenizer(name);
        for case in cases.as_array().unwrap() {
            let expected = case["decoded_skip_special"].as_str().unwrap();
            assert_eq!(tokenizer.decode(&ids(&case["ids"])), expected, "{name}");
        }
    }
}

/// After each token: what has been sent, and what would be sent if the text ended here, against
/// the reference's decoding of the tokens so far.
#[test]
fn every_prefix_streams_as_the_reference_decodes_it() {
    let mut n_prefixes = 0;
    let mut n_differing = 0;
    for (name, cases) in goldens().as_object().unwrap() {
        let tokenizer = tokenizer(name);
        for case in cases.as_array().unwrap() {
            let all = ids(&case["ids_no_special"]);
            let full = case["decoded_skip_special"].as_str().unwrap();
            let mut stream = Detokenizer::new(tokenizer.clone());
            let mut sent = String::new();
            for (index, &token) in all.iter().enumerate() {
                sent.push_str(&stream.push(token));
                assert!(full.starts_with(&sent), "{name}: {sent:?} of {full:?}");
                let Some(expected) = case["decoded_prefixes"][index].as_str() else {
                    continue;
                };
                // The golden prefixes spell special tokens out.
                if all[..=index].iter().any(|&id| tokenizer.is_special(id)) {
                    continue;
                }
                n_prefixes += 1;
                let decoded = tokenizer.decode(&all[..=index]);
                if decoded != expected {
                    // Byte fallback only: the reference also gives up the whole characters of a
                    // run of byte tokens that does not end in one.
                    n_differing += 1;
                    assert_eq!(name, "spm", "{decoded:?} {expected:?}");
                    assert!(expected.ends_with('\u{fffd}') && decoded.ends_with('\u{fffd}'));
                    assert!(decoded.starts_with(expected.trim_end_matches('\u{fffd}')));
                }
            }
            sent.push_str(&stream.finish());
            assert_eq!(sent, full, "{name}");
        }
    }
    assert!(n_prefixes > 1000, "{n_prefixes}");
    assert!(
        n_differing * 20 < n_prefixes,
        "{n_differing} of {n_prefixes}"
    );
}

#[test]
fn bytes_of_tokens_are_exact() {
    for (name, cases) in goldens().as_object().unwrap() {
        let tokenizer = tokenizer(name);
        for case in cases.as_array().unwrap() {
            let all = ids(&case["ids_no_special"]);
            let bytes = all
                .iter()
                .flat_map(|&id| tokenizer.token_bytes(id).unwrap());
            let bytes: Vec<u8> = bytes.collect();
            let full = case["decoded_skip_special"].as_str().unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(
                text.strip_prefix(' ')
                    .filter(|_| name == "spm")
                    .unwrap_or(&text),
                full
            );
        }
        assert_eq!(tokenizer.token_bytes(512), None);
        assert!(
            tokenizer.is_special(1) && !tokenizer.is_special(100) && !tokenizer.is_special(512)
        );
        assert_eq!(tokenizer.token_bytes(1), Some(vec![]));
    }
}

#[test]
fn broken_bytes_become_replacement_characters() {
    let spm = tokenizer("spm");
    let byte = |byte: u8| spm.token_id(&format!("<0x{byte:02X}>")).unwrap();
    // A euro sign without its last byte, a letter, a lone continuation byte.
    let letter = spm.token_id("a").unwrap();
    let broken = [byte(0xe2), byte(0x82), letter, byte(0x80)];
    assert_eq!(spm.decode(&broken), "\u{fffd}\u{fffd}a\u{fffd}");
    let gpt2 = tokenizer("gpt2");
    let euro = gpt2.encode("€", false).unwrap();
    let a = gpt2.encode("a", false).unwrap();
    if euro.len() > 1 {
        assert_eq!(
            gpt2.decode(&[&euro[..euro.len() - 1], &a[..]].concat()),
            "\u{fffd}a"
        );
    }
    let mut stream = Detokenizer::new(gpt2.clone());
    let sent: String = euro.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(sent, "€");
    assert_eq!(stream.finish(), "");
}

#[test]
fn text_that_continues_a_prompt_keeps_its_space() {
    let spm = tokenizer("spm");
    let ids = spm.encode("a b", false).unwrap();
    let stream = |mut stream: Detokenizer| -> String {
        ids.iter().map(|&id| stream.push(id)).collect::<String>() + &stream.finish()
    };
    assert_eq!(stream(Detokenizer::new(spm.clone())), "a b");
    assert_eq!(stream(Detokenizer::continuing(spm.clone())), " a b");
}

#[test]
fn a_long_stream_takes_linear_time() {
    let tokenizer = tokenizer("llama3");
    let ids = tokenizer.encode("naïve café 日本語 🙂 ", false).unwrap();
    let started = std::time::Instant::now();
    let mut stream = Detokenizer::new(tokenizer);
    let n: usize = ids
        .iter()
        .cycle()
        .take(1_000_000)
        .map(|&id| stream.push(id).len())
        .sum();
    assert!(n > 500_000);
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
}

#[test]
fn a_missing_or_broken_tokenizer_names_the_file() {
    let error = Tokenizer::from_dir(Path::new("/nonexistent")).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/tokenizer.json"),
        "{error}"
    );
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    std::fs::write(
        dir.join("tokenizer.json"),
        r#"{"decoder": {"type": "ByteLevel"}, "model": 1}"#,
    )
    .unwrap();
    let error = Tokenizer::from_dir(dir).unwrap_err();
    assert!(error.file.ends_with("tokenizer.json") && !error.message.is_empty());
    std::fs::write(dir.join("tokenizer.model"), "").unwrap();
    std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
    let error = Tokenizer::from_dir(dir).unwrap_err();
    assert!(error.file.ends_with("tokenizer.model"), "{error}");
}

#[test]
fn length_alone_never_promises_too_many_tokens() {
    for (name, cases) in goldens().as_object().unwrap() {
        let tokenizer = tokenizer(name);
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert!(
                tokenizer.least_tokens(text) <= ids(&case["ids"]).len(),
                "{name}: {text:?}"
            );
        }
        assert!(
            tokenizer.least_tokens(&"a b ".repeat(10_000)) > 100,
            "{name}"
        );
        let marks = "<|im_end|><|end_of_text|></s>".repeat(100);
        let n_tokens = tokenizer.encode(&marks, false).unwrap().len();
        assert!(tokenizer.least_tokens(&marks) <= n_tokens, "{name}");
    }
}
