//! What keeps a load from being run at all. What goes wrong with single requests is counted
//! instead ([`crate::outcome::ErrorKind`]).

use std::path::PathBuf;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Options that do not go together, or that name what does not exist.
    #[error("{0}")]
    Options(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A trace that is not one.
    #[error("{}, line {line}: {reason}", path.display())]
    Trace {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    /// The server cannot be asked at all.
    #[error("{url}: {reason}")]
    Server { url: String, reason: String },
    /// A plot that could not be drawn.
    #[error("cannot draw: {0}")]
    Plot(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
