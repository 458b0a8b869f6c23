//! A tokenizer.json as GGUF metadata: [`super::gguf_tokenizer`] backwards.
//!
//! GGUF knows two kinds: BPE over bytes, whose way of cutting words is a name, and
//! SentencePiece's BPE, whose merges are scores of tokens. What fits neither is refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use models::{Checkpoint, GgufMetadata};
use serde_json::Value;

use super::pretokenize;
use super::template;
use super::tokenizer::{Tokenizer, TokenizerError, read_json};

/// Kinds of tokens in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Names of pre-tokenizers that are written, the usual one first where several are the same.
const NAMES: [&str; 17] = [
    "gpt-2",
    "llama-bpe",
    "smaug-bpe",
    "glm4",
    "qwen2",
    "smollm",
    "gpt-4o",
    "tekken",
    "deepseek-v3",
    "deepseek-llm",
    "deepseek-coder",
    "qwen35",
    "falcon",
    "bloom",
    "viking",
    "default",
    "minimax-m2",
];

/// The metadata that describes the tokenizer, end tokens and chat template of a directory in
/// Hugging Face layout, and what is not quite as it was.
pub fn gguf_metadata(
    checkpoint: &Checkpoint,
) -> Result<(GgufMetadata, Vec<String>), TokenizerError> {
    let Some(dir) = checkpoint.dir() else {
        return Err(TokenizerError {
            file: "model".into(),
            message: "is not a directory in Hugging Face layout".into(),
        });
    };
    let path = dir.join("tokenizer.json");
    let json = read_json(&path)?;
    let fail = |message: String| TokenizerError {
        file: path.display().to_string(),
        message,
    };
    let mut out = GgufMetadata::default();
    let mut notes = Vec::new();
    if let Some(name) = dir.canonicalize().ok().as_deref().and_then(Path::file_name) {
        out.string("general.name", &name.to_string_lossy());
    }
    let model = &json["model"];
    if model["type"] != "BPE" && !(model["type"].is_null() && model["merges"].is_array()) {
        return Err(fail(format!(
            "model.type {}: only BPE has a form in GGUF",
            model["type"]
        )));
    }
    let is_sentence_piece = model["byte_fallback"] == true;
    let vocabulary =
        Vocabulary::read(&json, checkpoint.config().vocab_size, is_sentence_piece).map_err(fail)?;
    let merges = merges(model).map_err(fail)?;
    if is_sentence_piece {
        out.string("tokenizer.ggml.model", "llama");
        out.string("tokenizer.ggml.pre", "default");
        let scores = scores(&vocabulary, &merges, &mut notes);
        out.f32s("tokenizer.ggml.scores", scores);
        out.bool("tokenizer.ggml.add_space_prefix", has_space_prefix(&json));
        if let Some(unknown) = vocabulary.kinds.iter().position(|kind| *kind == UNKNOWN) {
            out.u32("tokenizer.ggml.unknown_token_id", unknown as u32);
        }
    } else {
        out.string("tokenizer.ggml.model", "gpt2");
        out.string("tokenizer.ggml.pre", pre_tokenizer(&json).map_err(fail)?);
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}"));
        let merges: Vec<String> = merges.collect();
        out.strings("tokenizer.ggml.merges", merges.iter().map(String::as_str));
        if !json["normalizer"].is_null() {
            notes.push("GGUF does not normalise texts as the tokenizer.json does".into());
        }
    }
    out.strings(
        "tokenizer.ggml.tokens",
        vocabulary.tokens.iter().map(String::as_str),
    );
    out.i32s(
        "tokenizer.ggml.token_type",
        vocabulary.kinds.iter().copied(),
    );
    write_ends(checkpoint, dir, &vocabulary, &mut out, &mut notes)?;
    let templates = template::texts_of_dir(dir).map_err(|error| fail(error.to_string()))?;
    for (key, text) in [
        ("tokenizer.chat_template", templates.0),
        ("tokenizer.chat_template.tool_use", templates.1),
    ] {
        if let Some(text) = text {
            out.string(key, &text);
        }
    }
    Ok((out, notes))
}

/// Tokens by their ids.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
}

