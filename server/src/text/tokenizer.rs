//! Text to token ids and back.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use models::{Checkpoint, Gguf};
use serde_json::Value;
use tokenizers::tokenizer::normalizer::OffsetReferential;
use tokenizers::{AddedToken, OffsetType};

use super::guard::{self, Guard, Spellings};
use super::pieces::{Decoder, Pieces};
use super::{Detokenizer, gguf_tokenizer};

/// A model's tokenizer. Clones share the vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: String,
    tokenizer: tokenizers::Tokenizer,
    pieces: Pieces,
    /// Tokens around a text where the post-processor of the file does not say.
    prefix: Option<u32>,
    suffix: Option<u32>,
    spellings: Spellings,
    /// Most bytes of text that one token stands for; `None` if there is no limit.
    max_token_bytes: Option<usize>,
    /// The same tokenizer, to which control tokens are text; made when first needed.
    literal: OnceLock<tokenizers::Tokenizer>,
}

/// A token of the literal tokenizer only: what follows it is not the beginning of a text.
const BEFORE: &str = "\u{fffff}before\u{fffff}";

/// A tokenizer that cannot be built, or text that cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct TokenizerError {
    pub file: String,
    pub message: String,
}

/// A tokenizer in the form of a tokenizer.json, with what such a file does not hold.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) json: Value,
    pub(super) add_bos: Option<String>,
    pub(super) add_eos: Option<String>,
}

