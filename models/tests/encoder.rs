//! A real encoder against vectors of another implementation. `tests/fetch-encoder.sh` fetches it.

use std::path::PathBuf;

use models::{Encoder, EncoderPooling};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn minilm() -> Encoder {
    let dir = root().join("target/test-data/minilm");
    assert!(
        dir.exists(),
        "no encoder in {}: run tests/fetch-encoder.sh",
        dir.display()
    );
    Encoder::load(&dir, None).expect("it loads")
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

#[test]
fn vectors_match_the_goldens() {
    let encoder = minilm();
    assert_eq!(encoder.config().pooling, EncoderPooling::Mean);
    assert!(encoder.config().normalize);
    assert_eq!(encoder.config().max_tokens, 256);
    let golden = std::fs::read(root().join("tests/fixtures/goldens/embeddings.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(row["vector"].clone()).unwrap();
        let found = unit(&encoder.encode(&[&ids]).unwrap()[0]);
        let cosine: f64 = found.iter().zip(&unit(&expected)).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.99999, "{}: cosine {cosine}", row["text"]);
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5, "{}: {a} instead of {b}", row["text"]);
        }
    }
}

/// Families that are BERT in other words: micro encoders against numpy's forward pass
/// (`tests/fixtures/encoders/make.py`).
#[test]
fn relatives_of_bert_match_their_goldens() {
    for (name, pooling, most) in [
        ("xlm-roberta", EncoderPooling::Mean, 38),
        ("distilbert", EncoderPooling::Cls, 40),
    ] {
        let dir = root().join("tests/fixtures/encoders").join(name);
        let encoder = Encoder::load(&dir, Some(1)).unwrap();
        assert_eq!(encoder.config().pooling, pooling);
        assert_eq!(encoder.config().max_tokens, most);
        let golden = std::fs::read(dir.join("golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let rows = golden["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        for row in rows {
            let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            let expected: Vec<f64> = serde_json::from_value(row["vector"].clone()).unwrap();
            let found = &encoder.encode(&[&ids]).unwrap()[0];
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let away = (found - expected).abs();
                assert!(away <= 2e-5, "{name}: {found} instead of {expected}");
            }
        }
    }
}

#[test]
fn an_encoder_that_is_not_served_is_refused_with_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "deberta-v2"}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let error = Encoder::load(dir.path(), None).unwrap_err().to_string();
    let list = "supported: bert, roberta, xlm-roberta, camembert, distilbert";
    assert!(
        error.contains("`deberta-v2`") && error.contains(list),
        "{error}"
    );
}

#[test]
fn company_does_not_change_bits() {
    let encoder = minilm();
    // 64 texts of 3 to 40 tokens, many of them alike in length.
    let texts: Vec<Vec<u32>> = (0..64_u32)
        .map(|i| {
            let n = 1 + i * i % 38;
            let words = (0..n).map(|j| 1000 + (i * 7919 + j * 104_729) % 20_000);
            std::iter::once(101).chain(words).chain([102]).collect()
        })
        .collect();
    let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let together = encoder.encode(&slices).unwrap();
    for (text, together) in slices.iter().zip(&together) {
        assert_eq!(encoder.encode(&[text]).unwrap()[0], *together);
    }
}

#[test]
fn what_is_no_text_is_an_error() {
    let encoder = minilm();
    let error = |text: &[u32]| encoder.encode(&[text]).unwrap_err().to_string();
    assert!(error(&[101; 513]).contains("513 tokens, at most 512"));
    assert!(error(&[]).contains("0 tokens"));
    assert!(error(&[99_999]).contains("token 99999"));
}
