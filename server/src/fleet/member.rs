//! One of several models, in memory or not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FleetError, Once, Parts};
use crate::adapters::Served;
use crate::engine::{Engine, EngineHandle};
use crate::source::ModelSource;

/// A model that is known, whether it is in memory or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) source: ModelSource,
    /// Its adapters' names and files.
    pub(super) adapters: Vec<(String, PathBuf)>,
    seat: Mutex<Seat>,
    used: AtomicU64,
    /// An estimate until it was loaded once.
    needed_bytes: AtomicU64,
}

#[derive(Debug)]
enum Seat {
    OnDisk,
    Loaded(Arc<Resident>),
    /// The last load failed. The next request tries again.
    Failed(String),
}

/// A model in memory, with its engine. Whoever holds it keeps it there.
#[derive(Debug)]
pub struct Resident {
    parts: Parts,
    engine: Once<Engine>,
    n_bytes: u64,
}

/// What is told of a member.
#[derive(Clone, Debug)]
pub struct Told {
    pub name: String,
    pub state: MemberState,
    /// When it was loaded, in seconds of Unix time; 0 of others.
    pub created: u64,
    /// Weights, KV cache and the memory of a step; an estimate of those never loaded.
    pub n_bytes: u64,
    pub failure: Option<String>,
    /// Its adapters: those in memory with the model, else their names.
    pub adapters: Vec<Served>,
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    OnDisk,
    Loaded,
    Failed,
}

impl MemberState {
    pub fn word(self) -> &'static str {
        match self {
            Self::OnDisk => "on_disk",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

impl Resident {
    pub(super) fn new(parts: Parts, engine: Engine, n_bytes: u64) -> Self {
        Self {
            parts,
            engine: Mutex::new(Some(engine)),
            n_bytes,
        }
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Ends the engine. Blocks until the step in progress is done.
    pub(super) fn stop(&self) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engine.take() {
            engine.stop();
            self.parts.metrics.note_unloaded();
        }
    }
}

impl Member {
    pub(super) fn new(
        name: String,
        source: ModelSource,
        adapters: Vec<(String, PathBuf)>,
        needed_bytes: u64,
    ) -> Self {
        Self {
            name,
            source,
            adapters,
            seat: Mutex::new(Seat::OnDisk),
            used: AtomicU64::new(0),
            needed_bytes: AtomicU64::new(needed_bytes),
        }
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_adapter(&self, name: &str) -> bool {
        self.adapters.iter().any(|(own, _)| own == name)
    }

    pub(super) fn needed_bytes(&self) -> u64 {
        self.needed_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// It in memory, for a request that came at `now`.
    pub(super) fn lease(&self, now: u64) -> Option<Arc<Resident>> {
        self.used.fetch_max(now, Ordering::Relaxed);
        match &*self.seat() {
            Seat::Loaded(resident) => Some(Arc::clone(resident)),
            _ => None,
        }
    }

    /// Its engine, if it is in memory; this does not keep it there.
    pub(super) fn engine(&self) -> Option<EngineHandle> {
        match &*self.seat() {
            Seat::Loaded(resident) => Some(resident.parts.engine.clone()),
            _ => None,
        }
    }

    /// Ends its engine. Blocks until the step in progress is done.
    pub(super) fn stop(&self) {
        let seat = std::mem::replace(&mut *self.seat(), Seat::OnDisk);
        if let Seat::Loaded(resident) = seat {
            resident.stop();
        }
    }

    pub(super) fn bytes_in_memory(&self) -> u64 {
        match &*self.seat() {
            Seat::Loaded(resident) => resident.n_bytes,
            _ => 0,
        }
    }

    /// Of one that is used; others can be unloaded.
    pub(super) fn busy_bytes(&self) -> u64 {
        match &*self.seat() {
            Seat::Loaded(resident) if Arc::strong_count(resident) > 1 => resident.n_bytes,
            _ => 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(&*self.seat(), Seat::Loaded(resident) if Arc::strong_count(resident) == 1)
    }

    /// Takes it out of its seat unless somebody uses it: under the lock nobody can begin to.
    pub(super) fn evict(&self) -> Option<Arc<Resident>> {
        let mut seat = self.seat();
        match &*seat {
            Seat::Loaded(resident) if Arc::strong_count(resident) == 1 => {}
            _ => return None,
        }
        match std::mem::replace(&mut *seat, Seat::OnDisk) {
            Seat::Loaded(resident) => Some(resident),
            Seat::OnDisk | Seat::Failed(_) => None,
        }
    }

    pub(super) fn install(&self, resident: Arc<Resident>, now: u64) -> Arc<Resident> {
        self.needed_bytes.store(resident.n_bytes, Ordering::Relaxed);
        self.used.fetch_max(now, Ordering::Relaxed);
        *self.seat() = Seat::Loaded(Arc::clone(&resident));
        resident
    }

    pub(super) fn note_failure(&self, error: &FleetError) {
        *self.seat() = Seat::Failed(error.to_string());
    }

    pub(super) fn told(&self) -> Told {
        let (state, parts, failure) = match &*self.seat() {
            Seat::OnDisk => (MemberState::OnDisk, None, None),
            Seat::Loaded(resident) => (MemberState::Loaded, Some(resident.parts.clone()), None),
            Seat::Failed(message) => (MemberState::Failed, None, Some(message.clone())),
        };
        let on_disk = |(name, _): &(String, PathBuf)| Served {
            name: name.clone(),
            created: 0,
            generation: 0,
            is_pinned: false,
            state: "on_disk",
            adapter: None,
            failure: None,
        };
        Told {
            name: self.name.clone(),
            state,
            created: parts.as_ref().map_or(0, |parts| parts.model.created),
            n_bytes: self.needed_bytes(),
            failure,
            adapters: match &parts {
                Some(parts) => parts.adapters.list(),
                None => self.adapters.iter().map(on_disk).collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_memory_takes_none() {
        let source = ModelSource {
            path: PathBuf::from("/m"),
            name: "m".to_owned(),
        };
        let adapters = vec![("one".to_owned(), PathBuf::from("/a"))];
        let member = Member::new("m".to_owned(), source, adapters, 7);
        assert_eq!((member.needed_bytes(), member.bytes_in_memory()), (7, 0));
        assert!(member.evict().is_none() && member.lease(3).is_none());
        assert_eq!(member.last_used(), 3);
        member.note_failure(&FleetError::Closing);
        let told = member.told();
        assert_eq!((told.state.word(), told.adapters.len()), ("failed", 1));
        assert!(member.has_adapter("one") && !member.has_adapter("two"));
    }
}
