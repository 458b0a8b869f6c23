//! One of several models, in memory or not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use models::SharedWeights;

use super::{FleetError, Once, Parts, Together};
use crate::adapters::Served;
use crate::engine::{Engine, EngineHandle};
use crate::load::Footprint;
use crate::source::ModelSource;

/// A model that is known, whether it is in memory or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) source: ModelSource,
    /// Its adapters' names and files.
    pub(super) adapters: Vec<(String, PathBuf)>,
    seat: Mutex<Seat>,
    /// Loads of it that failed.
    n_failures: AtomicU64,
    used: AtomicU64,
    /// Before it was loaded once.
    estimated_bytes: u64,
    /// Since it was loaded once.
    footprint: Mutex<Option<Footprint>>,
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
    footprint: Footprint,
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
    pub(super) fn new(parts: Parts, engine: Engine, footprint: Footprint) -> Self {
        Self {
            parts,
            engine: Mutex::new(Some(engine)),
            footprint,
        }
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub fn footprint(&self) -> &Footprint {
        &self.footprint
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
        estimated_bytes: u64,
    ) -> Self {
        Self {
            name,
            source,
            adapters,
            seat: Mutex::new(Seat::OnDisk),
            n_failures: AtomicU64::new(0),
            used: AtomicU64::new(0),
            estimated_bytes,
            footprint: Mutex::default(),
        }
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_adapter(&self, name: &str) -> bool {
        self.adapters.iter().any(|(own, _)| own == name)
    }

    /// Bytes that it has or would have by itself.
    pub(super) fn n_bytes(&self) -> u64 {
        let footprint = self.footprint();
        footprint
            .as_ref()
            .map_or(self.estimated_bytes, Footprint::n_bytes)
    }

    /// Bytes that it would add to what is in memory.
    pub(super) fn needed_bytes(&self, shared: &SharedWeights) -> u64 {
        match &*self.footprint() {
            Some(footprint) => footprint.rest_bytes + shared.missing_bytes(&footprint.matrices),
            None => self.estimated_bytes,
        }
    }

    fn footprint(&self) -> MutexGuard<'_, Option<Footprint>> {
        self.footprint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// Bytes in memory that no other model has.
    pub(super) fn rest_bytes(&self) -> u64 {
        match &*self.seat() {
            Seat::Loaded(resident) => resident.footprint.rest_bytes,
            _ => 0,
        }
    }

    /// Counts what it has in memory if it is used; what nobody uses can be unloaded.
    pub(super) fn count_busy(&self, together: &mut Together) {
        match &*self.seat() {
            Seat::Loaded(resident) if Arc::strong_count(resident) > 1 => {
                let footprint = &resident.footprint;
                together.add(footprint.rest_bytes, &footprint.matrices);
            }
            _ => {}
        }
    }

    /// Counts what it would have in memory.
    pub(super) fn count_own(&self, together: &mut Together) {
        match &*self.footprint() {
            Some(footprint) => together.add(footprint.rest_bytes, &footprint.matrices),
            None => together.add(self.estimated_bytes, &[]),
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
        *self.footprint() = Some(resident.footprint.clone());
        self.used.fetch_max(now, Ordering::Relaxed);
        *self.seat() = Seat::Loaded(Arc::clone(&resident));
        resident
    }

    pub(super) fn note_failure(&self, error: &FleetError) {
        *self.seat() = Seat::Failed(error.to_string());
        // The last: whoever sees the number finds the failure.
        self.n_failures.fetch_add(1, Ordering::Release);
    }

    /// Loads of it that failed until now.
    pub(super) fn n_failures(&self) -> u64 {
        self.n_failures.load(Ordering::Acquire)
    }

    /// The last failure, if there was one since [`n_failures`](Self::n_failures) were counted.
    pub(super) fn failure_since(&self, n_failures: u64) -> Option<FleetError> {
        if self.n_failures() == n_failures {
            return None;
        }
        match &*self.seat() {
            Seat::Failed(message) => Some(FleetError::FailedMeanwhile {
                name: self.name.clone(),
                message: message.clone(),
            }),
            Seat::OnDisk | Seat::Loaded(_) => None,
        }
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
            n_bytes: self.n_bytes(),
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

    fn member() -> Member {
        let source = ModelSource {
            path: PathBuf::from("/m"),
            name: "m".to_owned(),
        };
        let adapters = vec![("one".to_owned(), PathBuf::from("/a"))];
        Member::new("m".to_owned(), source, adapters, 7)
    }

    #[test]
    fn only_who_waited_for_a_load_is_told_of_its_failure() {
        let member = member();
        let before = member.n_failures();
        assert!(member.failure_since(before).is_none());
        let failed = FleetError::Failed {
            name: "m".to_owned(),
            message: "no such file".to_owned(),
        };
        member.note_failure(&failed);
        let told = member.failure_since(before).unwrap();
        assert_eq!(told.to_string(), failed.to_string());
        // Who comes later tries again.
        assert!(member.failure_since(member.n_failures()).is_none());
    }

    #[test]
    fn room_is_counted_for_what_is_used_and_what_is_to_come() {
        let (member, mut together) = (member(), Together::new());
        member.count_busy(&mut together);
        assert_eq!(together.n_bytes(), 0);
        member.count_own(&mut together);
        assert_eq!(together.n_bytes(), 7, "an estimate");
        *member.footprint() = Some(Footprint {
            matrices: Vec::new(),
            rest_bytes: 9,
        });
        member.count_own(&mut together);
        assert_eq!(together.n_bytes(), 16, "known since it was loaded");
    }

    #[test]
    fn what_is_not_in_memory_takes_none() {
        let member = member();
        let needed = member.needed_bytes(&SharedWeights::default());
        assert_eq!((needed, member.n_bytes(), member.rest_bytes()), (7, 7, 0));
        assert!(member.evict().is_none() && member.lease(3).is_none());
        assert_eq!(member.last_used(), 3);
        member.note_failure(&FleetError::Closing);
        let told = member.told();
        assert_eq!((told.state.word(), told.adapters.len()), ("failed", 1));
        assert!(member.has_adapter("one") && !member.has_adapter("two"));
    }
}
