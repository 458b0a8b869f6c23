//! A block's shared memory. Each word knows who wrote it and who has read it since, so that
//! uninitialised reads, races and copies in flight are seen; words accessed by parts are
//! followed byte by byte.

use std::collections::HashMap;

use super::clocks::Clocks;
use super::fences::{Covers, Fences};
use super::mbarrier::Mbarriers;
use crate::fault::{FaultKind, Space};
use crate::registers::lanes;

/// Bytes between variables that nobody may touch.
pub(crate) const GUARD: usize = 128;

/// Where static variables lie, and where dynamic memory begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPlan {
    /// Name, address and size.
    pub(crate) variables: Vec<(String, usize, usize)>,
    pub(crate) dynamic_at: usize,
    /// Bytes of static variables, without guards.
    pub(crate) static_bytes: usize,
}

const IN_FLIGHT: u8 = 1;
const ATOMIC: u8 = 2;
const SPLIT: u8 = 4;
const GUARDED: u8 = 8;
/// Written by a bulk copy, which products see without a fence; by whom and when is that of the
/// agent of its barrier.
const BULK: u8 = 16;
/// Part of a barrier.
const OBJECT: u8 = 32;

/// Readers' times differ and are kept aside.
const SPILLED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Thread of the last write, from 1; 0 when there was none.
    writer: u16,
    flags: u8,
    /// Of the barrier of a bulk copy, counted from the first.
    agent: u8,
    /// When and on which line of PTX it wrote.
    write_time: u32,
    write_line: u32,
    /// Warps that read since, and when.
    readers: u32,
    read_time: u32,
}

/// Who accesses: a thread at an instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor {
    pub(crate) warp: usize,
    pub(crate) thread: u32,
    pub(crate) line: u32,
}

/// The kinds of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Plain,
    Atomic,
    /// The issue of an asynchronous copy: the bytes are undefined until it completes.
    Begin,
    /// A barrier comes to lie here.
    Object,
}

/// Whether a read by products is only checked: they read again when they are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnoted {
    Yes,
    No,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    /// For each byte, where its word's cell is split.
    fine: Vec<Cell>,
    /// Times of readers by cell and warp, where they differ.
    spilled: HashMap<(bool, usize), [u32; 32]>,
    plan: SharedPlan,
    pub(super) clocks: Clocks,
    pub(super) mbarriers: Mbarriers,
    pub(super) fences: Fences,
}

impl Shared {
    pub(super) fn new(plan: &SharedPlan, dynamic: usize, n_warps: usize) -> Self {
        let len = plan.dynamic_at + dynamic;
        Self {
            bytes: vec![0xFF; len],
            cells: vec![Cell::default(); len.div_ceil(4)],
            plan: plan.clone(),
            clocks: Clocks::new(n_warps),
            fences: Fences::new(n_warps),
            ..Self::default()
        }
    }

    /// As new, for the next block.
    pub(super) fn reset(&mut self) {
        self.cells.fill(Cell::default());
        self.spilled.clear();
        self.clocks.reset();
        self.mbarriers.clear();
        self.fences.clear();
        let mut end = 0;
        let variables = self.plan.variables.iter().map(|(_, at, len)| (*at, *len));
        for (at, len) in variables.chain([(self.plan.dynamic_at, 0)]) {
            for cell in &mut self.cells[usize::div_ceil(end, 4)..at / 4] {
                cell.flags = GUARDED;
            }
            end = at + len;
        }
    }

    fn out_of_bounds(&self, address: u64, len: usize) -> FaultKind {
        let at = address as usize;
        let mut variables = self.plan.variables.iter();
        let before = variables.rfind(|(_, begin, _)| *begin <= at);
        let near = match before {
            Some((name, begin, size)) if at < self.plan.dynamic_at => {
                format!("offset {} of `{name}`, which has {size} bytes", at - begin)
            }
            _ => {
                let dynamic = self.bytes.len() - self.plan.dynamic_at;
                let offset = at.saturating_sub(self.plan.dynamic_at);
                format!("offset {offset} of {dynamic} bytes of dynamic shared memory")
            }
        };
        FaultKind::OutOfBounds {
            space: Space::Shared,
            address,
            len,
            near,
        }
    }

