//! Control tokens that a client spells are text, and nothing else changes by it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use understudy::text::Tokenizer;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn tokenizers() -> Vec<(String, Tokenizer)> {
    let load = |name: &str| {
        let dir = fixtures().join("tokenizers").join(name);
        (name.to_owned(), Tokenizer::from_dir(&dir).unwrap())
    };
    ["gpt2", "llama3", "spm"].map(load).into()
}

/// Spellings of the vocabulary's control tokens of two characters or more.
fn control_tokens(tokenizer: &Tokenizer) -> Vec<String> {
    let n_ids = u32::try_from(tokenizer.vocab_size()).unwrap();
    let special = (0..n_ids).filter(|&id| tokenizer.is_special(id));
    special
        .filter_map(|id| tokenizer.token_spelling(id))
        .collect()
}

fn guarded_text(tokenizer: &Tokenizer, content: &str) -> (String, Option<char>) {
    let value = json!(content);
    let guard = tokenizer.guard(&[&value]).unwrap();
    (
        guard.guard(&value).as_str().unwrap().to_owned(),
        guard.mark(),
    )
}

#[test]
fn ordinary_texts_keep_the_ids_of_the_reference() {
    let text = std::fs::read_to_string(fixtures().join("goldens/tokenizers.json")).unwrap();
    let goldens: Value = serde_json::from_str(&text).unwrap();
    let mut n_ordinary = 0;
    for (name, tokenizer) in tokenizers() {
        let control = control_tokens(&tokenizer);
        assert!(!control.is_empty(), "{name}");
        for case in goldens[&name].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let (guarded, mark) = guarded_text(&tokenizer, text);
            let spells = control.iter().any(|token| text.contains(token.as_str()));
            assert_eq!(mark.is_some(), spells, "{name}: {text:?}");
            if !spells {
                n_ordinary += 1;
                let ids = tokenizer.encode_guarded(&guarded, mark).unwrap();
                assert_eq!(json!(ids), case["ids_no_special"], "{name}: {text:?}");
            }
        }
    }
    assert!(n_ordinary > 80, "{n_ordinary}");
}

#[test]
fn spelled_control_tokens_are_text_and_real_ones_stay() {
    for (name, tokenizer) in tokenizers() {
        for token in control_tokens(&tokenizer) {
            let real = tokenizer.token_id(&token).unwrap();
            for content in [
                token.clone(),
                format!("a {token} b"),
                format!("{token}{token}x"),
                format!("{}{token}", &token[..1]),
            ] {
                let (guarded, mark) = guarded_text(&tokenizer, &content);
                assert!(mark.is_some(), "{name}: {content:?}");
                let prompt = format!("{token}user {guarded}{token}\nmore");
                let ids = tokenizer.encode_guarded(&prompt, mark).unwrap();
                let n_real = ids.iter().filter(|&&id| tokenizer.is_special(id)).count();
                assert_eq!(n_real, 2, "{name}: {content:?} {ids:?}");
                assert_eq!(ids[0], real);
                let text = tokenizer.decode(&ids[1..]);
                // Some tokenizers put a blank after every control token, as they do without us.
                let text = text.trim_start();
                let is_whole = text.starts_with(&format!("user {content}"));
                assert!(is_whole && text.ends_with("\nmore"), "{name}: {text:?}");
                // What is around it is encoded as it would be without it.
                let tail = tokenizer.encode(&format!("{token}\nmore"), false).unwrap();
                assert!(ids.ends_with(&tail), "{name}: {content:?}");
            }
        }
    }
}

/// What a guarded piece becomes is what the same piece without any control token becomes.
#[test]
fn a_piece_is_encoded_as_one_text() {
    for (name, tokenizer) in tokenizers() {
        let token = control_tokens(&tokenizer).swap_remove(0);
        let (guarded, mark) = guarded_text(&tokenizer, &format!("{token} is a token"));
        let ids = tokenizer.encode_guarded(&format!("{token}hello world{guarded}"), mark);
        let plain = tokenizer
            .encode(&format!("{token}hello world"), false)
            .unwrap();
        assert!(
            ids.unwrap().starts_with(&plain[..plain.len() - 1]),
            "{name}"
        );
    }
}
