//! What an instruction can reach.

use super::agreement::Agreement;
use super::copies::Copies;
use super::counters::Counters;
use super::local::Local;
use super::mbarrier::GlobalWrites;
use super::products::Products;
use super::shared::{Actor, Shared};
use super::traffic;
use crate::memory::Memory;
use crate::registers::Registers;

/// Elements of one lane's access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of one element.
    pub(crate) bytes: usize,
    /// Elements: 1, 2 or 4.
    pub(crate) n: usize,
}

impl Shape {
    pub(crate) fn total(self) -> usize {
        self.bytes * self.n
    }
}

/// The state of a warp at an instruction, and of its block and device.
pub(crate) struct Context<'a> {
    pub(crate) registers: &'a mut Registers,
    pub(crate) warp: usize,
    /// Lanes that have not exited.
    pub(crate) alive: u32,
    /// Line of the instruction.
    pub(crate) line: u32,
    pub(crate) local: &'a mut Local,
    pub(crate) copies: &'a mut Copies,
    pub(crate) products: &'a mut Products,
    /// What the warp's group of four does together.
    pub(super) group: &'a mut Agreement,
    pub(crate) shared: &'a mut Shared,
    pub(crate) memory: &'a Memory,
    pub(crate) params: &'a [u8],
    /// Bytes of the module's variables.
    pub(crate) module: &'a [u8],
    pub(crate) counters: &'a mut Counters,
    /// Where the kernel has bulk copies, what they may read and the block wrote.
    pub(crate) global_writes: &'a mut Option<GlobalWrites>,
    /// Whether reading global bytes that were never written is a fault.
    pub(crate) strict_global: bool,
}

impl Context<'_> {
    /// Counts a copy from global to shared memory.
    pub(crate) fn count_copy(&mut self, mask: u32, from: &[u64; 32], to: &[u64; 32], bytes: usize) {
        traffic::global(self.counters, mask, from, bytes);
        traffic::shared(self.counters, mask, to, bytes);
    }

    /// Counts rows of 16 bytes, eight for each of `n_tiles` tiles, at the lanes' addresses.
    pub(crate) fn count_rows(&mut self, rows: &[u64; 32], n_tiles: usize) {
        let mask = u32::MAX >> (32 - 8 * n_tiles);
        traffic::shared(self.counters, mask, rows, 16);
    }

    pub(crate) fn actor(&self, lane: usize) -> Actor {
        Actor {
            warp: self.warp,
            thread: (32 * self.warp + lane) as u32,
            line: self.line,
        }
    }
}
