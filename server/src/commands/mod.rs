//! Commands beside `serve`: what they say, not what they do, which is in `models` and `load`.

mod adapters;
mod convert;
mod eval_quant;
mod merge;
mod plan;
mod weight_type;

pub use adapters::AdaptersArgs;
pub use convert::{ConvertArgs, QuantizeArgs};
pub use eval_quant::EvalQuantArgs;
pub use merge::{MergeArgs, Method as MergeMethodName};
pub use plan::PlanArgs;
pub use weight_type::{parse_weight_type, weight_type_name};

use std::path::PathBuf;

use models::{AdapterError, LoadError, MergeError};
use scheduler::ExecutorError;

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
    Adapter(#[from] AdapterError),
    #[error("{n_bad} of {n} adapters do not fit:\n{list}")]
    Misfits {
        n: usize,
        n_bad: usize,
        list: String,
    },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Measure(#[from] load::LoadError),
    #[error("the server to measure did not start: {message}")]
    Server { message: String },
    #[error("{flag}: {message}")]
    Flag { flag: &'static str, message: String },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
}

/// Threads that this process may use.
fn n_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
