//! What is known of each adapter, and which are in memory. Policy only: nothing here reads files
//! or waits.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use models::Adapter;
use scheduler::AdapterId;

use super::disk::{self, Stamp};
use super::lease::Lease;

/// Stacks of several adapters that are kept ready.
const MAX_STACKS: usize = 64;

/// Who made an adapter known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    CommandLine,
    Directory,
    Request,
}

/// An adapter by its name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) origin: Origin,
    pub(super) is_pinned: bool,
    /// Counts contents that the name has had.
    pub(super) generation: u64,
    pub(super) state: State,
    /// As of the load or failure; `None` before.
    pub(super) stamp: Option<Stamp>,
    /// Files that could not take the place of what is in memory, and why.
    pub(super) refused: Option<(Stamp, String)>,
    /// When the files were last compared with the stamp.
    pub(super) compared: Option<Instant>,
    /// Held by whoever loads it.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Seconds of Unix time at which it was made known.
    pub(super) created: u64,
    last_used: u64,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    OnDisk,
    Loaded {
        adapter: Arc<Adapter>,
        lease: Arc<Lease>,
    },
    Failed(String),
}

impl Entry {
    /// Whether the files differ from all that was tried of them.
    pub(super) fn has_changed(&self) -> bool {
        let Some(tried) = &self.stamp else {
            return false;
        };
        let now = Stamp::of(&self.path);
        let is_refused = self
            .refused
            .as_ref()
            .is_some_and(|(stamp, _)| *stamp == now);
        *tried != now && !is_refused
    }

    /// Whether its files have left the directory that they were found in. Pinned adapters stay.
    pub(super) fn is_gone(&self) -> bool {
        self.origin == Origin::Directory && !self.is_pinned && disk::is_gone(&self.path)
    }
}

/// A stack by its content: digests and weights.
pub(super) type StackKey = Vec<([u8; 32], u32)>;

/// How much may be in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_loaded: usize,
    pub(super) max_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: BTreeMap<String, Entry>,
    /// The one used last comes last.
    stacks: VecDeque<(StackKey, Arc<Lease>)>,
    next_id: u32,
    clock: u64,
}

impl Registry {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// Of all that is in memory, stacks as well.
    pub(super) fn leases(&self) -> Vec<Arc<Lease>> {
        let entries = self.entries.values();
        let loaded = entries.filter_map(|entry| match &entry.state {
            State::Loaded { lease, .. } => Some(lease),
            _ => None,
        });
        let stacks = self.stacks.iter().map(|(_, lease)| lease);
        loaded.chain(stacks).cloned().collect()
    }

    /// An id that was never used.
    pub(super) fn next_id(&mut self) -> AdapterId {
        self.next_id += 1;
        AdapterId(self.next_id)
    }

    /// Makes a name known, unless it is.
    pub(super) fn add(&mut self, name: &str, path: PathBuf, origin: Origin, created: u64) {
        self.entries.entry(name.to_owned()).or_insert(Entry {
            path,
            origin,
            is_pinned: false,
            generation: 0,
            state: State::OnDisk,
            stamp: None,
            refused: None,
            compared: None,
            turn: Arc::default(),
            created,
            last_used: 0,
        });
    }

    /// Forgets a name. Requests that run keep what they have.
    pub(super) fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        if let State::Loaded { adapter, .. } = &entry.state {
            self.forget_stacks(adapter.digest());
        }
        Some(entry)
    }

    /// Names of all whose files have changed.
    pub(super) fn changed(&self) -> Vec<String> {
        let changed = self.entries.iter().filter(|(_, entry)| entry.has_changed());
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets all whose files have left the directory.
    pub(super) fn remove_gone(&mut self) {
        let gone = self.entries.iter().filter(|(_, entry)| entry.is_gone());
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            tracing::info!(adapter = name, "has left the directory of adapters");
            self.remove(name);
        }
    }

    /// Takes an adapter out of memory; the next request loads it again.
    pub(super) fn put_back(&mut self, name: &str) {
        self.set(name, State::OnDisk);
    }

    /// Changes what a name stands for.
    fn set(&mut self, name: &str, state: State) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let before = std::mem::replace(&mut entry.state, state);
        if let State::Loaded { adapter, .. } = before {
            self.forget_stacks(adapter.digest());
        }
    }

    /// What is loaded under a name, which counts as a use.
    pub(super) fn use_loaded(&mut self, name: &str) -> Option<(Arc<Adapter>, Arc<Lease>)> {
        self.clock += 1;
        let entry = self.entries.get_mut(name)?;
        let State::Loaded { adapter, lease } = &entry.state else {
            return None;
        };
        entry.last_used = self.clock;
        Some((Arc::clone(adapter), Arc::clone(lease)))
    }

    /// Puts a new generation in the place of whatever the name had, and makes room for it.
    /// Returns how many adapters had to go.
    pub(super) fn install(
        &mut self,
        name: &str,
        adapter: Arc<Adapter>,
        lease: Arc<Lease>,
        stamp: Stamp,
        limits: Limits,
    ) -> usize {
        self.clock += 1;
        let last_used = self.clock;
        let Some(entry) = self.entries.get_mut(name) else {
            return 0;
        };
        entry.last_used = last_used;
        entry.stamp = Some(stamp);
        entry.refused = None;
        entry.generation += 1;
        self.set(name, State::Loaded { adapter, lease });
        self.make_room(name, limits)
    }

    /// Lets those go that were not used for longest, but for `kept` and pinned ones.
    fn make_room(&mut self, kept: &str, limits: Limits) -> usize {
        let mut n_evicted = 0;
        loop {
            let (n_loaded, n_bytes) = self.loaded();
            if n_loaded <= limits.max_loaded && n_bytes <= limits.max_bytes {
                return n_evicted;
            }
            let candidates = self.entries.iter().filter(|(name, entry)| {
                let is_loaded = matches!(entry.state, State::Loaded { .. });
                is_loaded && !entry.is_pinned && name.as_str() != kept
            });
            let Some((name, _)) = candidates.min_by_key(|(_, entry)| entry.last_used) else {
                return n_evicted;
            };
            self.put_back(&name.clone());
            n_evicted += 1;
        }
    }

    /// How many adapters are in memory, and their bytes.
    pub(super) fn loaded(&self) -> (usize, u64) {
        let loaded = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                State::Loaded { adapter, .. } => Some(adapter.n_bytes() as u64),
                _ => None,
            });
        loaded.fold((0, 0), |(n, sum), n_bytes| (n + 1, sum + n_bytes))
    }

    /// The stack of this content, which counts as a use.
    pub(super) fn stack(&mut self, key: &StackKey) -> Option<Arc<Lease>> {
        let i = self.stacks.iter().position(|(own, _)| own == key)?;
        let stack = self.stacks.remove(i)?;
        let lease = Arc::clone(&stack.1);
        self.stacks.push_back(stack);
        Some(lease)
    }

    /// Keeps a stack for the next request.
    pub(super) fn keep_stack(&mut self, key: StackKey, lease: Arc<Lease>) {
        self.stacks.push_back((key, lease));
        if self.stacks.len() > MAX_STACKS {
            self.stacks.pop_front();
        }
    }

    /// A stack would keep the memory of an adapter that is gone.
    fn forget_stacks(&mut self, digest: [u8; 32]) {
        self.stacks
            .retain(|(key, _)| key.iter().all(|(own, _)| *own != digest));
    }
}
