//! Merging whole checkpoints of one architecture into a new one.
//!
//! Every tensor of the result is made of the tensors of that name alone, so they are read, merged
//! and written one after the other: a merge takes the memory of a few tensors, however large the
//! models are. Sums are in f64 and rounded once.

mod agree;
mod card;
mod combine;
mod method;
mod source;
mod sparse;
mod write;

use std::path::{Path, PathBuf};

use kernels::WeightType;

use crate::LoadError;
use source::Source;

pub use method::MergeMethod;

/// A checkpoint that takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeSource {
    /// What the model card calls it.
    pub name: String,
    /// A directory in Hugging Face layout.
    pub dir: PathBuf,
    pub weight: f64,
}

/// What to merge, and how.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    pub method: MergeMethod,
    pub sources: Vec<MergeSource>,
    /// What the sources were trained from, for methods that merge differences. Its weight is not
    /// used.
    pub base: Option<MergeSource>,
    /// Type of merged tensors; `None`: of the base's, or of the first source's.
    pub dense: Option<WeightType>,
    /// Files of weights end before they are larger than this, unless one tensor is.
    pub max_shard_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub n_tensors: usize,
    pub n_bytes: u64,
    pub n_files: usize,
    /// Where the sources are not alike, and whose way the result has.
    pub notes: Vec<String>,
}

/// A merge that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The first tensor, in the order of names, that two checkpoints do not have alike.
    #[error("{other} cannot be merged with {first}: tensor `{tensor}` {difference}")]
    Differs {
        first: String,
        other: String,
        tensor: String,
        difference: String,
    },
    #[error("{other} cannot be merged with {first}: config.json: {difference}")]
    Architecture {
        first: String,
        other: String,
        difference: String,
    },
    /// A method, weight or type that makes no sense.
    #[error("{0}")]
    Options(String),
    #[error("{}: {message}", file.display())]
    Write { file: PathBuf, message: String },
}

impl MergeError {
    fn write(file: &Path, error: impl std::fmt::Display) -> Self {
        Self::Write {
            file: file.to_path_buf(),
            message: error.to_string(),
        }
    }
}

/// Writes the merge of `options` to the new directory `out`: weights in safetensors (with an
/// index if there are several files), configuration and tokenizer of the base (or the first
/// source), and a model card.
///
/// # Errors
/// Options contradict each other, a source cannot be read, sources are not alike, or `out` is
/// there already or cannot be written. What was begun is removed again.
pub fn merge_checkpoints(options: &MergeOptions, out: &Path) -> Result<Merged, MergeError> {
    options.check()?;
    let sources: Vec<Source<'_>> = options
        .sources
        .iter()
        .map(Source::open)
        .collect::<Result<_, _>>()?;
    let base = options.base.as_ref().map(Source::open).transpose()?;
    let first = base.as_ref().unwrap_or(&sources[0]);
    for source in &sources {
        agree::check(first, source)?;
    }
    let notes = agree::notes(first, &sources);
    std::fs::create_dir(out).map_err(|error| MergeError::write(out, error))?;
    let written = write::write(options, &sources, base.as_ref(), out)
        .and_then(|written| {
            card::copy_files(first, options.dense, out)?;
            card::write(options, &sources, base.as_ref(), &notes, out)?;
            Ok(written)
        })
        .inspect_err(|_| {
            // The directory is ours, made a moment ago; the error that counts is the first.
            std::fs::remove_dir_all(out).ok();
        })?;
    Ok(Merged { notes, ..written })
}