impl Vocabulary {
    /// `n_rows`: of the embedding; what the tokenizer leaves of them is filled up.
    fn read(json: &Value, n_rows: usize, has_bytes: bool) -> Result<Self, String> {
        let vocab = json["model"]["vocab"]
            .as_object()
            .ok_or("model.vocab is missing")?;
        let no_tokens = Vec::new();
        let added = json["added_tokens"].as_array().unwrap_or(&no_tokens);
        let id_of = |id: &Value| {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
            id.filter(|id| *id < n_rows).ok_or(format!(
                "a token's id is not below {n_rows}, the rows of the embedding"
            ))
        };
        let mut tokens: Vec<String> = (0..n_rows).map(|id| format!("[PAD{id}]")).collect();
        let mut kinds = vec![UNUSED; n_rows];
        let unknown = json["model"]["unk_token"].as_str();
        for (token, id) in vocab {
            let id = id_of(id)?;
            let is_byte = has_bytes && token.len() == 6 && token.starts_with("<0x");
            kinds[id] = match token {
                _ if is_byte => BYTE,
                token if unknown == Some(token) => UNKNOWN,
                _ => NORMAL,
            };
            tokens[id].clone_from(token);
        }
        for token in added {
            let id = id_of(&token["id"])?;
            let text = token["content"]
                .as_str()
                .ok_or("an added token has no content")?;
            tokens[id] = text.to_string();
            if unknown != Some(text) {
                let is_special = token["special"] == true;
                kinds[id] = if is_special { CONTROL } else { USER_DEFINED };
            }
        }
        Ok(Self { tokens, kinds })
    }

    fn id(&self, token: &str) -> Option<u32> {
        let at = self.tokens.iter().position(|other| other == token)?;
        u32::try_from(at).ok()
    }
}

/// Pairs, however they are spelled.
fn merges(model: &Value) -> Result<Vec<(&str, &str)>, String> {
    let merges = model["merges"]
        .as_array()
        .ok_or("model.merges is missing")?;
    let pair = |merge: &'_ Value| match merge {
        Value::String(text) => text.split_once(' ').map(|_| ()),
        Value::Array(pair) => (pair.len() == 2).then_some(()),
        _ => None,
    };
    merges
        .iter()
        .map(|merge| {
            pair(merge).ok_or(format!("model.merges: {merge} is not a pair"))?;
            Ok(match merge {
                Value::String(text) => text.split_once(' ').unwrap_or_default(),
                _ => (
                    merge[0].as_str().unwrap_or_default(),
                    merge[1].as_str().unwrap_or_default(),
                ),
            })
        })
        .collect()
}

/// Scores that put merges in their order: the earlier a token is made, the higher.
fn scores(vocabulary: &Vocabulary, merges: &[(&str, &str)], notes: &mut Vec<String>) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    // Scores let any two tokens become a third; merges list the pairs that may.
    let listed: HashSet<(&str, &str)> = merges.iter().copied().collect();
    let known: HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
    let n_implied: usize = ranks
        .keys()
        .map(|token| {
            let splits = token
                .char_indices()
                .skip(1)
                .map(|(at, _)| token.split_at(at));
            splits
                .filter(|(l, r)| {
                    known.contains(l) && known.contains(r) && !listed.contains(&(*l, *r))
                })
                .count()
        })
        .sum();
    if n_implied > 0 {
        notes.push(format!(
            "scores imply {n_implied} merges that the tokenizer.json does not list: rare texts \
             may be cut otherwise"
        ));
    }
    let score = |(id, token): (usize, &String)| match ranks.get(token) {
        Some(rank) => -(*rank as f32),
        None if vocabulary.kinds[id] == NORMAL => -((merges.len() + id) as f32),
        None => 0.0,
    };
    vocabulary.tokens.iter().enumerate().map(score).collect()
}

/// Whether a space is put before texts.
fn has_space_prefix(json: &Value) -> bool {
    let steps = |part: &Value, list: &str| match part[list].as_array() {
        Some(steps) => steps.clone(),
        None => vec![part.clone()],
    };
    let mut normalizers = steps(&json["normalizer"], "normalizers").into_iter();
    let mut pre_tokenizers = steps(&json["pre_tokenizer"], "pretokenizers").into_iter();
    normalizers.any(|step| step["type"] == "Prepend")
        || pre_tokenizers.any(|step| {
            step["type"] == "Metaspace"
                && step["prepend_scheme"] != "never"
                && step["add_prefix_space"] != false
        })
}

