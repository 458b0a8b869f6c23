//! Adapters that are to stay: pinned ones in memory, those loaded by request known after a restart.

use super::{AdapterError, Shared};
use crate::adapters::disk;
use crate::adapters::journal::Kept;
use crate::adapters::registry::{Origin, State};
use crate::identity::unix_seconds;

impl Shared {
    /// Makes known what was loaded by request in an earlier run. It has to be in the root still,
    /// which may be another by now.
    pub(super) fn recall(&self, name: &str, kept: Kept) {
        let root = self.options.root.as_deref();
        let path = match root.map(|root| disk::confined(root, &kept.path)) {
            Some(Ok(path)) => path,
            Some(Err(message)) => {
                tracing::warn!(adapter = name, message, "an adapter is forgotten");
                return;
            }
            None => return,
        };
        if let Err(error) = self.check_name(name) {
            tracing::warn!(adapter = name, %error, "an adapter is forgotten");
            return;
        }
        let mut registry = self.lock();
        if registry.get(name).is_none() {
            registry.add(name, path, Origin::Request, unix_seconds());
            if let Some(entry) = registry.get_mut(name) {
                entry.is_pinned = kept.pinned;
            }
        }
    }

    /// Loads an adapter that is to stay. Blocks on disk.
    pub(super) fn pin(&self, name: &str) -> Result<(), AdapterError> {
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

    /// Keeps what was loaded by request for the next start.
    pub(super) fn remember(&self) -> Result<(), AdapterError> {
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