impl Tokenizer {
    /// From `tokenizer.json`, else from GGUF metadata.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, TokenizerError> {
        if let Some(dir) = checkpoint.dir() {
            return Self::from_dir(dir);
        }
        let Some(gguf) = checkpoint.gguf() else {
            return Err(TokenizerError {
                file: "model".into(),
                message: "neither a directory nor a GGUF file".into(),
            });
        };
        Self::from_gguf(gguf)
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let file = gguf.path().display().to_string();
        let definition =
            gguf_tokenizer::definition(&|key| gguf.get(key)).map_err(|message| TokenizerError {
                file: file.clone(),
                message,
            })?;
        Self::build(file, definition)
    }

    /// From a directory in Hugging Face layout.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let file = path.display().to_string();
        if !path.exists() && dir.join("tokenizer.model").exists() {
            return Err(TokenizerError {
                file: dir.join("tokenizer.model").display().to_string(),
                message: "a SentencePiece model without a tokenizer.json is not supported; \
                          save the tokenizer with transformers once to get one"
                    .into(),
            });
        }
        let json = read_json(&path)?;
        let config_path = dir.join("tokenizer_config.json");
        let config = if config_path.exists() {
            read_json(&config_path)?
        } else {
            Value::Null
        };
        // A post-processor with a template says itself what it adds.
        let says = !matches!(
            json["post_processor"]["type"].as_str(),
            None | Some("ByteLevel")
        );
        let wanted = |flag: &str, token: &str| {
            let on = !says && config[flag] == Value::Bool(true);
            on.then(|| token_text(&config[token])).flatten()
        };
        let definition = Definition {
            add_bos: wanted("add_bos_token", "bos_token"),
            add_eos: wanted("add_eos_token", "eos_token"),
            json,
        };
        Self::build(file, definition)
    }

    /// Of an encoder: it turns text into tokens, and tokens are never turned back into text.
    pub fn of_encoder(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let mut json = read_json(&path)?;
        // How word pieces become text again does not matter here.
        json["decoder"] = serde_json::json!({"type": "Fuse"});
        let definition = Definition {
            add_bos: None,
            add_eos: None,
            json,
        };
        Self::build(path.display().to_string(), definition)
    }

    pub(super) fn build(file: String, definition: Definition) -> Result<Self, TokenizerError> {
        let fail = |message: String| TokenizerError {
            file: file.clone(),
            message,
        };
        let decoder = Decoder::parse(&definition.json["decoder"]).map_err(fail)?;
        let shrink = shrink_factor(&definition.json);
        let mut tokenizer: tokenizers::Tokenizer =
            serde_json::from_value(definition.json).map_err(|error| fail(error.to_string()))?;
        // Length is the server's business: a prompt that is too long is refused, never cut.
        tokenizer
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        tokenizer.with_padding(None);

        let vocabulary = tokenizer.get_vocab(true);
        let n_ids = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        let mut tokens = vec![None; n_ids];
        for (spelling, id) in vocabulary {
            let special = tokenizer.get_added_vocabulary().is_special_token(&spelling);
            tokens[id as usize] = Some((spelling, special));
        }
        let id_of = |token: Option<String>| match token {
            None => Ok(None),
            Some(token) => tokenizer
                .token_to_id(&token)
                .map(Some)
                .ok_or_else(|| fail(format!("token {token:?} is not in the vocabulary"))),
        };
        let (prefix, suffix) = (id_of(definition.add_bos)?, id_of(definition.add_eos)?);
        let special = tokens.iter().flatten().filter(|(_, special)| *special);
        let max_spelling = special.clone().map(|(spelling, _)| spelling.len()).max();
        let spellings = Spellings::new(special.map(|(spelling, _)| spelling.clone()));
        let pieces = Pieces::new(&decoder, tokens);
        let max_bytes = pieces.max_bytes().max(max_spelling.unwrap_or(1));
        let max_token_bytes = shrink.map(|factor| factor * max_bytes.max(1));
        Ok(Self {
            shared: Arc::new(Shared {
                file,
                tokenizer,
                pieces,
                prefix,
                suffix,
                spellings,
                max_token_bytes,
                literal: OnceLock::new(),
            }),
        })
    }

    /// Tokens that `text` has at the very least, by its length alone; 0 where that says nothing.
    /// Blank space that a control token swallows counts as text.
    pub fn least_tokens(&self, text: &str) -> usize {
        let max_bytes = self.shared.max_token_bytes;
        max_bytes.map_or(0, |max_bytes| text.len().div_ceil(max_bytes))
    }

    /// `add_special`: put the model's own beginning and end tokens around the text. Special
    /// tokens spelled out in `text` are recognised (a rendered chat template needs that).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let shared = &self.shared;
        let encoding = shared
            .tokenizer
            .encode_fast(text, add_special)
            .map_err(|error| TokenizerError {
                file: shared.file.clone(),
                message: format!("the text cannot be encoded: {error}"),
            })?;
        let mut ids = Vec::with_capacity(encoding.len() + 2);
        ids.extend(shared.prefix.filter(|_| add_special));
        ids.extend_from_slice(encoding.get_ids());
        ids.extend(shared.suffix.filter(|_| add_special));
        Ok(ids)
    }

    /// A guard for what a client sent: see [`Guard`]. `None` if it uses a whole plane of private
    /// characters, so that none is left.
    pub fn guard(&self, values: &[&Value]) -> Option<Guard<'_>> {
        Guard::new(&self.shared.spellings, values)
    }

    /// Encodes a text in which spellings of control tokens were broken by `mark`: those are
    /// text, all others are control tokens.
    pub fn encode_guarded(
        &self,
        text: &str,
        mark: Option<char>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let Some(mark) = mark else {
            return self.encode(text, false);
        };
        let text = guard::unescape(text, mark);
        let added = self.shared.tokenizer.get_added_vocabulary();
        let parts = added.extract_and_normalize(self.shared.tokenizer.get_normalizer(), &text);
        let mut ids = Vec::new();
        // Everything up to here is encoded.
        let mut done = 0;
        for (_, (start, end), tokens) in
            parts.get_splits(OffsetReferential::Original, OffsetType::Byte)
        {
            if tokens.is_none() && text[start..end].contains(mark) {
                ids.extend(self.encode(&text[done..start], false)?);
                ids.extend(self.encode_literally(&text[start..end].replace(mark, ""), start > 0)?);
                done = end;
            }
        }
        ids.extend(self.encode(&text[done..], false)?);
        Ok(ids)
    }

    /// Encodes text without control tokens. `continues`: it is not the beginning of a text.
    pub fn encode_literally(
        &self,
        text: &str,
        continues: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let fail = |message: String| TokenizerError {
            file: self.shared.file.clone(),
            message,
        };
        let literal = self.shared.literal.get_or_init(|| {
            let mut literal = self.shared.tokenizer.clone();
            literal.set_encode_special_tokens(true);
            // A clone that refuses the token encodes it as text, which is noticed below.
            drop(literal.add_tokens([AddedToken::from(BEFORE, false).normalized(false)]));
            literal
        });
        let prefix = if continues { BEFORE } else { "" };
        let encoding = literal
            .encode_fast(format!("{prefix}{text}"), false)
            .map_err(|error| fail(format!("the text cannot be encoded: {error}")))?;
        let ids = encoding.get_ids();
        if !continues {
            return Ok(ids.to_vec());
        }
        match ids.split_first() {
            Some((before, rest)) if literal.token_to_id(BEFORE) == Some(*before) => {
                Ok(rest.to_vec())
            }
            _ => Err(fail("control tokens in text cannot be encoded".into())),
        }
    }

    /// The exact bytes that a token contributes to text (empty for special tokens that text
    /// leaves out); `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Option<Vec<u8>> {
        self.pieces().bytes(token).map(<[u8]>::to_vec)
    }

    /// How the vocabulary spells a token (`<|im_end|>`, `Ġthe`); `None` outside of it.
    pub fn token_spelling(&self, token: u32) -> Option<String> {
        self.shared.tokenizer.id_to_token(token)
    }

    /// The id of a token by its spelling.
    pub fn token_id(&self, spelling: &str) -> Option<u32> {
        self.shared.tokenizer.token_to_id(spelling)
    }

    /// Whether the token is a control token, which text leaves out.
    pub fn is_special(&self, token: u32) -> bool {
        self.pieces().is_special(token)
    }

    /// Text of whole tokens, special ones left out; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = Detokenizer::new(self.clone());
        let mut text: String = tokens
            .iter()
            .map(|&token| detokenizer.push(token))
            .collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// Number of token ids, holes included.
    pub fn vocab_size(&self) -> usize {
        self.pieces().len()
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.shared.pieces
    }
}

