//! Uploaded files: their bytes lie in a directory beside the store's database, what is told of
//! them in the database.
//!
//! A file exists when its row does. The row is written once the bytes are on the disk under the
//! name that they keep, and deleted before them; so a process that is killed leaves at most bytes
//! without a row, which the next one removes when it starts.

mod content;
mod part;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::unix_seconds;
use crate::store::{Key, Kind, Store, StoreError, Write};
use part::{Part, Reserved};

pub(crate) use content::Content;

/// Name of the directory in that of the store.
const DIR: &str = "files";
/// What ids of files begin with, and so their names.
pub(crate) const PREFIX: &str = "file-";
/// End of the name of a file that is still being received.
const PART: &str = ".part";
/// Files received at a time, each with a buffer of its own.
const MAX_UPLOADS: usize = 64;
/// Bytes that are written or read together.
const BLOCK_BYTES: usize = 256 << 10;
/// What a file takes beside its bytes: a block, an inode and a row. It is counted, or files without
/// bytes would be unbounded.
const FILE_BYTES: u64 = 4096;
/// Time after which files that have ended are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct FilesOptions {
    /// Most bytes of a file.
    pub max_file_bytes: u64,
    /// Most bytes of all files, those being received as well; each counts 4096 more.
    pub max_bytes: u64,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self {
            max_file_bytes: 512 << 20,
            max_bytes: 8 << 30,
        }
    }
}

/// A file that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the file is larger than a file may be ({max_bytes} bytes)")]
    TooLarge { max_bytes: u64 },
    #[error("all files together may have {max_bytes} bytes, and this one does not fit")]
    Full { max_bytes: u64 },
    #[error("too many files are being received")]
    Busy,
    #[error("the directory of files: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All files. Clones share them.
#[derive(Clone, Debug)]
pub struct Files {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    store: Store,
    options: FilesOptions,
    used: Arc<AtomicU64>,
    uploads: Arc<Semaphore>,
}

impl Files {
    /// The files of a store that has a directory; others keep none. Removes what belongs to no
    /// file. Reads the disk.
    pub fn open(store: &Store, options: FilesOptions) -> Result<Option<Self>, FilesError> {
        let Some(store_dir) = &store.options().dir else {
            return Ok(None);
        };
        let dir = store_dir.join(DIR);
        make_dir(&dir)?;
        let files = Self {
            shared: Arc::new(Shared {
                dir,
                store: store.clone(),
                options,
                used: Arc::default(),
                uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            }),
        };
        files.tidy()?;
        sync_dir(store_dir)?;
        Ok(Some(files))
    }

    /// Compares the directory with the rows.
    fn tidy(&self) -> Result<(), FilesError> {
        let entries = self.shared.store.entries(Kind::File)?;
        let mut known: HashMap<String, bool> = entries
            .into_iter()
            .map(|entry| (entry.key.id, false))
            .collect();
        for entry in fs::read_dir(&self.shared.dir)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if let Some(is_there) = known.get_mut(&name) {
                *is_there = true;
                let n_bytes = entry.metadata()?.len() + FILE_BYTES;
                self.shared.used.fetch_add(n_bytes, Ordering::Relaxed);
            } else if name.starts_with(PREFIX) {
                tracing::info!(name, "removing what was not received whole");
                fs::remove_file(entry.path())?;
            }
        }
        for (id, _) in known.iter().filter(|(_, is_there)| !**is_there) {
            tracing::error!(id, dir = %self.shared.dir.display(), "the bytes of a file are gone");
        }
        Ok(())
    }

    /// Bytes of all files, those being received as well, with what each takes beside them.
    pub fn n_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    pub(crate) fn options(&self) -> FilesOptions {
        self.shared.options
    }

    /// Begins to receive a file, if there is room for one without bytes.
    pub(crate) async fn begin(&self, id: &str) -> Result<Upload, FilesError> {
        let turn = Arc::clone(&self.shared.uploads).try_acquire_owned();
        let turn = turn.map_err(|_| FilesError::Busy)?;
        let max_bytes = self.shared.options.max_bytes;
        let reserved = Reserved::take(Arc::clone(&self.shared.used), FILE_BYTES, max_bytes)
            .ok_or(FilesError::Full { max_bytes })?;
        let path = self.path(id);
        let part = blocking(move || Part::create(path, reserved)).await?;
        Ok(Upload {
            files: self.clone(),
            part: Some(part),
            buffer: Vec::new(),
            n_bytes: 0,
            _turn: turn,
        })
    }

    /// The bytes of a file whose row was read.
    pub(crate) async fn content(&self, id: &str) -> Result<Content, FilesError> {
        let path = self.path(id);
        Ok(blocking(move || Content::open(&path)).await?)
    }

    /// Deletes a file. Says whether it was there.
    pub(crate) async fn delete(&self, key: Key) -> Result<bool, FilesError> {
        let path = self.path(&key.id);
        let is_there = self.shared.store.write(vec![Write::Delete { key }]).await?[0];
        let used = Arc::clone(&self.shared.used);
        // Also if the row had ended a moment ago.
        blocking(move || remove(&path, &used)).await?;
        Ok(is_there)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.shared.dir.join(id)
    }

    /// Deletes files that have ended, from time to time, as long as there is somebody to keep
    /// them for.
    pub async fn upkeep(self) {
        let shared = Arc::downgrade(&self.shared);
        drop(self);
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let Some(files) = Weak::upgrade(&shared).map(|shared| Self { shared }) else {
                return;
            };
            if let Err(error) = files.sweep(unix_seconds()).await {
                tracing::error!(%error, "files that have ended could not be deleted");
            }
        }
    }

    async fn sweep(&self, now: u64) -> Result<(), FilesError> {
        let store = self.shared.store.clone();
        let entries = tokio::task::spawn_blocking(move || store.entries(Kind::File));
        for entry in entries.await.map_err(io::Error::other)?? {
            if entry.end <= now {
                self.delete(entry.key).await?;
            }
        }
        Ok(())
    }
}

