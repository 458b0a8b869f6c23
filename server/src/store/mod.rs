//! What outlives a request: stored answers and conversations.
//!
//! One embedded database (redb: a copy-on-write B-tree in one file, so that a crash at any point
//! leaves the last commit), in a directory that one process owns, or in memory. Objects belong to
//! an API key: every key of the database begins with the owner's, so no owner ever reads
//! another's. Objects end after a time, or earlier when all together are too large: those that
//! would end first go first.

mod tables;
mod thread;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase};
use tokio::sync::oneshot;

use crate::identity::unix_seconds;
use crate::tenant::Owner;
use thread::{Task, Writer};

/// Pages that the database keeps in memory.
const CACHE_BYTES: usize = 16 << 20;
const FILE: &str = "store.redb";
const DAY_SECONDS: u64 = 24 * 3600;

/// What may be stored, and where.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `None`: in memory, gone with the process.
    pub dir: Option<PathBuf>,
    /// How long an object is kept after it was last written; `None`: for ever.
    pub ttl: Option<Duration>,
    /// Most bytes of all objects together.
    pub max_bytes: u64,
    /// Seconds of Unix time.
    pub clock: fn() -> u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            dir: None,
            ttl: Some(Duration::from_secs(30 * 24 * 3600)),
            max_bytes: 256 << 20,
            clock: unix_seconds,
        }
    }
}

/// A store that cannot be opened or does not do what it is asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("--store-dir {dir}: another process uses this directory")]
    InUse { dir: String },
    #[error("--store-dir {dir}: {message}")]
    Open { dir: String, message: String },
    #[error("the store failed: {0}")]
    Failed(String),
    #[error("an object of {n_bytes} bytes is larger than the whole store may be ({max_bytes})")]
    TooLarge { n_bytes: u64, max_bytes: u64 },
}

impl StoreError {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What an object is. The numbers are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Response = 1,
    /// The events of a response that can be streamed again.
    Events = 2,
    /// An output item by its id; holds the id of its response.
    Item = 3,
    Conversation = 4,
    ChatCompletion = 5,
    /// An answer by its idempotency key.
    Answer = 6,
    /// What is told of an uploaded file, whose bytes lie beside the database
    /// ([`Files`](crate::files::Files)). It never makes room for others.
    File = 7,
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub owner: Owner,
    pub kind: Kind,
    pub id: String,
}

impl Key {
    pub fn new(owner: Owner, kind: Kind, id: impl Into<String>) -> Self {
        let id = id.into();
        Self { owner, kind, id }
    }
}

/// Makes a new object of an old one; `None` leaves it.
pub type Edit = Box<dyn FnOnce(&[u8]) -> Option<Vec<u8>> + Send>;

/// One change.
pub enum Write {
    /// Creates the object or replaces it.
    Put {
        key: Key,
        body: Vec<u8>,
        /// `None`: as all objects.
        ttl: Option<Duration>,
    },
    /// Changes the object if it is there; nobody comes between.
    Edit {
        key: Key,
        edit: Edit,
    },
    Delete {
        key: Key,
    },
    /// Tokens that a key has used of its day. No object: it is neither counted nor ever removed
    /// before its day has passed.
    Usage {
        key: u128,
        usage: DayUsage,
    },
}

/// What was used of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    /// Days since 1970, in UTC.
    pub day: u64,
    pub n_tokens: u64,
}

/// An object as it is told of without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    /// Seconds of Unix time.
    pub end: u64,
}

impl Write {
    pub fn put(key: Key, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::Put {
            key,
            body,
            ttl: None,
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, body, .. } => write!(f, "Put({key:?}, {} bytes)", body.len()),
            Self::Edit { key, .. } => write!(f, "Edit({key:?})"),
            Self::Delete { key } => write!(f, "Delete({key:?})"),
            Self::Usage { usage, .. } => write!(f, "{usage:?}"),
        }
    }
}

/// The database; it is closed for a moment when it must recover from an error of the disk.
type Shelf = RwLock<Option<Database>>;

/// The store. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    shelf: Arc<Shelf>,
    writer: Writer,
    options: StoreOptions,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates it. A directory that another process uses is refused.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let database = open_database(&options)?;
        let today = (options.clock)() / DAY_SECONDS;
        tables::create(&database, today).map_err(|error| match &options.dir {
            Some(dir) => StoreError::Open {
                dir: dir.display().to_string(),
                message: error.to_string(),
            },
            None => error,
        })?;
        let shelf = Arc::new(RwLock::new(Some(database)));
        let writer = Writer::start(Arc::clone(&shelf), options.clone())?;
        Ok(Self {
            shared: Arc::new(Shared {
                shelf,
                writer,
                options,
            }),
        })
    }

    /// The object at `key`, if it has not ended. Reads the disk: not for async threads.
    pub fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database, now| tables::get(database, key, now))
    }

    /// Ids and bodies of an owner's objects of a kind in the order of their creation, from behind
    /// `after`. `visit` sees them one by one, and ends it by `false`. Reads the disk.
    ///
    /// Returns whether there is an object `after`.
    pub fn scan(
        &self,
        owner: Owner,
        kind: Kind,
        after: Option<&str>,
        ascending: bool,
        visit: &mut dyn FnMut(&str, &[u8]) -> bool,
    ) -> Result<bool, StoreError> {
        self.read(|database, now| {
            let range = tables::Range {
                owner,
                kind,
                after,
                ascending,
            };
            tables::scan(database, &range, now, visit)
        })
    }

    /// Makes all changes or none. When this returns they are on the disk. Says of each whether
    /// there was something to change.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Vec<bool>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let (done, is_done) = oneshot::channel();
        self.shared.writer.submit(Task { writes, done })?;
        is_done
            .await
            .unwrap_or_else(|_| Err(StoreError::failed("its thread has ended")))
    }

    /// All objects of a kind, of all owners, those that have ended as well. Reads the disk.
    pub fn entries(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        self.read(|database, _| tables::entries(database, kind))
    }

    /// What all keys have used of their last day, by the numbers they were written under.
    pub fn usages(&self) -> Result<Vec<(u128, DayUsage)>, StoreError> {
        self.read(|database, _| tables::usages(database))
    }

    /// What may be stored, and where.
    pub(crate) fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    /// Bytes of all objects.
    pub fn n_bytes(&self) -> Result<u64, StoreError> {
        self.read(|database, _| tables::n_bytes(database))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Database, u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let shelf = &self.shared.shelf;
        let database = shelf.read().unwrap_or_else(PoisonError::into_inner);
        let database = database
            .as_ref()
            .ok_or_else(|| StoreError::failed("it is closed after an error of the disk"))?;
        work(database, (self.shared.options.clock)())
    }
}

fn open_database(options: &StoreOptions) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    let Some(dir) = &options.dir else {
        let backend = InMemoryBackend::new();
        return builder
            .create_with_backend(backend)
            .map_err(StoreError::failed);
    };
    let failed = |message: String| StoreError::Open {
        dir: dir.display().to_string(),
        message,
    };
    create_dir(dir).map_err(|error| failed(error.to_string()))?;
    builder.create(dir.join(FILE)).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            dir: dir.display().to_string(),
        },
        other => failed(other.to_string()),
    })
}

/// Conversations are nobody else's business on this machine either.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir)
}

/// A transaction that only reads.
fn begin_read(database: &Database) -> Result<redb::ReadTransaction, StoreError> {
    database.begin_read().map_err(StoreError::failed)
}

#[cfg(test)]
mod tests;
