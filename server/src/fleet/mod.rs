//! Several models in one process: which there are, which are in memory, and how those that are
//! asked for come into it.
//!
//! The first model is always there and no member of the fleet. Others are loaded as far as the
//! budget reaches, and beyond it when they are first asked for; those not used for longest make
//! room, but never while anything of them runs. Each has an engine, a scheduler, a KV cache and a
//! queue of its own, and the steps of all engines take turns.

mod build;
mod error;
mod member;
mod together;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

pub use build::{Builder, Parts};
pub use error::FleetError;
pub use member::{MemberState, Resident, Told};

use crate::adapters::{Choice, Names, loader};
use crate::engine::EngineHandle;
use crate::load::Footprint;
use crate::metrics::Rejection;
use crate::openai::ApiError;
use build::Reading;
use member::Member;
use together::Together;

/// All models but the first. Clones are the same.
#[derive(Clone, Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    builder: Builder,
    /// Of the first model; a request goes back to it from another's state.
    first: Parts,
    first_footprint: Footprint,
    budget_bytes: u64,
    /// One load at a time: more would take cores from the streams that run, and memory twice.
    loading: Arc<AsyncMutex<()>>,
    /// Places of requests that wait for a load: no queue of an engine counts them yet.
    waiting: Semaphore,
    /// Counts requests; who has the smallest number was used least recently.
    clock: AtomicU64,
    is_closing: AtomicBool,
}

impl Fleet {
    /// Loads as many of the models that the settings name as the budget has room for, in their
    /// order. Blocks.
    ///
    /// # Errors
    /// A model cannot be read, or not even alone be held beside the first one.
    pub fn open(builder: Builder, first: Parts, footprint: Footprint) -> Result<Self, FleetError> {
        let budget_bytes = builder.budget_bytes();
        let members = builder.members()?;
        for member in &members {
            let (needed, first) = (member.n_bytes(), footprint.n_bytes());
            if first.saturating_add(needed) > budget_bytes {
                return Err(FleetError::TooLarge {
                    name: member.name.clone(),
                    needed,
                    first,
                    budget: budget_bytes,
                });
            }
        }
        let shared = Shared {
            members,
            waiting: Semaphore::new(builder.max_waiting()),
            builder,
            first,
            first_footprint: footprint,
            budget_bytes,
            loading: Arc::default(),
            clock: AtomicU64::new(1),
            is_closing: AtomicBool::new(false),
        };
        for (i, member) in shared.members.iter().enumerate() {
            if shared.bytes_with(member) > budget_bytes {
                tracing::info!(model = member.name, "is loaded when it is first asked for");
                continue;
            }
            shared.bring(i, Reading::AtStart)?;
        }
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Names of all members.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.shared.members.iter().map(|member| &member.name)
    }

    /// What is told of each.
    pub fn list(&self) -> Vec<Told> {
        self.shared.members.iter().map(Member::told).collect()
    }

    /// What a name that is no alias stands for, if it is a member's or that of adapters of one:
    /// the member, and the choice.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, Result<Choice, ApiError>)> {
        let i = self.shared.members.iter().position(|member| {
            let rest = name.strip_prefix(member.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })?;
        let member = &self.shared.members[i];
        let names = Names {
            base: std::slice::from_ref(&member.name),
            meant: &|_| None,
            is_adapter: &|adapter| member.has_adapter(adapter),
            told: &Vec::new,
        };
        // Adapters are called by their model: a bare name is one of the first model's.
        Some((i, Choice::of_model(name, &names)))
    }

    /// The first model.
    pub(crate) fn first(&self) -> &Parts {
        &self.shared.first
    }

    /// A member in memory, loaded if need be. It stays there as long as the result is held.
    pub(crate) async fn lease(&self, i: usize) -> Result<Arc<Resident>, FleetError> {
        let member = &self.shared.members[i];
        let now = self.shared.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(resident) = member.lease(now) {
            return Ok(resident);
        }
        let n_failures = member.n_failures();
        let _place = self.shared.place_to_wait()?;
        let turn = Arc::clone(&self.shared.loading).lock_owned().await;
        // Whoever waited for the same load finds it done.
        if let Some(resident) = member.lease(now) {
            return Ok(resident);
        }
        // Or that it failed. If all of them tried it again, they would take turns for long.
        if let Some(error) = member.failure_since(n_failures) {
            return Err(error);
        }
        let shared = Arc::clone(&self.shared);
        let brought = loader::beside(move || {
            let brought = shared.bring(i, Reading::BesideSteps);
            // A client that has hung up does not let another load begin beside this one.
            drop(turn);
            brought
        });
        let failed = |error: std::io::Error| FleetError::Failed {
            name: member.name.clone(),
            message: error.to_string(),
        };
        brought.await.map_err(failed)?
    }

