//! Barriers in shared memory (`mbarrier`), and the bulk copies that count at them. A copy
//! happens as late as it may: when somebody waits for its barrier. Until then its destination
//! must not be touched.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::clocks::Moment;
use super::context::Context;
use super::fences::Covers;
use super::shared::{Actor, Write};
use super::traffic;
use crate::fault::{FaultKind, Space};

/// Bytes of a barrier, and what bulk copies and their ends are aligned to.
const BYTES: usize = 8;
const BULK: usize = 16;

/// The last write of a thread of the block to each word of global memory: by whom and when.
pub(super) type GlobalWrites = HashMap<u64, (u32, u32)>;

/// One bulk copy that has not happened.
#[derive(Debug)]
struct Bulk {
    to: u64,
    from: u64,
    len: usize,
    actor: Actor,
}

/// One barrier.
#[derive(Debug, Default)]
pub(super) struct Mbarrier {
    expected: u32,
    pending: u32,
    /// Bytes announced that have not come; below zero, come that were not announced.
    missing: i64,
    phase: u64,
    moment: Moment,
    /// What the phase that ended last published.
    ended: Moment,
    copies: VecDeque<Bulk>,
    /// The thread that initialised it, and when.
    init: (u32, u32),
    /// What brings the bytes of its copies; its index among all of the clocks.
    agent: u8,
    clock: usize,
}

/// The barriers of a block by address.
pub(super) type Mbarriers = BTreeMap<u64, Mbarrier>;

impl Mbarrier {
    /// Begins the next phase if this one is complete.
    fn advance(&mut self) {
        if self.pending == 0 && self.missing == 0 {
            let time = self.time();
            self.phase += 1;
            self.pending = self.expected;
            self.ended = std::mem::take(&mut self.moment);
            self.ended.resize(self.ended.len().max(self.clock + 1), 0);
            self.ended[self.clock] = time;
        }
    }

    /// When copies of this phase come, for whoever waits for its end.
    fn time(&self) -> u32 {
        self.phase as u32 + 1
    }

    /// A copy that nobody has waited for: its thread and line.
    pub(super) fn unfinished(&self) -> Option<(u32, u32)> {
        let copy = self.copies.front()?;
        Some((copy.actor.thread, copy.actor.line))
    }

    /// What its phase waits for.
    pub(super) fn state(&self) -> String {
        let (phase, expected) = (self.phase, self.expected);
        let arrived = expected - self.pending;
        let bytes = match self.missing {
            0 => String::new(),
            n if n > 0 => format!(", {n} bytes announced did not come"),
            n => format!(", {} bytes came that were not announced", -n),
        };
        format!("phase {phase}: {arrived} of {expected} arrivals{bytes}")
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// The phase of that parity: the one that runs, or the one before.
    Parity(bool),
    /// The phase that ran when a thread arrived.
    Token(u64),
}

fn wrong(address: u64, what: impl Into<String>) -> FaultKind {
    let what = what.into();
    FaultKind::Mbarrier { address, what }
}

impl Context<'_> {
    /// The barrier at an address, whose initialisation lies in the past of the warp.
    fn mbarrier(&mut self, address: u64) -> Result<&mut Mbarrier, FaultKind> {
        let warp = self.warp;
        let Some(barrier) = self.shared.mbarriers.get_mut(&address) else {
            return Err(wrong(address, "none was initialised here"));
        };
        let (thread, time) = barrier.init;
        if !self.shared.clocks.ordered(warp, thread as usize / 32, time) {
            let other = format!("its initialisation by thread {thread}");
            let access = "use of an mbarrier";
            return Err(FaultKind::Race {
                address,
                access,
                other,
            });
        }
        Ok(barrier)
    }

    pub(crate) fn mbarrier_init(
        &mut self,
        lane: usize,
        address: u64,
        expected: u32,
    ) -> Result<(), FaultKind> {
        if !(1..1 << 20).contains(&expected) {
            return Err(wrong(address, format!("for {expected} arrivals")));
        }
        if self.shared.mbarriers.contains_key(&address) {
            return Err(wrong(address, "initialised again without mbarrier.inval"));
        }
        let actor = self.actor(lane);
        self.shared
            .write(actor, address, BYTES, BYTES, Write::Object)?;
        let clock = self.shared.clocks.add_agent();
        let Ok(agent) = u8::try_from(clock - self.shared.clocks.n_warps()) else {
            let what = "more than 256 initialisations of barriers in a block".to_owned();
            return Err(FaultKind::Unsupported { what });
        };
        let barrier = Mbarrier {
            expected,
            pending: expected,
            init: (actor.thread, self.shared.clocks.now(self.warp)),
            agent,
            clock,
            ..Mbarrier::default()
        };
        self.shared.mbarriers.insert(address, barrier);
        Ok(())
    }

    /// The memory is free for other uses, and holds nothing.
    pub(crate) fn mbarrier_inval(&mut self, address: u64) -> Result<(), FaultKind> {
        if !self.mbarrier(address)?.copies.is_empty() {
            return Err(wrong(address, "invalidated while copies are in flight"));
        }
        self.shared.mbarriers.remove(&address);
        self.shared.forget(address, BYTES);
        Ok(())
    }

