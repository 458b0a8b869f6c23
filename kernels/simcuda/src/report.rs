//! Telling people: on standard error, and in files for tests to read.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Adds a line to a file; a file that cannot be written is told on standard error.
pub(crate) fn append(path: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
        tell(&format!("{}: {error}", path.display()));
    }
}

/// Writes a line to standard error.
pub(crate) fn tell(line: &str) {
    // There is nobody left to tell if this fails.
    drop(writeln!(std::io::stderr(), "simcuda: {line}"));
}
