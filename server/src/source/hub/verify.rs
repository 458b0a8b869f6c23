//! Whether a download is what the hub promised.

use std::path::Path;

use crate::source::SourceError;
use crate::source::demo::sha256;

/// Checks a file of the cache against the name of its blob, which for large files is the SHA-256
/// of the content. A wrong one is removed.
pub(super) fn content(pointer: &Path) -> Result<(), SourceError> {
    let Ok(blob) = pointer.canonicalize() else {
        return Ok(());
    };
    let name = blob
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // Small files are named by a git hash, which is shorter.
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = sha256(&blob)?;
    if found == name {
        return Ok(());
    }
    for path in [pointer, &blob] {
        std::fs::remove_file(path).map_err(|error| {
            SourceError::Download(format!(
                "{}: cannot remove a broken file: {error}",
                path.display()
            ))
        })?;
    }
    Err(SourceError::Download(format!(
        "{}: the content is not what the hub promised (SHA-256 {found}); it was removed, start again",
        pointer.display()
    )))
}

/// Removes unfinished downloads that cannot be continued.
pub(super) fn remove_parts(blobs: &Path) {
    let entries = std::fs::read_dir(blobs).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path
            .extension()
            .is_some_and(|extension| extension == "part")
        {
            // One that stays makes the next attempt fail with a message of its own.
            drop(std::fs::remove_file(path));
        }
    }
}