    /// Announces bytes, then arrives so many times; gives the phase that it arrived in.
    pub(crate) fn mbarrier_arrive(
        &mut self,
        address: u64,
        n_arrivals: u32,
        n_bytes: u32,
    ) -> Result<u64, FaultKind> {
        let warp = self.warp;
        let barrier = self.mbarrier(address)?;
        let phase = barrier.phase;
        barrier.missing += i64::from(n_bytes);
        let Some(pending) = barrier.pending.checked_sub(n_arrivals) else {
            let what = format!("more arrivals than the {} expected", barrier.expected);
            return Err(wrong(address, what));
        };
        barrier.pending = pending;
        if n_arrivals > 0 {
            let mut moment = std::mem::take(&mut barrier.moment);
            self.shared.clocks.release(warp, &mut moment);
            self.mbarrier(address)?.moment = moment;
        }
        self.mbarrier(address)?.advance();
        Ok(phase)
    }

    /// Takes announced bytes for come.
    pub(crate) fn mbarrier_complete(
        &mut self,
        address: u64,
        n_bytes: u32,
    ) -> Result<(), FaultKind> {
        let barrier = self.mbarrier(address)?;
        barrier.missing -= i64::from(n_bytes);
        barrier.advance();
        Ok(())
    }

    /// Whether a phase has ended, once the copies that can end it have happened; what it
    /// published is then known to the warp.
    pub(crate) fn mbarrier_wait(&mut self, address: u64, phase: Phase) -> Result<bool, FaultKind> {
        loop {
            let barrier = self.mbarrier(address)?;
            let ended = match phase {
                Phase::Parity(odd) => (barrier.phase & 1 == 1) != odd,
                Phase::Token(token) => barrier.phase > token,
            };
            if ended {
                let moment = barrier.ended.clone();
                self.shared.clocks.acquire(self.warp, &moment);
                return Ok(true);
            }
            let Some(copy) = barrier.copies.pop_front() else {
                return Ok(false);
            };
            self.happen(address, copy)?;
        }
    }

    /// Asks for a bulk copy.
    pub(crate) fn bulk_copy(
        &mut self,
        lane: usize,
        (to, from): (u64, u64),
        len: usize,
        address: u64,
    ) -> Result<(), FaultKind> {
        let aligned = |space, at: u64| {
            let whole = at.is_multiple_of(BULK as u64) && len.is_multiple_of(BULK);
            let fault = FaultKind::Misaligned {
                space,
                address: at,
                len,
            };
            whole.then_some(()).ok_or(fault)
        };
        aligned(Space::Shared, to)?;
        aligned(Space::Global, from)?;
        self.memory.span(from, len, BULK)?;
        let init = self.mbarrier(address)?.init;
        if !self.shared.is_fenced(self.warp, init, Covers::OBJECTS) {
            let (space, writer) = (Space::Shared, init.0);
            return Err(FaultKind::ProxyFence {
                space,
                address,
                writer,
            });
        }
        self.check_source(from, len)?;
        let actor = self.actor(lane);
        let bytes = self.shared.write(actor, to, len, BULK, Write::Begin)?;
        bytes.fill(0xFF);
        let copy = Bulk {
            to,
            from,
            len,
            actor,
        };
        self.mbarrier(address)?.copies.push_back(copy);
        self.counters.bulk_copies += 1;
        traffic::bulk(self.counters, from, len);
        Ok(())
    }

    /// What threads of the block wrote to global memory is fenced for a copy that reads it.
    fn check_source(&self, from: u64, len: usize) -> Result<(), FaultKind> {
        let Some(writes) = self.global_writes.as_ref().filter(|all| !all.is_empty()) else {
            return Ok(());
        };
        let words = from / 4..(from + len as u64) / 4;
        let unfenced = words.into_iter().find_map(|word| {
            let wrote = *writes.get(&word)?;
            let known = self.shared.is_fenced(self.warp, wrote, Covers::GLOBAL);
            (!known).then_some((4 * word, wrote.0))
        });
        match unfenced {
            None => Ok(()),
            Some((address, writer)) => Err(FaultKind::ProxyFence {
                space: Space::Global,
                address,
                writer,
            }),
        }
    }

    /// Notes that a lane writes to global memory, if the kernel has copies that may read it.
    pub(super) fn note_global_write(&mut self, lane: usize, address: u64, len: usize) {
        let thread = self.actor(lane).thread;
        let now = self.shared.clocks.now(self.warp);
        if let Some(writes) = &mut *self.global_writes {
            let words = address / 4..(address + len as u64).div_ceil(4);
            writes.extend(words.map(|word| (word, (thread, now))));
        }
    }

    fn happen(&mut self, address: u64, copy: Bulk) -> Result<(), FaultKind> {
        let mut bytes = vec![0; copy.len];
        let poisoned = self.memory.read(copy.from, &mut bytes)?;
        if let Some(at) = poisoned
            && self.strict_global
        {
            return Err(FaultKind::Uninitialised {
                space: Space::Global,
                address: copy.from + at as u64,
                len: copy.len,
            });
        }
        let barrier = self.mbarrier(address)?;
        let by = (barrier.agent, barrier.time());
        self.shared.arrived(copy.to, &bytes, by);
        let barrier = self.mbarrier(address)?;
        barrier.missing -= copy.len as i64;
        barrier.advance();
        Ok(())
    }

    /// `fence.proxy.async`: what these lanes wrote before is there for products and bulk copies.
    pub(crate) fn proxy_fence(&mut self, lanes: u32, covers: Covers) {
        let shared = &mut *self.shared;
        shared
            .fences
            .add(&mut shared.clocks, self.warp, lanes, covers);
    }
}
