//! A tokenizer from GGUF metadata, written as the tokenizer.json that the model once had.

use std::collections::HashMap;

use models::GgufValue;
use serde_json::{Value, json};

use super::pretokenize;
use super::tokenizer::Definition;

/// Kinds of tokens in `tokenizer.ggml.token_type`.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Reads a metadata value by key.
type Metadata<'a> = dyn Fn(&str) -> Option<&'a GgufValue> + 'a;

/// Builds the tokenizer that `tokenizer.ggml.*` describes. The message names the key at fault.
pub(super) fn definition<'a>(get: &Metadata<'a>) -> Result<Definition, String> {
    let model = text(get, "tokenizer.ggml.model")?
        .ok_or("metadata tokenizer.ggml.model is missing: the file has no tokenizer")?;
    let tokens =
        texts(get, "tokenizer.ggml.tokens")?.ok_or("metadata tokenizer.ggml.tokens is missing")?;
    let added = added_tokens(get, &tokens)?;
    let (json, bos_by_default) = match model {
        "gpt2" => byte_level_bpe(get, &tokens, &added)?,
        "llama" => (sentence_piece_bpe(get, &tokens, &added)?, true),
        other => {
            return Err(format!(
                "tokenizer.ggml.model {other:?} is not supported (gpt2 and llama are)"
            ));
        }
    };
    let around = |flag: &str, id: &str, default: bool| -> Result<Option<String>, String> {
        if !boolean(get, flag)?.unwrap_or(default) {
            return Ok(None);
        }
        let index = integer(get, id)?.ok_or(format!("metadata {id} is missing"))?;
        let token = usize::try_from(index)
            .ok()
            .and_then(|index| tokens.get(index));
        let token = token.ok_or(format!("metadata {id}: {index} is not a token"))?;
        Ok(Some((*token).to_string()))
    };
    let has_bos = integer(get, "tokenizer.ggml.bos_token_id")?.is_some();
    Ok(Definition {
        json,
        add_bos: around(
            "tokenizer.ggml.add_bos_token",
            "tokenizer.ggml.bos_token_id",
            bos_by_default && has_bos,
        )?,
        add_eos: around(
            "tokenizer.ggml.add_eos_token",
            "tokenizer.ggml.eos_token_id",
            false,
        )?,
    })
}

/// BPE over the byte alphabet of GPT-2, and whether this kind begins texts with BOS by default.
fn byte_level_bpe<'a>(
    get: &Metadata<'a>,
    tokens: &[&str],
    added: &Value,
) -> Result<(Value, bool), String> {
    let name = text(get, "tokenizer.ggml.pre")?.unwrap_or("default");
    let pre = pretokenize::kind(name).ok_or_else(|| {
        format!("tokenizer.ggml.pre {name:?} is not a pre-tokenizer that is supported")
    })?;
    let merges =
        texts(get, "tokenizer.ggml.merges")?.ok_or("metadata tokenizer.ggml.merges is missing")?;
    let merges = merges
        .iter()
        .map(|merge| {
            // A token is never empty, so the separator is not the first byte.
            let at = merge.bytes().skip(1).position(|byte| byte == b' ');
            let (left, right) = merge
                .split_at_checked(at.map_or(0, |at| at + 1))
                .unwrap_or(("", ""));
            match right.strip_prefix(' ') {
                Some(right) if !left.is_empty() => Ok(json!([left, right])),
                _ => Err(format!(
                    "metadata tokenizer.ggml.merges: {merge:?} is not a pair"
                )),
            }
        })
        .collect::<Result<Vec<Value>, String>>()?;
    let mut steps: Vec<Value> = pre
        .patterns
        .iter()
        .map(|pattern| {
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    steps.push(byte_level.clone());
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "unk_token": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignore_merges, "vocab": vocabulary(tokens), "merges": merges,
        },
    });
    Ok((json, pre.add_bos))
}

