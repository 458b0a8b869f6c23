//! Why an adapter is refused.

use std::path::Path;

use crate::LoadError;

/// An adapter that cannot be used. Nothing of it stays loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// What was asked for is wrong or not supported: a file is missing or damaged, or a field or
    /// tensor, which the message names, does not fit. Asking again gives the same answer.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// The machine could not: no memory, or a disk that fails. It may go better later.
    #[error("{file}: {message}")]
    Failed { file: String, message: String },
}

impl AdapterError {
    pub(crate) fn refused(file: &Path, message: impl Into<String>) -> Self {
        Self::Refused(LoadError::new(file, message))
    }

    pub(crate) fn failed(file: &Path, message: impl Into<String>) -> Self {
        Self::Failed {
            file: file.display().to_string(),
            message: message.into(),
        }
    }
}
