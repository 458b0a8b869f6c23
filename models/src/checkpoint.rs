//! A model on disk: configuration and tensors, whatever the container.

use std::path::Path;

use crate::{Gguf, ModelConfig};

/// A model that cannot be loaded: which file, which field, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct LoadError {
    pub file: String,
    pub message: String,
}

/// An opened model: a directory in Hugging Face layout (safetensors) or a GGUF file.
#[derive(Debug)]
pub struct Checkpoint {}

impl Checkpoint {
    pub fn open(_path: &Path) -> Result<Self, LoadError> {
        unimplemented!()
    }

    pub fn config(&self) -> &ModelConfig {
        unimplemented!()
    }

    /// Tokens that end a generation, from generation_config.json, config.json or GGUF metadata.
    pub fn eos_tokens(&self) -> &[u32] {
        unimplemented!()
    }

    /// The directory, for a checkpoint in Hugging Face layout.
    pub fn dir(&self) -> Option<&Path> {
        unimplemented!()
    }

    /// The GGUF file, with its metadata (tokenizer, chat template).
    pub fn gguf(&self) -> Option<&Gguf> {
        unimplemented!()
    }

    /// Identity of the weights by content, not by name or place.
    pub fn digest(&self) -> u64 {
        unimplemented!()
    }
}
