//! The adapters of a server: found, loaded, chosen, replaced.

mod found;
mod kept;
mod loads;
mod replaced;
mod told;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use models::{AdapterTable, AdapterTarget};
use tokio::sync::Semaphore;

use super::choice::Choice;
use super::disk;
use super::journal::Journal;
use super::lease::Lease;
use super::registry::{Origin, Registry};
use crate::identity::unix_seconds;
use crate::metrics::Metrics;

pub use replaced::Refreshed;
pub use told::{AdaptersInUse, Served};

/// A request that meets this many generations of a name, each gone before it could begin, gives
/// up.
const MAX_TRIES: usize = 16;

/// What the operator says about adapters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterOptions {
    /// Names and paths, loaded before the server takes requests.
    pub named: Vec<(String, PathBuf)>,
    /// A directory of adapters, each loaded when it is first asked for.
    pub dir: Option<PathBuf>,
    /// Where adapters may be loaded from by request; `None`: nowhere.
    pub root: Option<PathBuf>,
    pub max_loaded: usize,
    pub max_bytes: u64,
    /// Adapters that never leave memory.
    pub pinned: Vec<String>,
    /// Where adapters loaded by request are remembered.
    pub journal_dir: Option<PathBuf>,
}

impl AdapterOptions {
    /// Whether there can be adapters at all.
    pub fn is_enabled(&self) -> bool {
        !self.named.is_empty()
            || self.dir.is_some()
            || self.root.is_some()
            || !self.pinned.is_empty()
    }

    /// What cannot be served whatever the model is: directories that cannot be read, and pinned
    /// adapters that are nowhere.
    pub fn faults(&self) -> Vec<AdapterError> {
        let dirs = [("adapter-dir", &self.dir), ("adapter-root", &self.root)];
        let unread = dirs.into_iter().filter_map(|(flag, dir)| {
            let path = dir.clone()?;
            let error = std::fs::read_dir(&path).err()?;
            let message = error.to_string();
            Some(AdapterError::Directory {
                flag,
                path,
                message,
            })
        });
        let in_dir = |name: &str| {
            let dir = self.dir.as_deref();
            dir.is_some_and(|dir| disk::in_dir(dir, name).is_some())
        };
        // A list that cannot be read is told of when it is.
        let journal = self.journal_dir.as_deref().map(Journal::in_dir);
        let remembered = journal.and_then(|journal| journal.read().ok());
        let remembered = remembered.unwrap_or_default();
        let unknown = self.pinned.iter().filter(|name| {
            !self.named.iter().any(|(known, _)| known == *name)
                && !in_dir(name)
                && !remembered.contains_key(*name)
        });
        unread
            .chain(unknown.map(|name| AdapterError::Pinned(name.clone())))
            .collect()
    }

    /// Whether adapters may be there later that are not there now.
    pub fn can_grow(&self) -> bool {
        self.dir.is_some() || self.root.is_some()
    }

    /// Whether an adapter of this name is known before the model is loaded.
    pub fn names(&self, name: &str) -> bool {
        let in_dir = |dir: &PathBuf| disk::in_dir(dir, name).is_some();
        self.named.iter().any(|(known, _)| known == name) || self.dir.as_ref().is_some_and(in_dir)
    }
}

/// An adapter that cannot be served as was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    #[error("adapter `{0}` does not exist")]
    Unknown(String),
    /// Its files are not what an adapter of this model is made of, or its name is not one.
    #[error("adapter `{name}`: {message}")]
    Refused { name: String, message: String },
    /// The same of an adapter that was made known by the operator: whoever asks for it cannot help
    /// it.
    #[error("adapter `{name}` cannot be loaded: {message}")]
    NotLoadable { name: String, message: String },
    #[error("--{flag} {}: {message}", path.display())]
    Directory {
        flag: &'static str,
        path: PathBuf,
        message: String,
    },
    #[error(
        "--pin {0}: there is no adapter of this name, neither by --adapter nor in --adapter-dir, and \
         none was loaded by request"
    )]
    Pinned(String),
    #[error("adapter `{0}` is loaded already")]
    Exists(String),
    #[error("adapter `{name}` has generation {found}, not {expected}")]
    Generation {
        name: String,
        found: u64,
        expected: u64,
    },
    #[error("adapters are not loaded by request here (--adapter-root)")]
    NoRoot,
    #[error("the list of adapters could not be kept: {0}")]
    Journal(String),
}

impl AdapterError {
    /// The same where nobody sent the files that were refused.
    fn of_operator(self) -> Self {
        match self {
            Self::Refused { name, message } => Self::NotLoadable { name, message },
            other => other,
        }
    }
}

/// What is asked of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// Whether a name that exists gets this content.
    pub replace: bool,
    /// The generation that is to be replaced.
    pub if_generation: Option<u64>,
    pub pinned: bool,
}