/// The name of the way in which words are cut.
fn pre_tokenizer(json: &Value) -> Result<&'static str, String> {
    let part = &json["pre_tokenizer"];
    let steps = match part["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(part),
    };
    let gpt2 = pretokenize::kind("gpt-2").map_or("", |kind| kind.patterns[0]);
    let mut patterns: Vec<&str> = Vec::new();
    for step in steps {
        match step["type"].as_str() {
            Some("Split") if step["pattern"]["Regex"].is_string() => {
                patterns.push(step["pattern"]["Regex"].as_str().unwrap_or_default());
            }
            Some("Digits") if step["individual_digits"] == true => patterns.push(r"\p{N}"),
            Some("ByteLevel") => {
                if step["add_prefix_space"] == true {
                    return Err("pre_tokenizer: a space before texts has no form in GGUF".into());
                }
                // Absent, it is on.
                if step["use_regex"] != false {
                    patterns.push(gpt2);
                }
            }
            _ => return Err(format!("pre_tokenizer: {step} has no form in GGUF")),
        }
    }
    let ignore_merges = json["model"]["ignore_merges"] == true;
    let is_same = |name: &&str| {
        pretokenize::kind(name)
            .is_some_and(|kind| kind.patterns == patterns && kind.ignore_merges == ignore_merges)
    };
    NAMES
        .into_iter()
        .find(is_same)
        .ok_or_else(|| format!("pre_tokenizer: cutting words by {patterns:?} has no name in GGUF"))
}

/// Tokens that begin and end texts and answers.
fn write_ends(
    checkpoint: &Checkpoint,
    dir: &Path,
    vocabulary: &Vocabulary,
    out: &mut GgufMetadata,
    notes: &mut Vec<String>,
) -> Result<(), TokenizerError> {
    let tokenizer = Tokenizer::from_dir(dir)?;
    let (plain, special) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let at = special
        .windows(plain.len())
        .position(|window| window == plain);
    let (before, after) = match at {
        Some(at) => (&special[..at], &special[at + plain.len()..]),
        None => (&[][..], &[][..]),
    };
    if before.len() > 1 || after.len() > 1 || at.is_none() {
        notes.push("GGUF puts one token before and after texts at most".into());
    }
    let config_path = dir.join("tokenizer_config.json");
    let config = if config_path.exists() {
        read_json(&config_path)?
    } else {
        Value::Null
    };
    let named = |name: &str| {
        super::tokenizer::token_text(&config[name]).and_then(|token| vocabulary.id(&token))
    };
    if let Some(id) = before.first().copied().or_else(|| named("bos_token")) {
        out.u32("tokenizer.ggml.bos_token_id", id);
    }
    out.bool("tokenizer.ggml.add_bos_token", !before.is_empty());
    out.bool("tokenizer.ggml.add_eos_token", !after.is_empty());
    if let Some(id) = named("pad_token") {
        out.u32("tokenizer.ggml.padding_token_id", id);
    }
    let mut ends = checkpoint.eos_tokens().to_vec();
    if let Some(&id) = after.first() {
        // What ends texts has to be the first of the tokens that end answers.
        ends.retain(|end| *end != id);
        ends.insert(0, id);
    }
    if ends.len() > 3 {
        notes.push(format!(
            "GGUF names three end tokens; {:?} are left out",
            &ends[3..]
        ));
    }
    for (id, name) in ends.iter().zip(["eos", "eot", "eom"]) {
        out.u32(&format!("tokenizer.ggml.{name}_token_id"), *id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use models::Gguf;

    use super::*;

    /// The fixtures' tokenizers go through a GGUF file and cut texts as before.
    #[test]
    fn tokenizers_survive_the_way_through_gguf() {
        let texts = [
            "Hello, world! It's 12345 o'clock.",
            "  two  spaces\n\nand lines\t\u{e9}\u{4e2d}\u{1f600}",
            "<|im_start|>user\nhi<|im_end|>",
            "",
        ];
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for name in ["gpt2", "llama3", "spm"] {
            // The weights of one model with the tokenizers of others.
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path();
            let base = fixtures.join("models/llama31-gqa");
            for from in [&base, &fixtures.join("tokenizers").join(name)] {
                for entry in std::fs::read_dir(from).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
                }
            }
            let checkpoint = Checkpoint::open(dir).unwrap();
            let (metadata, _) = gguf_metadata(&checkpoint).unwrap();
            let out = dir.join("model.gguf");
            models::convert(&checkpoint, &out, kernels::WeightType::F32, &metadata, 1).unwrap();
            let gguf = Gguf::open(&out).unwrap();
            let converted = Checkpoint::open(&out).unwrap();
            let before = Tokenizer::from_dir(dir).unwrap();
            let after = Tokenizer::from_gguf(&gguf).unwrap();
            for text in texts {
                for special in [false, true] {
                    let ids = before.encode(text, special).unwrap();
                    assert_eq!(
                        after.encode(text, special).unwrap(),
                        ids,
                        "{name}: {text:?}"
                    );
                    assert_eq!(after.decode(&ids), before.decode(&ids), "{name}: {text:?}");
                }
            }
            let mut ends = converted.eos_tokens().to_vec();
            let mut expected = checkpoint.eos_tokens().to_vec();
            ends.sort_unstable();
            expected.sort_unstable();
            assert_eq!(ends, expected, "{name}");
        }
    }
}
