//! What a directory in the layout of sentence-transformers says of its encoder.

use std::path::{Path, PathBuf};

use candle_transformers::models::bert;
use serde_json::{Map, Value};

use super::spelling::Spelling;
use crate::LoadError;

/// How the states of a text become its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderPooling {
    /// State of the first token.
    Cls,
    /// Mean of all states.
    Mean,
    /// Largest value of each dimension.
    Max,
    /// State of the last token.
    Last,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// As BERT would say it.
    pub(crate) bert: bert::Config,
    pub(super) spelling: Spelling,
    /// `model_type`, as the file has it.
    pub architecture: String,
    pub pooling: EncoderPooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// Texts are cut to this many tokens, those at their ends included.
    pub max_tokens: usize,
    /// Whether beginnings of vectors are vectors of their own.
    pub is_matryoshka: bool,
}

/// Keys of `1_Pooling/config.json` that choose a pooling.
const MODES: [(&str, Option<EncoderPooling>); 7] = [
    ("pooling_mode_cls_token", Some(EncoderPooling::Cls)),
    ("pooling_mode_mean_tokens", Some(EncoderPooling::Mean)),
    ("pooling_mode_max_tokens", Some(EncoderPooling::Max)),
    ("pooling_mode_lasttoken", Some(EncoderPooling::Last)),
    ("pooling_mode_mean_sqrt_len_tokens", None),
    ("pooling_mode_weightedmean_tokens", None),
    ("pooling_mode_attention", None),
];

/// Whether a directory holds an encoder, supported or not.
pub fn is_encoder(dir: &Path) -> bool {
    const KINDS: [&str; 12] = [
        "albert",
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "new",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    ];
    let config = std::fs::read(dir.join("config.json")).ok();
    let config = config.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let kind = config.and_then(|config| config["model_type"].as_str().map(str::to_owned));
    kind.is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

impl EncoderConfig {
    /// Reads `config.json`, `modules.json`, the pooling's own file and, where they are there,
    /// `sentence_bert_config.json` and `config_sentence_transformers.json`.
    pub(crate) fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let mut config = read(&path)?;
        let architecture = config.get("model_type").and_then(Value::as_str);
        let architecture = architecture.unwrap_or_default().to_owned();
        let spelling =
            Spelling::of(&mut config).map_err(|message| LoadError::new(&path, message))?;
        let config = Value::Object(config);
        let is_matryoshka = config["is_matryoshka"] == Value::Bool(true)
            || config["matryoshka_dimensions"].is_array();
        let bert: bert::Config = serde_json::from_value(config)
            .map_err(|error| LoadError::new(&path, error.to_string()))?;
        let (pooling_dir, normalize) = modules(dir)?;
        refuse_prompts(dir)?;
        Ok(Self {
            pooling: pooling(&pooling_dir.join("config.json"), bert.hidden_size)?,
            normalize,
            max_tokens: max_tokens(dir)?.min(bert.max_position_embeddings),
            is_matryoshka,
            bert,
            spelling,
            architecture,
        })
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.bert.hidden_size
    }

    /// Tokens that the model knows.
    pub fn vocab_size(&self) -> usize {
        self.bert.vocab_size
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, LoadError> {
    let bytes = std::fs::read(path).map_err(|error| LoadError::new(path, error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::new(path, error.to_string()))
}

fn read_if_there(path: &Path) -> Result<Map<String, Value>, LoadError> {
    if path.exists() {
        read(path)
    } else {
        Ok(Map::new())
    }
}

/// Where the pooling is configured, and whether vectors are normalized after it.
fn modules(dir: &Path) -> Result<(PathBuf, bool), LoadError> {
    let path = dir.join("modules.json");
    let fail = |message: String| LoadError::new(&path, message);
    let bytes = std::fs::read(&path).map_err(|error| fail(error.to_string()))?;
    let modules: Vec<Map<String, Value>> =
        serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
    let name = |module: &Map<String, Value>| {
        let ty = module.get("type").and_then(Value::as_str).unwrap_or("");
        ty.rsplit('.').next().unwrap_or("").to_owned()
    };
    let names: Vec<String> = modules.iter().map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let normalize = match names[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            return Err(fail(format!(
                "the modules {names:?} are not supported; supported: Transformer, Pooling and, \
                 last, Normalize"
            )));
        }
    };
    let pooling = modules[1].get("path").and_then(Value::as_str);
    let pooling = pooling.ok_or_else(|| fail("module Pooling has no path".to_owned()))?;
    Ok((dir.join(pooling), normalize))
}

fn pooling(path: &Path, width: usize) -> Result<EncoderPooling, LoadError> {
    let config = read(path)?;
    let fail = |message: String| Err(LoadError::new(path, message));
    if let Some(found) = config.get("word_embedding_dimension")
        && found.as_u64() != Some(width as u64)
    {
        return fail(format!(
            "field `word_embedding_dimension`: {found}, but states have {width} values"
        ));
    }
    let known = ["word_embedding_dimension", "include_prompt"];
    let is_known =
        |key: &&String| known.contains(&key.as_str()) || MODES.iter().any(|(name, _)| name == *key);
    if let Some(key) = config.keys().find(|key| !is_known(key)) {
        return fail(format!("field `{key}` is not known"));
    }
    let chosen = MODES
        .iter()
        .filter(|(name, _)| config.get(*name) == Some(&Value::Bool(true)));
    match chosen.collect::<Vec<_>>()[..] {
        [&(_, Some(pooling))] => Ok(pooling),
        [&(name, None)] => fail(format!(
            "field `{name}`: this pooling is not supported; supported: cls_token, mean_tokens, \
             max_tokens, lasttoken"
        )),
        ref chosen => fail(format!(
            "{} poolings are chosen; exactly one can be served",
            chosen.len()
        )),
    }
}

fn max_tokens(dir: &Path) -> Result<usize, LoadError> {
    let path = dir.join("sentence_bert_config.json");
    let config = read_if_there(&path)?;
    if config.get("do_lower_case") == Some(&Value::Bool(true)) {
        let message = "field `do_lower_case`: lower case is the tokenizer's business; only false \
                       is supported";
        return Err(LoadError::new(&path, message.to_owned()));
    }
    match config.get("max_seq_length") {
        None | Some(Value::Null) => Ok(usize::MAX),
        Some(length) => match length.as_u64().and_then(|n| usize::try_from(n).ok()) {
            // Less has no room for a token between those at the ends.
            Some(n) if n > 2 => Ok(n),
            _ => {
                let message = format!("field `max_seq_length`: {length} is no length");
                Err(LoadError::new(&path, message))
            }
        },
    }
}

/// A prompt that goes before every text without being asked for would change every vector.
fn refuse_prompts(dir: &Path) -> Result<(), LoadError> {
    let path = dir.join("config_sentence_transformers.json");
    let config = read_if_there(&path)?;
    match config.get("default_prompt_name") {
        None | Some(Value::Null) => Ok(()),
        Some(name) => Err(LoadError::new(
            &path,
            format!("field `default_prompt_name`: {name}; default prompts are not supported"),
        )),
    }
}
