//! Where models come from: a directory, a GGUF file, the hub, or the demo model.

use std::path::PathBuf;

/// A model on this machine's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSource {
    /// A directory in Hugging Face layout, or a `.gguf` file.
    pub path: PathBuf,
    /// The name that the API serves it under unless told otherwise.
    pub name: String,
}

/// A model that cannot be had. Messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    NotFound(String),
}

/// Finds `model` (`None`: the demo model), downloading it if need be.
pub fn resolve(_model: Option<&str>) -> Result<ModelSource, SourceError> {
    unimplemented!()
}
