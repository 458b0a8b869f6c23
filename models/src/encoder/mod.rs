//! Encoders: models that make a vector of a text, all of whose tokens see each other.
//!
//! The forward pass is candle's; which texts go together, how states are pooled, and what is
//! refused is decided here.

mod config;
mod runner;
mod spelling;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;

pub use config::{EncoderConfig, EncoderPooling, is_encoder};
pub use runner::EncoderRunner;

use crate::LoadError;

/// Tokens that are computed together at most.
const MAX_BATCH_TOKENS: usize = 4096;

/// A loaded encoder.
pub struct Encoder {
    config: EncoderConfig,
    model: BertModel,
    threads: rayon::ThreadPool,
    n_bytes: usize,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Texts that could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the encoder failed: {0}")]
pub struct EncodeError(String);

impl From<candle_core::Error> for EncodeError {
    fn from(error: candle_core::Error) -> Self {
        Self(error.to_string())
    }
}

impl Encoder {
    /// Loads a directory in the layout of sentence-transformers; weights are widened to f32.
    /// `n_threads`: `None` for as many as this process may use.
    pub fn load(dir: &Path, n_threads: Option<usize>) -> Result<Self, LoadError> {
        let config = EncoderConfig::read(dir)?;
        let path = dir.join("model.safetensors");
        let fail = |message: String| LoadError::new(&path, message);
        if !path.exists() {
            return Err(fail(
                "no such file; encoders are read from one safetensors file".to_owned(),
            ));
        }
        let cpu = Device::Cpu;
        let tensors =
            candle_core::safetensors::load(&path, &cpu).map_err(|error| fail(error.to_string()))?;
        let tensors = config.spelling.tensors_of_bert(tensors).map_err(fail)?;
        let n_bytes = tensors.values().map(|t| 4 * t.elem_count()).sum();
        let builder = VarBuilder::from_tensors(tensors, DType::F32, &cpu);
        let model =
            BertModel::load(builder, &config.bert).map_err(|error| fail(error.to_string()))?;
        let n_threads = n_threads.unwrap_or(0);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .thread_name(|i| format!("encoder-{i}"))
            .build()
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            config,
            model,
            threads,
            n_bytes,
        })
    }

    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Bytes of weights.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// One vector a text, each of `config().width()` values. Only texts of one length are
    /// computed together, so that none is padded and none depends on its company.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f64>>, EncodeError> {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, text) in texts.iter().enumerate() {
            self.check(text)?;
            by_length.entry(text.len()).or_default().push(i);
        }
        let mut vectors = vec![Vec::new(); texts.len()];
        for (len, members) in by_length {
            for group in members.chunks((MAX_BATCH_TOKENS / len).max(1)) {
                let group_texts: Vec<&[u32]> = group.iter().map(|&i| texts[i]).collect();
                let encoded = self.threads.install(|| self.forward(&group_texts, len))?;
                for (&i, vector) in group.iter().zip(encoded) {
                    vectors[i] = vector;
                }
            }
        }
        Ok(vectors)
    }

    fn check(&self, text: &[u32]) -> Result<(), EncodeError> {
        let most = self.config.bert.max_position_embeddings;
        if text.is_empty() || text.len() > most {
            let n = text.len();
            return Err(EncodeError(format!("a text of {n} tokens, at most {most}")));
        }
        let vocab = self.config.bert.vocab_size;
        match text.iter().find(|token| **token as usize >= vocab) {
            Some(token) => Err(EncodeError(format!(
                "token {token} is not in the vocabulary"
            ))),
            None => Ok(()),
        }
    }

    /// Texts of `len` tokens each.
    fn forward(&self, texts: &[&[u32]], len: usize) -> Result<Vec<Vec<f64>>, EncodeError> {
        let ids = Tensor::from_vec(texts.concat(), (texts.len(), len), &Device::Cpu)?;
        let states = self.model.forward(&ids, &ids.zeros_like()?, None)?;
        let states: Vec<Vec<Vec<f32>>> = states.to_vec3()?;
        Ok(states.iter().map(|states| self.vector(states)).collect())
    }

    /// The vector of a text from its states.
    fn vector(&self, states: &[Vec<f32>]) -> Vec<f64> {
        let wide = |state: &[f32]| state.iter().copied().map(f64::from).collect::<Vec<f64>>();
        let mut vector = match self.config.pooling {
            EncoderPooling::Cls => wide(&states[0]),
            EncoderPooling::Last => wide(&states[states.len() - 1]),
            EncoderPooling::Mean | EncoderPooling::Max => {
                let mut folded = wide(&states[0]);
                for state in &states[1..] {
                    for (folded, x) in folded.iter_mut().zip(wide(state)) {
                        *folded = match self.config.pooling {
                            EncoderPooling::Max => folded.max(x),
                            _ => *folded + x,
                        };
                    }
                }
                folded
            }
        };
        if self.config.pooling == EncoderPooling::Mean {
            let n = states.len() as f64;
            vector.iter_mut().for_each(|x| *x /= n);
        }
        vector
    }
}
