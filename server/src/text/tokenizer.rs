//! Text to token ids and back.

use models::Checkpoint;

/// A model's tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {}

/// A tokenizer that cannot be built, or text that cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct TokenizerError {
    pub file: String,
    pub message: String,
}

impl Tokenizer {
    /// From `tokenizer.json`, else from GGUF metadata.
    pub fn load(_checkpoint: &Checkpoint) -> Result<Self, TokenizerError> {
        unimplemented!()
    }

    /// `add_special`: put the model's own beginning and end tokens around the text. Special
    /// tokens spelled out in `text` are recognised (a rendered chat template needs that).
    pub fn encode(&self, _text: &str, _add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        unimplemented!()
    }

    /// The exact bytes that a token contributes to text (empty for special tokens that text
    /// leaves out); `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, _token: u32) -> Option<Vec<u8>> {
        unimplemented!()
    }

    /// Whether the token is a control token, which text leaves out.
    pub fn is_special(&self, _token: u32) -> bool {
        unimplemented!()
    }

    /// Text of whole tokens, special ones left out; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, _tokens: &[u32]) -> String {
        unimplemented!()
    }

    /// Number of token ids, holes included.
    pub fn vocab_size(&self) -> usize {
        unimplemented!()
    }
}
