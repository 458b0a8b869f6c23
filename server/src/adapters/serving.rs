//! The adapters of a server: found, loaded, chosen, replaced.

mod told;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use models::{Adapter, AdapterStack, AdapterTable, AdapterTarget};
use tokio::sync::Semaphore;

use super::choice::Choice;
use super::disk::{self, Stamp};
use super::journal::{Journal, Kept};
use super::lease::Lease;
use super::loader;
use super::registry::{Limits, Origin, Registry, StackKey, State};
use crate::identity::unix_seconds;
use crate::metrics::Metrics;

pub use told::{AdaptersInUse, Served};

/// How often the files of an adapter from a directory are looked at, at most.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
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
        !self.named.is_empty() || self.dir.is_some() || self.root.is_some()
    }
}

/// An adapter that cannot be served as was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    #[error("adapter `{0}` does not exist")]
    Unknown(String),
    /// Its files are not what an adapter of this model is made of.
    #[error("adapter `{name}`: {message}")]
    Refused { name: String, message: String },
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
    base_names: Vec<String>,
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

    /// Makes known what `options` names, and loads what it names one by one. Blocks on disk.
    pub fn open(
        options: AdapterOptions,
        (target, table): (AdapterTarget, AdapterTable),
        base_root: u64,
        base_names: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AdapterError> {
        let kept = |error: std::io::Error| AdapterError::Journal(error.to_string());
        let journal = options.journal_dir.as_deref().map(Journal::in_dir);
        let remembered = journal.as_ref().map(Journal::read).transpose();
        let remembered = remembered.map_err(kept)?.unwrap_or_default();
        let shared = Shared {
            target,
            table,
            base_root,
            base_names,
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
            let (adapter, lease) = shared.loaded(name).await?;
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
    /// the directory. Those that have changed are loaded anew when they are next asked for;
    /// returns their names.
    pub fn refresh(&self) -> Vec<String> {
        let Some(shared) = &self.shared else {
            return Vec::new();
        };
        shared.scan();
        shared.lock().put_back_changed()
    }
}

impl Shared {
    /// Makes known what was loaded by request in an earlier run. It has to be in the root still,
    /// which may be another by now.
    fn recall(&self, name: &str, kept: Kept) {
        let root = self.options.root.as_deref();
        let path = match root.map(|root| disk::confined(root, &kept.path)) {
            Some(Ok(path)) => path,
            Some(Err(message)) => {
                tracing::warn!(adapter = name, message, "an adapter is forgotten");
                return;
            }
            None => return,
        };
        let mut registry = self.lock();
        if registry.get(name).is_none() {
            registry.add(name, path, Origin::Request, unix_seconds());
            if let Some(entry) = registry.get_mut(name) {
                entry.is_pinned = kept.pinned;
            }
        }
    }

    /// Loads an adapter that is to stay. Blocks on disk.
    fn pin(&self, name: &str) -> Result<(), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        if !self.find(name) {
            return Err(unknown());
        }
        let (path, is_loaded) = {
            let mut registry = self.lock();
            let entry = registry.get_mut(name).ok_or_else(unknown)?;
            entry.is_pinned = true;
            (
                entry.path.clone(),
                matches!(entry.state, State::Loaded { .. }),
            )
        };
        if !is_loaded {
            let (adapter, stamp) = self.read(name, &path)?;
            self.install(name, adapter, stamp);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names are used in stacks and in figures.
    fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        let refused = |message: &str| {
            Err(AdapterError::Refused {
                name: name.to_owned(),
                message: message.to_owned(),
            })
        };
        let is_odd = |c: char| c.is_control() || c.is_whitespace() || "@+:".contains(c);
        if name.is_empty() || name.len() > 256 || name.contains(is_odd) {
            return refused(
                "a name has 1 to 256 bytes, and neither white space nor any of `@`, `+` and `:`",
            );
        }
        if self.base_names.iter().any(|base| base == name) {
            return refused("this is the name of the model itself");
        }
        Ok(())
    }

    /// Whether the name is known, or to be found in the directory.
    fn find(&self, name: &str) -> bool {
        if self.lock().get(name).is_some() {
            return true;
        }
        let found = self
            .options
            .dir
            .as_deref()
            .and_then(|dir| disk::in_dir(dir, name));
        match found {
            Some(path) if self.check_name(name).is_ok() => {
                let origin = Origin::Directory;
                self.lock().add(name, path, origin, unix_seconds());
                true
            }
            _ => false,
        }
    }

    /// Makes all that is in the directory known.
    fn scan(&self) {
        let Some(dir) = &self.options.dir else {
            return;
        };
        match disk::names_in(dir) {
            Ok(names) => names.iter().for_each(|name| {
                self.find(name);
            }),
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "cannot list adapters"),
        }
    }

    /// The adapter of this name, and the lease on it alone. Whoever comes while it is being
    /// loaded waits for that load.
    async fn loaded(&self, name: &str) -> Result<(Arc<Adapter>, Arc<Lease>), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        self.compare(name);
        if let Some(loaded) = self.lock().use_loaded(name) {
            self.metrics.adapter_hits.increment(1);
            return Ok(loaded);
        }
        for _ in 0..MAX_TRIES {
            let turn = {
                let registry = self.lock();
                let entry = registry.get(name).ok_or_else(unknown)?;
                Arc::clone(&entry.turn)
            };
            let _turn = turn.lock().await;
            if let Some(loaded) = self.lock().use_loaded(name) {
                self.metrics.adapter_hits.increment(1);
                return Ok(loaded);
            }
            let (path, generation) = {
                let registry = self.lock();
                let entry = registry.get(name).ok_or_else(unknown)?;
                if let State::Failed(message) = &entry.state {
                    return Err(AdapterError::Refused {
                        name: name.to_owned(),
                        message: message.clone(),
                    });
                }
                (entry.path.clone(), entry.generation)
            };
            self.metrics.adapter_misses.increment(1);
            let read = self.read_beside(name, &path).await;
            if self.lock().get(name).map(|entry| entry.generation) != Some(generation) {
                // Replaced or removed meanwhile: what was read is of the past.
                continue;
            }
            match read {
                Ok((adapter, stamp)) => {
                    return Ok(self.install(name, adapter, stamp));
                }
                Err(error) => {
                    self.fail(name, &path, &error);
                    return Err(error);
                }
            }
        }
        Err(unknown())
    }

    /// Notices that files have changed: those of adapters in the directory, and those of adapters
    /// that could not be loaded.
    fn compare(&self, name: &str) {
        let mut registry = self.lock();
        let Some(entry) = registry.get_mut(name) else {
            return;
        };
        let is_recent = |compared: Instant| compared.elapsed() < COMPARE_EVERY;
        let is_watched =
            entry.origin == Origin::Directory || matches!(entry.state, State::Failed(_));
        if !is_watched || entry.compared.is_some_and(is_recent) {
            return;
        }
        entry.compared = Some(Instant::now());
        if entry
            .stamp
            .as_ref()
            .is_some_and(|stamp| *stamp != Stamp::of(&entry.path))
        {
            registry.put_back(name);
        }
    }

    fn fail(&self, name: &str, path: &Path, error: &AdapterError) {
        self.metrics.adapter_failures.increment(1);
        let mut registry = self.lock();
        if let Some(entry) = registry.get_mut(name)
            && let AdapterError::Refused { message, .. } = error
        {
            entry.stamp = Some(Stamp::of(path));
            entry.state = State::Failed(message.clone());
        }
    }

    /// Reads an adapter on a thread of its own; one at a time.
    async fn read_beside(
        &self,
        name: &str,
        path: &Path,
    ) -> Result<(Arc<Adapter>, Stamp), AdapterError> {
        let failed = |error: &dyn std::fmt::Display| AdapterError::Refused {
            name: name.to_owned(),
            message: error.to_string(),
        };
        let turn = Arc::clone(&self.loads).acquire_owned().await;
        let turn = turn.map_err(|error| failed(&error))?;
        let (target, owned) = (self.target.clone(), path.to_path_buf());
        let read = loader::run(move || {
            let stamp = Stamp::of(&owned);
            let adapter = Adapter::load(&owned, &target);
            drop(turn);
            (adapter, stamp)
        });
        let (adapter, stamp) = read.await.map_err(|error| failed(&error))?;
        self.check_size(name, path, adapter, stamp)
    }

    fn read(&self, name: &str, path: &Path) -> Result<(Arc<Adapter>, Stamp), AdapterError> {
        let stamp = Stamp::of(path);
        self.check_size(name, path, Adapter::load(path, &self.target), stamp)
    }

    fn check_size(
        &self,
        name: &str,
        path: &Path,
        adapter: Result<Adapter, models::AdapterError>,
        stamp: Stamp,
    ) -> Result<(Arc<Adapter>, Stamp), AdapterError> {
        let refused = |message: String| AdapterError::Refused {
            name: name.to_owned(),
            message,
        };
        // Where it lies is for the operator's log only.
        let place = path.display().to_string();
        let adapter = adapter.map_err(|error| {
            tracing::warn!(adapter = name, %error, "an adapter cannot be loaded");
            refused(error.to_string().replace(&place, name))
        })?;
        let (n_bytes, max) = (adapter.n_bytes() as u64, self.options.max_bytes);
        if n_bytes > max {
            return Err(refused(format!(
                "it takes {n_bytes} bytes, but all adapters together may take {max} \
                 (--adapter-memory)"
            )));
        }
        Ok((Arc::new(adapter), stamp))
    }

    fn check_replaced(&self, name: &str, request: &LoadRequest) -> Result<(), AdapterError> {
        let is_known = self.find(name);
        let registry = self.lock();
        let found = registry.get(name).map_or(0, |entry| entry.generation);
        if let Some(expected) = request.if_generation
            && expected != found
        {
            return Err(AdapterError::Generation {
                name: name.to_owned(),
                found,
                expected,
            });
        }
        if is_known && !request.replace && request.if_generation.is_none() {
            return Err(AdapterError::Exists(name.to_owned()));
        }
        Ok(())
    }

    /// The end of a load by request: all at once, or not at all if somebody was faster.
    fn put(
        &self,
        name: &str,
        path: PathBuf,
        request: &LoadRequest,
        adapter: Arc<Adapter>,
        stamp: Stamp,
    ) -> Result<(), AdapterError> {
        self.check_replaced(name, request)?;
        {
            let mut registry = self.lock();
            registry.add(name, path.clone(), Origin::Request, unix_seconds());
            if let Some(entry) = registry.get_mut(name) {
                entry.path = path;
                entry.origin = Origin::Request;
                entry.is_pinned = request.pinned;
            }
        }
        self.install(name, adapter, stamp);
        Ok(())
    }

    fn install(
        &self,
        name: &str,
        adapter: Arc<Adapter>,
        stamp: Stamp,
    ) -> (Arc<Adapter>, Arc<Lease>) {
        let stack = AdapterStack::single(Arc::clone(&adapter));
        let mut registry = self.lock();
        let id = registry.next_id();
        let lease = Lease::new(self.table.clone(), id, name, stack, self.base_root);
        let limits = Limits {
            max_loaded: self.options.max_loaded,
            max_bytes: self.options.max_bytes,
        };
        let own = (Arc::clone(&adapter), Arc::clone(&lease));
        let n_evicted = registry.install(name, adapter, lease, stamp, limits);
        drop(registry);
        self.metrics.adapter_evictions.increment(n_evicted as u64);
        self.show();
        own
    }

    fn stack(&self, parts: Vec<(Arc<Adapter>, f32)>) -> Result<Arc<Lease>, AdapterError> {
        let key: StackKey = parts
            .iter()
            .map(|(adapter, weight)| (adapter.digest(), weight.to_bits()))
            .collect();
        if let Some(lease) = self.lock().stack(&key) {
            return Ok(lease);
        }
        let stack = AdapterStack::new(parts).map_err(|error| AdapterError::Refused {
            name: "stack".to_owned(),
            message: error.to_string(),
        })?;
        let mut registry = self.lock();
        if let Some(lease) = registry.stack(&key) {
            return Ok(lease);
        }
        let id = registry.next_id();
        let lease = Lease::new(self.table.clone(), id, "stack", stack, self.base_root);
        registry.keep_stack(key, Arc::clone(&lease));
        Ok(lease)
    }

    fn show(&self) {
        let (n_loaded, n_bytes) = self.lock().loaded();
        self.metrics.adapters_loaded.set(n_loaded as f64);
        self.metrics.adapter_bytes.set(n_bytes as f64);
    }

    /// Keeps what was loaded by request for the next start.
    fn remember(&self) -> Result<(), AdapterError> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let registry = self.lock();
        let requested = registry
            .iter()
            .filter(|(_, entry)| entry.origin == Origin::Request);
        let requested = requested.map(|(name, entry)| {
            let kept = Kept {
                path: entry.path.clone(),
                pinned: entry.is_pinned,
            };
            (name.clone(), kept)
        });
        // Under the lock, so that the file is never older than the registry.
        let written = journal.write(&requested.collect());
        written.map_err(|error| AdapterError::Journal(error.to_string()))
    }
}