/// How many bytes of text become one that is tokenized, at most; `None` if that has no limit: a
/// normalizer that drops text, or unknown characters that one token stands for.
fn shrink_factor(json: &Value) -> Option<usize> {
    let has_every_byte = json["model"]["byte_fallback"] == Value::Bool(true)
        || json["pre_tokenizer"].to_string().contains("\"ByteLevel\"");
    if !has_every_byte {
        return None;
    }
    let normalizer = &json["normalizer"];
    let steps = match normalizer["type"].as_str() {
        None => return Some(1),
        Some("Sequence") => normalizer["normalizers"].as_array()?.as_slice(),
        Some(_) => std::slice::from_ref(normalizer),
    };
    let is_bounded = |step: &Value| match step["type"].as_str() {
        // Three bytes of a full-width letter become one, and so on.
        Some("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Prepend") => true,
        Some("Replace") => {
            let (from, to) = (&step["pattern"]["String"], &step["content"]);
            from.as_str().map(str::len) <= to.as_str().map(str::len) && from.is_string()
        }
        _ => false,
    };
    steps.iter().all(is_bounded).then_some(4)
}

/// The text of a special token in tokenizer_config.json: a string or an object with `content`.
pub(super) fn token_text(token: &Value) -> Option<String> {
    let text = token.as_str().or_else(|| token["content"].as_str());
    text.map(str::to_string)
}

pub(super) fn read_json(path: &Path) -> Result<Value, TokenizerError> {
    let fail = |message: String| TokenizerError {
        file: path.display().to_string(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| fail(error.to_string()))
}
