//! Adapters brought into memory, for requests that wait for them.

use std::path::Path;
use std::sync::Arc;

use models::{Adapter, AdapterStack};

use super::{AdapterError, MAX_TRIES, Shared};
use crate::adapters::disk::Stamp;
use crate::adapters::lease::Lease;
use crate::adapters::loader;
use crate::adapters::registry::{Limits, StackKey, State};

impl Shared {
    /// The adapter of this name, and the lease on it alone. Whoever comes while it is being
    /// loaded waits for that load.
    pub(super) async fn loaded(
        &self,
        name: &str,
    ) -> Result<(Arc<Adapter>, Arc<Lease>), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        self.compare(name).await;
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
                Err(error) => return Err(self.fail(name, &path, error)),
            }
        }
        Err(unknown())
    }

    /// Notes that a load has failed, and tells why: there may be no such adapter any more.
    fn fail(&self, name: &str, path: &Path, error: AdapterError) -> AdapterError {
        let mut registry = self.lock();
        let Some(entry) = registry.get_mut(name) else {
            return error;
        };
        if entry.is_gone() {
            registry.remove(name);
            return AdapterError::Unknown(name.to_owned());
        }
        self.metrics.adapter_failures.increment(1);
        if let AdapterError::Refused { message, .. } = &error {
            entry.stamp = Some(Stamp::of(path));
            entry.refused = None;
            entry.state = State::Failed(message.clone());
        }
        error
    }

    /// Reads an adapter on a thread of its own; one at a time.
    pub(super) async fn read_beside(
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
        let adapter = adapter.map_err(|error| {
            tracing::warn!(adapter = name, %error, "an adapter cannot be loaded");
            // Where it lies is for the operator's log only.
            let place = path.display().to_string();
            failed(&error.to_string().replace(&place, name))
        })?;
        let adapter = self.check_size(adapter).map_err(|error| failed(&error))?;
        Ok((adapter, stamp))
    }

    /// Reads an adapter before there are clients. Blocks on disk.
    pub(super) fn read(
        &self,
        name: &str,
        path: &Path,
    ) -> Result<(Arc<Adapter>, Stamp), AdapterError> {
        let stamp = Stamp::of(path);
        let adapter = Adapter::load(path, &self.target).map_err(|error| error.to_string());
        let adapter = adapter.and_then(|adapter| self.check_size(adapter));
        match adapter {
            Ok(adapter) => Ok((adapter, stamp)),
            Err(message) => Err(AdapterError::Refused {
                name: name.to_owned(),
                message,
            }),
        }
    }

    fn check_size(&self, adapter: Adapter) -> Result<Arc<Adapter>, String> {
        let (n_bytes, max) = (adapter.n_bytes() as u64, self.options.max_bytes);
        if n_bytes > max {
            return Err(format!(
                "it takes {n_bytes} bytes, but all adapters together may take {max} \
                 (--adapter-memory)"
            ));
        }
        Ok(Arc::new(adapter))
    }

    pub(super) fn install(
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

    pub(super) fn stack(
        &self,
        parts: Vec<(Arc<Adapter>, f32)>,
    ) -> Result<Arc<Lease>, AdapterError> {
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

    pub(super) fn show(&self) {
        let (n_loaded, n_bytes) = self.lock().loaded();
        self.metrics.adapters_loaded.set(n_loaded as f64);
        self.metrics.adapter_bytes.set(n_bytes as f64);
    }
}