    /// Engines of all that are in memory, by name.
    pub fn engines(&self) -> impl Iterator<Item = (&String, EngineHandle)> {
        let members = self.shared.members.iter();
        members.filter_map(|member| Some((&member.name, member.engine()?)))
    }

    /// Whether the engine of one of them has ended for whatever reason.
    pub fn has_stopped(&self) -> bool {
        !self.shared.is_closing.load(Ordering::Acquire)
            && self.engines().any(|(_, engine)| engine.has_stopped())
    }

    /// Why the engine of one of them gave up, if one did.
    pub fn stop_reason(&self) -> Option<String> {
        let mut engines = self.engines();
        engines.find_map(|(_, engine)| engine.stop_reason().map(str::to_owned))
    }

    /// Refuses new requests and loads; those that were admitted go on.
    pub fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
        for (_, engine) in self.engines() {
            engine.close();
        }
    }

    /// Ends everything that runs or waits.
    pub fn cancel_all(&self) {
        for (_, engine) in self.engines() {
            engine.cancel_all();
        }
    }

    /// Ends all engines. Blocks until the steps in progress are done.
    pub fn stop(&self) {
        self.close();
        self.shared.members.iter().for_each(Member::stop);
    }

    /// Bytes of all models in memory, and of the most that there may be.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.bytes_in_memory(), self.shared.budget_bytes)
    }
}

impl Shared {
    /// What several models have in common is counted once.
    fn bytes_in_memory(&self) -> u64 {
        let others = self.members.iter().map(Member::rest_bytes).sum::<u64>();
        self.first_footprint.rest_bytes + others + self.builder.shared.n_bytes()
    }

    fn bytes_with(&self, member: &Member) -> u64 {
        let needed = member.needed_bytes(&self.builder.shared);
        self.bytes_in_memory().saturating_add(needed)
    }

    /// A place among those who wait for loads.
    fn place_to_wait(&self) -> Result<SemaphorePermit<'_>, FleetError> {
        self.waiting.try_acquire().map_err(|_| {
            self.first.metrics.count_rejected(Rejection::Requests);
            FleetError::Overloaded {
                n_requests: self.builder.max_waiting(),
            }
        })
    }

    /// Loads a member once there is room for it. Blocks.
    fn bring(&self, i: usize, reading: Reading) -> Result<Arc<Resident>, FleetError> {
        let member = &self.members[i];
        if self.is_closing.load(Ordering::Acquire) {
            return Err(FleetError::Closing);
        }
        self.make_room(member)?;
        let resident = match self.builder.build(member, reading) {
            Ok(resident) => Arc::new(resident),
            Err(error) => {
                tracing::error!(model = member.name, %error, "a model could not be loaded");
                member.note_failure(&error);
                return Err(error);
            }
        };
        // The shutdown may have gone by while it was loaded.
        if self.is_closing.load(Ordering::Acquire) {
            resident.stop();
            return Err(FleetError::Closing);
        }
        tracing::info!(
            model = member.name,
            n_bytes = resident.footprint().n_bytes(),
            "loaded"
        );
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        Ok(member.install(resident, now))
    }

    /// Unloads models that nobody uses, the least recently used first, until `member` fits.
    fn make_room(&self, member: &Member) -> Result<(), FleetError> {
        let fits = || self.bytes_with(member) <= self.budget_bytes;
        let first = &self.first_footprint;
        // What is left when all have gone that can go, and the member beside it.
        let mut least = Together::new();
        least.add(first.rest_bytes, &first.matrices);
        for other in &self.members {
            other.count_busy(&mut least);
        }
        member.count_own(&mut least);
        // Nobody loses a place for one that does not fit after all.
        if least.n_bytes() > self.budget_bytes {
            return Err(FleetError::NoRoom {
                name: member.name.clone(),
            });
        }
        let mut idle: Vec<&Member> = self.members.iter().filter(|m| m.is_idle()).collect();
        idle.sort_by_key(|member| member.last_used());
        for victim in idle {
            if fits() {
                return Ok(());
            }
            if let Some(resident) = victim.evict() {
                tracing::info!(model = victim.name, "unloaded to make room");
                resident.stop();
            }
        }
        if fits() {
            return Ok(());
        }
        // One of them was asked for in between.
        Err(FleetError::NoRoom {
            name: member.name.clone(),
        })
    }
}

/// Engines are stopped once, by whoever comes first.
type Once<T> = Mutex<Option<T>>;