/// The adapters of one base model. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Adapters {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    options: AdapterOptions,
    target: AdapterTarget,
    table: AdapterTable,
    /// Root of the base model's KV keys.
    base_root: u64,
    /// Names that no adapter may have, and what has them.
    taken: Vec<(String, &'static str)>,
    registry: Mutex<Registry>,
    journal: Option<Journal>,
    /// One load at a time: more would take cores from the streams that run.
    loads: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Adapters {
    /// A server without adapters.
    pub fn none() -> Self {
        Self::default()
    }

    /// Makes known what `options` names, and loads what it names one by one. No adapter may have a
    /// name that is `taken`. Blocks on disk.
    pub fn open(
        options: AdapterOptions,
        (target, table): (AdapterTarget, AdapterTable),
        base_root: u64,
        taken: Vec<(String, &'static str)>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AdapterError> {
        if let Some(fault) = options.faults().into_iter().next() {
            return Err(fault);
        }
        let kept = |error: std::io::Error| AdapterError::Journal(error.to_string());
        let journal = options.journal_dir.as_deref().map(Journal::in_dir);
        let remembered = journal.as_ref().map(Journal::read).transpose();
        let remembered = remembered.map_err(kept)?.unwrap_or_default();
        let shared = Shared {
            target,
            table,
            base_root,
            taken,
            registry: Mutex::default(),
            journal,
            loads: Arc::new(Semaphore::new(1)),
            metrics,
            options,
        };
        for (name, path) in shared.options.named.clone() {
            shared.check_name(&name)?;
            if shared.lock().get(&name).is_some() {
                return Err(AdapterError::Exists(name));
            }
            let origin = Origin::CommandLine;
            shared
                .lock()
                .add(&name, path.clone(), origin, unix_seconds());
            let (adapter, stamp) = shared.read(&name, &path)?;
            shared.install(&name, adapter, stamp);
        }
        for (name, kept) in remembered {
            shared.recall(&name, kept);
        }
        for name in shared.options.pinned.clone() {
            shared.pin(&name)?;
        }
        Ok(Self {
            shared: Some(Arc::new(shared)),
        })
    }

    /// Whether there can be any.
    pub fn are_served(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether adapters may be loaded by request.
    pub fn can_load(&self) -> bool {
        let root = self.shared.as_ref().map(|shared| &shared.options.root);
        matches!(root, Some(Some(_)))
    }

    /// Whether a request may name it.
    pub fn knows(&self, name: &str) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.find(name))
    }

    /// The weights of a choice, loaded if need be; `None` for the base model.
    pub async fn lease(&self, choice: &Choice) -> Result<Option<Arc<Lease>>, AdapterError> {
        let Choice::Adapters(parts) = choice else {
            return Ok(None);
        };
        let Some(shared) = &self.shared else {
            return Err(AdapterError::Unknown(parts[0].0.clone()));
        };
        let mut adapters = Vec::with_capacity(parts.len());
        for (name, weight) in parts {
            let loaded = shared.loaded(name).await;
            let (adapter, lease) = loaded.map_err(AdapterError::of_operator)?;
            if parts.len() == 1 && *weight == 1.0 {
                return Ok(Some(lease));
            }
            adapters.push((adapter, *weight));
        }
        let shared = Arc::clone(shared);
        // Putting a stack together reads all of its matrices.
        let stack = tokio::task::spawn_blocking(move || shared.stack(adapters));
        match stack.await {
            Ok(stack) => stack.map(Some),
            Err(error) => Err(AdapterError::Refused {
                name: "stack".to_owned(),
                message: error.to_string(),
            }),
        }
    }

    /// Loads the adapter at `path` under `name`, beside serving. Requests that run keep the
    /// generation they have; those that come after get the new one.
    pub async fn load(
        &self,
        name: &str,
        path: &Path,
        request: LoadRequest,
    ) -> Result<(), AdapterError> {
        let shared = self.shared.as_ref().ok_or(AdapterError::NoRoot)?;
        let root = shared.options.root.as_deref().ok_or(AdapterError::NoRoot)?;
        shared.check_name(name)?;
        let path = disk::confined(root, path).map_err(|message| AdapterError::Refused {
            name: name.to_owned(),
            message,
        })?;
        shared.check_replaced(name, &request)?;
        let (adapter, stamp) = shared.read_beside(name, &path).await?;
        shared.put(name, path, &request, adapter, stamp)?;
        shared.remember()
    }

    /// Forgets an adapter. One that is in the directory is found there again when it is next
    /// asked for.
    pub fn unload(&self, name: &str) -> Result<(), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        let shared = self.shared.as_ref().ok_or_else(unknown)?;
        if !shared.find(name) {
            return Err(unknown());
        }
        shared.lock().remove(name).ok_or_else(unknown)?;
        shared.show();
        shared.remember()
    }

    /// Compares all adapters with their files, wherever they came from, and looks for new ones in
    /// the directory. Those in memory that have changed are loaded anew, and stay as they are if
    /// they cannot be; others are read when they are next asked for.
    pub async fn refresh(&self) -> Refreshed {
        match &self.shared {
            Some(shared) => shared.refresh().await,
            None => Refreshed::default(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