/// SentencePiece's BPE, which merges the pair whose result has the best score.
fn sentence_piece_bpe<'a>(
    get: &Metadata<'a>,
    tokens: &[&str],
    added: &Value,
) -> Result<Value, String> {
    let scores = match get("tokenizer.ggml.scores") {
        Some(GgufValue::Array(values)) if values.len() == tokens.len() => values
            .iter()
            .map(number)
            .collect::<Option<Vec<f64>>>()
            .ok_or("metadata tokenizer.ggml.scores is not an array of numbers")?,
        Some(_) => return Err("metadata tokenizer.ggml.scores does not fit the tokens".into()),
        None => return Err("metadata tokenizer.ggml.scores is missing".into()),
    };
    let unknown = integer(get, "tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let unknown = usize::try_from(unknown).ok().and_then(|id| tokens.get(id));
    let unknown = unknown.ok_or("metadata tokenizer.ggml.unknown_token_id is not a token")?;
    let space_prefix = boolean(get, "tokenizer.ggml.add_space_prefix")?.unwrap_or(true);

    let mut normalizers = vec![];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": "\u{2581}"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}));
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
            "ignore_merges": false, "vocab": vocabulary(tokens), "merges": merges_by_score(tokens, &scores),
        },
    }))
}

/// Every way to make a token of two others, best score first; of equal scores the longer left
/// part first, then the longer right part (the order that transformers' converter gives).
fn merges_by_score(tokens: &[&str], scores: &[f64]) -> Vec<[String; 2]> {
    let ids: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (*token, id))
        .collect();
    let mut merges: Vec<(f64, usize, usize, &str, &str)> = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        let mut pairs: Vec<(usize, usize, &str, &str)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some((*ids.get(left)?, *ids.get(right)?, left, right))
            })
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, _, left, right)| {
            (
                score,
                left.chars().count(),
                right.chars().count(),
                left,
                right,
            )
        }));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    merges
        .into_iter()
        .map(|(.., left, right)| [left.to_string(), right.to_string()])
        .collect()
}

fn vocabulary(tokens: &[&str]) -> Value {
    let ids = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_string(), json!(id)));
    Value::Object(ids.collect())
}

/// Control tokens, which text leaves out, and user-defined ones, which it keeps.
fn added_tokens<'a>(get: &Metadata<'a>, tokens: &[&str]) -> Result<Value, String> {
    let types = match get("tokenizer.ggml.token_type") {
        Some(GgufValue::Array(types)) => types,
        Some(_) => return Err("metadata tokenizer.ggml.token_type is not an array".into()),
        None => return Ok(json!([])),
    };
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        let kind = whole(kind)
            .ok_or("metadata tokenizer.ggml.token_type holds something else than integers")?;
        if (kind == CONTROL || kind == USER_DEFINED) && !token.is_empty() {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            }));
        }
    }
    Ok(Value::Array(added))
}

fn text<'a>(get: &Metadata<'a>, key: &str) -> Result<Option<&'a str>, String> {
    match get(key) {
        None => Ok(None),
        Some(GgufValue::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("metadata {key} is not a string")),
    }
}

fn texts<'a>(get: &Metadata<'a>, key: &str) -> Result<Option<Vec<&'a str>>, String> {
    let Some(value) = get(key) else {
        return Ok(None);
    };
    let GgufValue::Array(values) = value else {
        return Err(format!("metadata {key} is not an array"));
    };
    let texts = values.iter().map(|value| match value {
        GgufValue::String(text) => Ok(text.as_str()),
        _ => Err(format!("metadata {key} holds something else than strings")),
    });
    texts.collect::<Result<_, _>>().map(Some)
}

fn boolean<'a>(get: &Metadata<'a>, key: &str) -> Result<Option<bool>, String> {
    match get(key) {
        None => Ok(None),
        Some(GgufValue::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(format!("metadata {key} is not a boolean")),
    }
}

pub(super) fn integer<'a>(get: &Metadata<'a>, key: &str) -> Result<Option<i64>, String> {
    match get(key) {
        None => Ok(None),
        Some(value) => whole(value)
            .map(Some)
            .ok_or(format!("metadata {key} is not an integer")),
    }
}

fn whole(value: &GgufValue) -> Option<i64> {
    match value {
        GgufValue::Unsigned(value) => i64::try_from(*value).ok(),
        GgufValue::Signed(value) => Some(*value),
        _ => None,
    }
}

fn number(value: &GgufValue) -> Option<f64> {
    match value {
        GgufValue::Float(value) => Some(*value),
        other => whole(other).map(|value| value as f64),
    }
}