/// A file that is being received. What is dropped before it is kept leaves nothing.
#[derive(Debug)]
pub(crate) struct Upload {
    files: Files,
    /// `None` while it is being written, and after an error.
    part: Option<Part>,
    buffer: Vec<u8>,
    n_bytes: u64,
    _turn: OwnedSemaphorePermit,
}

impl Upload {
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Takes more bytes.
    pub(crate) async fn append(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        let FilesOptions {
            max_file_bytes,
            max_bytes,
        } = self.files.shared.options;
        self.n_bytes += bytes.len() as u64;
        if self.n_bytes > max_file_bytes {
            return Err(FilesError::TooLarge {
                max_bytes: max_file_bytes,
            });
        }
        let part = self.part.as_mut().ok_or_else(after_an_error)?;
        if !part.reserve(bytes.len() as u64, max_bytes) {
            return Err(FilesError::Full { max_bytes });
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BLOCK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), FilesError> {
        let mut part = self.part.take().ok_or_else(after_an_error)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = blocking(move || {
            part.write(&buffer)?;
            buffer.clear();
            Ok((part, buffer))
        });
        let (part, buffer) = written.await?;
        (self.part, self.buffer) = (Some(part), buffer);
        Ok(())
    }

    /// Keeps the file: when this returns, its bytes and its row are on the disk. It goes on if
    /// nobody waits for it any more, so that there are no bytes without a row.
    pub(crate) async fn keep(
        self,
        key: Key,
        row: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<(), FilesError> {
        let kept = tokio::spawn(self.keep_whole(key, row, ttl)).await;
        kept.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    async fn keep_whole(
        mut self,
        key: Key,
        row: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<(), FilesError> {
        self.flush().await?;
        let part = self.part.take().ok_or_else(after_an_error)?;
        let dir = self.files.shared.dir.clone();
        blocking(move || part.seal(&dir)).await?;
        let store = self.files.shared.store.clone();
        let put = Write::Put {
            key: key.clone(),
            body: row,
            ttl,
        };
        let Err(error) = store.write(vec![put]).await else {
            return Ok(());
        };
        let path = self.files.path(&key.id);
        let used = Arc::clone(&self.files.shared.used);
        blocking(move || match store.get(&key) {
            // It is not known whether the row is on the disk: its bytes stay.
            Ok(Some(_)) | Err(_) => Ok(()),
            Ok(None) => remove(&path, &used),
        })
        .await?;
        Err(error.into())
    }
}

fn after_an_error() -> io::Error {
    io::Error::other("it could not be written before")
}

/// Removes the bytes of a file, if they are there.
fn remove(path: &Path, used: &AtomicU64) -> io::Result<()> {
    let n_bytes = match fs::metadata(path) {
        Ok(about) => about.len() + FILE_BYTES,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match fs::remove_file(path) {
        Ok(()) => {
            used.fetch_sub(n_bytes, Ordering::Relaxed);
            Ok(())
        }
        // Somebody else deletes it as well, and counts it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what was changed in a directory last.
fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere directories cannot be opened.
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir)
}

/// Runs work of the disk off the async threads. It goes on if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
