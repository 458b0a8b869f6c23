//! Names that get another content: by request, and because their files have changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use models::Adapter;

use super::{AdapterError, LoadRequest, Shared};
use crate::adapters::disk::Stamp;
use crate::adapters::registry::{Origin, State};
use crate::identity::unix_seconds;

/// How often the files of an adapter from a directory are looked at, at most.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// What became of comparing all adapters with their files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Names of adapters whose files had changed.
    pub changed: Vec<String>,
    /// Adapters that stay as they were because their files cannot be loaded, and a directory that
    /// cannot be read.
    pub failed: Vec<String>,
}

impl Shared {
    pub(super) fn check_replaced(
        &self,
        name: &str,
        request: &LoadRequest,
    ) -> Result<(), AdapterError> {
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
    pub(super) fn put(
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

    /// Notices that files have changed: those of adapters in the directory, and those of adapters
    /// that could not be loaded. What has changed is loaded; see [`renew`](Self::renew).
    pub(super) async fn compare(&self, name: &str) {
        if self.is_to_renew(name) {
            // Why it cannot be is in the log, and in what is told of the adapter.
            self.renew(name).await.ok();
        }
    }

    fn is_to_renew(&self, name: &str) -> bool {
        let mut registry = self.lock();
        let Some(entry) = registry.get_mut(name) else {
            return false;
        };
        let is_recent = |compared: Instant| compared.elapsed() < COMPARE_EVERY;
        let is_watched =
            entry.origin == Origin::Directory || matches!(entry.state, State::Failed(_));
        if !is_watched || entry.compared.is_some_and(is_recent) {
            return false;
        }
        entry.compared = Some(Instant::now());
        if entry.is_gone() {
            registry.remove(name);
            drop(registry);
            self.show();
            return false;
        }
        if !entry.has_changed() {
            return false;
        }
        let is_loaded = matches!(entry.state, State::Loaded { .. });
        if !is_loaded {
            registry.put_back(name);
        }
        is_loaded
    }

    /// Loads what the files of an adapter in memory have become. What was read before answers until
    /// then, and goes on to answer if they cannot be loaded.
    pub(super) async fn renew(&self, name: &str) -> Result<(), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        let turn = {
            let registry = self.lock();
            Arc::clone(&registry.get(name).ok_or_else(unknown)?.turn)
        };
        let _turn = turn.lock().await;
        let (path, generation) = {
            let registry = self.lock();
            let entry = registry.get(name).ok_or_else(unknown)?;
            if !entry.has_changed() {
                // Somebody else was faster.
                return Ok(());
            }
            (entry.path.clone(), entry.generation)
        };
        let stamp = Stamp::of(&path);
        let read = self.read_beside(name, &path).await;
        if self.lock().get(name).map(|entry| entry.generation) != Some(generation) {
            return Ok(());
        }
        match read {
            Ok((adapter, stamp)) => {
                self.install(name, adapter, stamp);
                tracing::info!(adapter = name, "was loaded anew");
                Ok(())
            }
            Err(error) => {
                tracing::error!(adapter = name, %error, "stays as it was: its files have changed");
                self.metrics.adapter_failures.increment(1);
                if let Some(entry) = self.lock().get_mut(name) {
                    entry.refused = Some((stamp, error.to_string()));
                }
                Err(error)
            }
        }
    }

    /// See [`Adapters::refresh`](super::Adapters::refresh).
    pub(super) async fn refresh(&self) -> Refreshed {
        let mut done = Refreshed::default();
        if let Err(error) = self.scan() {
            tracing::error!(%error, "adapters cannot be listed");
            done.failed.push(error.to_string());
        }
        let changed = self.lock().changed();
        for name in changed {
            let is_loaded = {
                let mut registry = self.lock();
                let entry = registry.get(&name);
                let is_loaded =
                    entry.is_some_and(|entry| matches!(entry.state, State::Loaded { .. }));
                if !is_loaded {
                    registry.put_back(&name);
                }
                is_loaded
            };
            if !is_loaded || self.renew(&name).await.is_ok() {
                done.changed.push(name);
            } else {
                done.failed.push(name);
            }
        }
        done
    }
}
