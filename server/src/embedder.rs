//! What `/v1/embeddings` is answered by: an encoder, or a decoder whose states are pooled.

use scheduler::{Pooling, Request, RequestId};

use crate::engine::EngineHandle;
use crate::text::{Tokenizer, TokenizerError};

/// A model that makes vectors. Its engine is its own, or that of the model that generates.
#[derive(Debug)]
pub struct Embedder {
    pub engine: EngineHandle,
    pub model: EmbeddingModel,
}

/// What is known of a model that makes vectors.
#[derive(Clone, Debug)]
pub struct EmbeddingModel {
    /// Names that requests may call it by; never empty.
    pub names: Vec<String>,
    pub tokenizer: Tokenizer,
    pub vocab_size: usize,
    pub pooling: Pooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// Values of a vector.
    pub width: u32,
    /// Whether beginnings of vectors are vectors of their own.
    pub is_matryoshka: bool,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// Whether longer texts are cut to `max_tokens`, as sentence-transformers does, or refused.
    pub cuts: bool,
    /// Root of its KV-cache keys.
    pub kv_root: u64,
    /// When it was loaded, in seconds of Unix time.
    pub created: u64,
}

impl EmbeddingModel {
    /// A text's tokens, with the model's own at its ends.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.tokenizer.encode(text, true)?;
        if self.cuts && tokens.len() > self.max_tokens {
            // The text is cut, not the token that ends it.
            let end = tokens[tokens.len() - 1];
            tokens.truncate(self.max_tokens - 1);
            tokens.push(end);
        }
        Ok(tokens)
    }

    /// A request for the vector of `tokens`, still without its id.
    pub fn request(&self, tokens: Vec<u32>) -> Request {
        // The engine knows whose it is.
        Request {
            kv_root: self.kv_root,
            pooling: Some(self.pooling),
            ..Request::new(RequestId(0), tokens.into(), 0)
        }
    }

    /// What the client gets of what the engine pooled over `n_tokens` tokens: the mean where a sum
    /// was asked for, the first `dimensions` values, and length 1.
    pub fn finish(&self, pooled: &[f64], n_tokens: usize, dimensions: Option<u32>) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        let divisor = match self.pooling {
            Pooling::Mean => n_tokens as f64,
            Pooling::Last | Pooling::Encoded => 1.0,
        };
        let width = dimensions.map_or(pooled.len(), |n| pooled.len().min(n as usize));
        let vector: Vec<f64> = pooled[..width].iter().map(|x| x / divisor).collect();
        // A part of a vector of length 1 is shorter.
        let length = if self.normalize || width < pooled.len() {
            vector.iter().map(|x| x * x).sum::<f64>().sqrt()
        } else {
            1.0
        };
        // A vector of zeros has no direction.
        let factor = if length > 0.0 { 1.0 / length } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "vectors are f32 on the wire"
        )]
        let narrow = |x: &f64| (x * factor) as f32;
        vector.iter().map(narrow).collect()
    }
}