    /// Checks bounds and alignment.
    #[inline]
    fn locate(&self, address: u64, len: usize, align: usize) -> Result<usize, FaultKind> {
        if address & (align as u64 - 1) != 0 {
            let space = Space::Shared;
            return Err(FaultKind::Misaligned {
                space,
                address,
                len,
            });
        }
        let end = (address as usize).checked_add(len);
        if end.is_none_or(|end| end > self.bytes.len()) {
            return Err(self.out_of_bounds(address, len));
        }
        Ok(address as usize)
    }

    /// The bytes that are accessed by parts, or the words as a whole.
    fn units(at: usize, len: usize) -> (bool, std::ops::Range<usize>) {
        if at.is_multiple_of(4) && len.is_multiple_of(4) {
            (false, at / 4..(at + len) / 4)
        } else {
            (true, at..at + len)
        }
    }

    /// Checks a read of `len` bytes and notes it.
    pub(crate) fn read(
        &mut self,
        actor: Actor,
        address: u64,
        len: usize,
        align: usize,
    ) -> Result<&[u8], FaultKind> {
        let at = self.locate(address, len, align)?;
        let (by_byte, units) = Self::units(at, len);
        for unit in units {
            if by_byte {
                self.split(unit / 4);
                self.read_cell(actor, true, unit)?;
            } else if self.cells[unit].flags & SPLIT != 0 {
                for byte in 4 * unit..4 * unit + 4 {
                    self.read_cell(actor, true, byte)?;
                }
            } else {
                self.read_cell(actor, false, unit)?;
            }
        }
        Ok(&self.bytes[at..at + len])
    }

    /// Checks a read of whole words by products, which lie apart from what threads read and
    /// write: that needs fences.
    pub(crate) fn read_async(
        &mut self,
        actor: Actor,
        address: u64,
        len: usize,
        unnoted: Unnoted,
    ) -> Result<&[u8], FaultKind> {
        let at = self.locate(address, len, len)?;
        for unit in at / 4..(at + len) / 4 {
            let split = self.cells[unit].flags & SPLIT != 0;
            let units = if split {
                4 * unit..4 * unit + 4
            } else {
                unit..unit + 1
            };
            for unit in units {
                let cell = *self.cell(split, unit);
                self.read_cell(actor, split, unit)?;
                if unnoted == Unnoted::Yes {
                    *self.cell(split, unit) = cell;
                }
                let writer = u32::from(cell.writer) - 1;
                let wrote = (writer, cell.write_time);
                if cell.flags & BULK == 0 && !self.is_fenced(actor.warp, wrote, Covers::SHARED) {
                    let space = Space::Shared;
                    return Err(FaultKind::ProxyFence {
                        space,
                        address,
                        writer,
                    });
                }
            }
        }
        Ok(&self.bytes[at..at + len])
    }

    /// Whether `warp` knows of a fence by the thread that wrote, after that.
    pub(super) fn is_fenced(&self, warp: usize, wrote: (u32, u32), what: Covers) -> bool {
        self.fences.holds(&self.clocks, warp, wrote, what)
    }

