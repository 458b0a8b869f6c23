//! The bytes of a file that is not there yet.

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{PART, sync_dir};

/// Bytes taken of what all files may have. Unless they stay taken, dropping gives them back.
#[derive(Debug)]
pub(super) struct Reserved {
    used: Arc<AtomicU64>,
    n_bytes: u64,
}

impl Reserved {
    /// `None` if there are not so many left.
    pub(super) fn take(used: Arc<AtomicU64>, n: u64, max: u64) -> Option<Self> {
        let mut reserved = Self { used, n_bytes: 0 };
        reserved.grow(n, max).then_some(reserved)
    }

    /// Takes `n` more; false if there are not so many left.
    fn grow(&mut self, n: u64, max: u64) -> bool {
        let order = Ordering::Relaxed;
        let fits = |used: u64| used.checked_add(n).filter(|used| *used <= max);
        let is_taken = self.used.fetch_update(order, order, fits).is_ok();
        self.n_bytes += if is_taken { n } else { 0 };
        is_taken
    }

    fn stay(&mut self) {
        self.n_bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

/// A file under a name of its own. Unless it is sealed, nothing is left of it.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// The name that it will have.
    sealed: PathBuf,
    reserved: Reserved,
}

impl Part {
    /// Creates it, readable by its user only. What is reserved for it goes with it.
    pub(super) fn create(sealed: PathBuf, reserved: Reserved) -> io::Result<Self> {
        let mut name = sealed.clone().into_os_string();
        name.push(PART);
        let path = PathBuf::from(name);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        Ok(Self {
            file: options.open(&path)?,
            path,
            sealed,
            reserved,
        })
    }

    /// Takes `n` more bytes of what all files may have; false if there are not so many left.
    pub(super) fn reserve(&mut self, n: u64, max: u64) -> bool {
        self.reserved.grow(n, max)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives it its name for good, once all of it is on the disk. It stays, whatever comes of its
    /// row: bytes without a row are removed at the next start, a row must never be without bytes.
    pub(super) fn seal(mut self, dir: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.sealed)?;
        self.path = mem::take(&mut self.sealed);
        sync_dir(dir)?;
        self.path = PathBuf::new();
        self.reserved.stay();
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file cannot be removed");
        }
    }
}
