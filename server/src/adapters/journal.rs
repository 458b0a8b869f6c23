//! Adapters that were loaded by request, kept for the next start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is kept of an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) pinned: bool,
}

/// A file with names and paths, replaced as a whole so that it is never half written.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    path: PathBuf,
}

impl Journal {
    /// In `dir`, which exists.
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self {
            path: dir.join("adapters.json"),
        }
    }

    /// What was kept; nothing if nothing was.
    pub(super) fn read(&self) -> io::Result<BTreeMap<String, Kept>> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// On disk when this returns.
    pub(super) fn write(&self, adapters: &BTreeMap<String, Kept>) -> io::Result<()> {
        let next = self.path.with_extension("json.next");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec_pretty(adapters)?)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}
