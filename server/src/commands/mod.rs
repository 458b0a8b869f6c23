//! Commands that make files of models: what they say, not what they do, which is in `models`.

mod convert;
mod weight_type;

pub use convert::{ConvertArgs, QuantizeArgs};
pub use weight_type::parse_weight_type;

use std::path::PathBuf;

use models::LoadError;

use crate::source::SourceError;
use crate::text::TokenizerError;

/// A command that failed. Each names the file or the flag at fault.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
}

/// Threads that this process may use.
fn n_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