    /// The bytes of a bulk copy come to where it was announced, at a time of the agent.
    pub(super) fn arrived(&mut self, address: u64, bytes: &[u8], (agent, time): (u8, u32)) {
        let at = address as usize;
        for cell in &mut self.cells[at / 4..(at + bytes.len()) / 4] {
            cell.flags = BULK;
            (cell.agent, cell.write_time) = (agent, time);
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// From here on nothing has written these words.
    pub(super) fn forget(&mut self, address: u64, len: usize) {
        let at = address as usize;
        self.cells[at / 4..(at + len) / 4].fill(Cell::default());
    }

    /// Checks a write of `len` bytes, notes it, and gives the bytes to fill.
    pub(crate) fn write(
        &mut self,
        actor: Actor,
        address: u64,
        len: usize,
        align: usize,
        kind: Write,
    ) -> Result<&mut [u8], FaultKind> {
        let at = self.locate(address, len, align)?;
        let (by_byte, units) = Self::units(at, len);
        for unit in units {
            if by_byte {
                self.split(unit / 4);
                self.write_cell(actor, true, unit, kind)?;
                continue;
            }
            if self.cells[unit].flags & SPLIT != 0 {
                for byte in 4 * unit..4 * unit + 4 {
                    self.write_cell(actor, true, byte, kind)?;
                }
                self.cells[unit] = self.fine[4 * unit];
            } else {
                self.write_cell(actor, false, unit, kind)?;
            }
        }
        Ok(&mut self.bytes[at..at + len])
    }

    /// Checks an atomic update of a word or two, which must be initialised.
    pub(crate) fn atomic(
        &mut self,
        actor: Actor,
        address: u64,
        len: usize,
    ) -> Result<&mut [u8], FaultKind> {
        let at = self.locate(address, len, len)?;
        let first = self.cells.get(at / 4).copied().unwrap_or_default();
        let known = first.flags & SPLIT != 0 || first.writer != 0;
        if !known && first.flags & GUARDED == 0 {
            return Err(self.bad_cell(first, false, at / 4));
        }
        self.write(actor, address, len, len, Write::Atomic)
    }

    /// From here on the word is followed byte by byte.
    fn split(&mut self, word: usize) {
        let cell = self.cells[word];
        if cell.flags & SPLIT != 0 {
            return;
        }
        if self.fine.is_empty() {
            self.fine = vec![Cell::default(); self.cells.len() * 4];
        }
        self.fine[4 * word..4 * word + 4].fill(cell);
        if cell.read_time == SPILLED
            && let Some(times) = self.spilled.get(&(false, word)).copied()
        {
            for byte in 4 * word..4 * word + 4 {
                self.spilled.insert((true, byte), times);
            }
        }
        self.cells[word].flags |= SPLIT;
    }

    fn cell(&mut self, fine: bool, unit: usize) -> &mut Cell {
        if fine {
            &mut self.fine[unit]
        } else {
            &mut self.cells[unit]
        }
    }

    #[inline]
    fn read_cell(&mut self, actor: Actor, fine: bool, unit: usize) -> Result<(), FaultKind> {
        let cell = *self.cell(fine, unit);
        if cell.writer == 0 || cell.flags & (IN_FLIGHT | GUARDED | OBJECT) != 0 {
            return Err(self.bad_cell(cell, fine, unit));
        }
        if !self.knows(actor.warp, cell) {
            return Err(self.unordered(cell, fine, unit, "read"));
        }
        let (now, bit) = (self.clocks.now(actor.warp), 1u32 << actor.warp);
        if cell.read_time == now {
            self.cell(fine, unit).readers |= bit;
            return Ok(());
        }
        let others = cell.readers & !bit;
        if others == 0
            || self
                .concurrent_reader(actor.warp, cell, others, fine, unit)
                .is_none()
        {
            let cell = self.cell(fine, unit);
            (cell.readers, cell.read_time) = (bit, now);
            return Ok(());
        }
        let times = self.spilled.entry((fine, unit)).or_insert([0; 32]);
        if cell.read_time != SPILLED {
            lanes(cell.readers).for_each(|warp| times[warp] = cell.read_time);
        }
        times[actor.warp] = now;
        let cell = self.cell(fine, unit);
        cell.readers |= bit;
        cell.read_time = SPILLED;
        Ok(())
    }

    /// A warp among `readers` whose read does not lie in the past of `warp`.
    fn concurrent_reader(
        &self,
        warp: usize,
        cell: Cell,
        readers: u32,
        fine: bool,
        unit: usize,
    ) -> Option<usize> {
        let spilled = if cell.read_time == SPILLED {
            self.spilled.get(&(fine, unit))
        } else {
            None
        };
        let time = |reader: usize| spilled.map_or(cell.read_time, |times| times[reader]);
        lanes(readers).find(|reader| !self.clocks.ordered(warp, *reader, time(*reader)))
    }

    #[inline]
    fn write_cell(
        &mut self,
        actor: Actor,
        fine: bool,
        unit: usize,
        kind: Write,
    ) -> Result<(), FaultKind> {
        let cell = *self.cell(fine, unit);
        let access = if kind == Write::Begin {
            "cp.async"
        } else {
            "write"
        };
        if cell.flags & (GUARDED | OBJECT) != 0 {
            return Err(self.bad_cell(cell, fine, unit));
        }
        let own = u32::from(cell.writer) == actor.thread + 1;
        // Copies have no order among themselves, not even those of one thread.
        if cell.flags & IN_FLIGHT != 0 && (!own || kind == Write::Begin) {
            return Err(self.bad_cell(cell, fine, unit));
        }
        let both_atomic = kind == Write::Atomic && cell.flags & ATOMIC != 0;
        if cell.writer != 0 && !both_atomic && !self.knows(actor.warp, cell) {
            return Err(self.unordered(cell, fine, unit, access));
        }
        let others = cell.readers & !(1 << actor.warp);
        if others != 0
            && let Some(reader) = self.concurrent_reader(actor.warp, cell, others, fine, unit)
        {
            let (first, last) = (32 * reader, 32 * reader + 31);
            let other = format!("a read by warp {reader} (threads {first}..={last})");
            return Err(race(fine, unit, access, other));
        }
        let write_time = self.clocks.now(actor.warp);
        *self.cell(fine, unit) = Cell {
            writer: actor.thread as u16 + 1,
            flags: match kind {
                Write::Plain => 0,
                Write::Atomic => ATOMIC,
                Write::Begin => IN_FLIGHT,
                Write::Object => OBJECT,
            },
            agent: 0,
            write_time,
            write_line: actor.line,
            readers: 0,
            read_time: 0,
        };
        Ok(())
    }

    /// Whether the last write of a cell lies in the past of a warp.
    #[inline]
    fn knows(&self, warp: usize, cell: Cell) -> bool {
        let by = if cell.flags & BULK == 0 {
            usize::from(cell.writer - 1) / 32
        } else {
            self.clocks.n_warps() + usize::from(cell.agent)
        };
        self.clocks.ordered(warp, by, cell.write_time)
    }

    /// The warp does not know of the last write: a bulk copy has not come for it.
    #[cold]
    fn unordered(&self, cell: Cell, fine: bool, unit: usize, access: &'static str) -> FaultKind {
        if cell.flags & BULK == 0 {
            race(fine, unit, access, written(cell))
        } else {
            let flags = IN_FLIGHT;
            self.bad_cell(Cell { flags, ..cell }, fine, unit)
        }
    }

    #[cold]
    fn bad_cell(&self, cell: Cell, fine: bool, unit: usize) -> FaultKind {
        let (address, len) = if fine { (unit, 1) } else { (4 * unit, 4) };
        let address = address as u64;
        if cell.flags & GUARDED != 0 {
            return self.out_of_bounds(address, len);
        }
        if cell.flags & OBJECT != 0 {
            let what = "read or written as plain memory".to_owned();
            return FaultKind::Mbarrier { address, what };
        }
        if cell.flags & IN_FLIGHT != 0 {
            let issuer = u32::from(cell.writer) - 1;
            return FaultKind::InFlight { address, issuer };
        }
        FaultKind::Uninitialised {
            space: Space::Shared,
            address,
            len,
        }
    }
}

fn written(cell: Cell) -> String {
    let (thread, line) = (cell.writer - 1, cell.write_line);
    format!("a write by thread {thread} (PTX line {line})")
}

#[cold]
fn race(fine: bool, unit: usize, access: &'static str, other: String) -> FaultKind {
    let address = if fine { unit } else { 4 * unit } as u64;
    FaultKind::Race {
        address,
        access,
        other,
    }
}
