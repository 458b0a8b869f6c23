//! A warp: registers, and groups of lanes that stand at the same instruction. The group
//! furthest back runs first, so that lanes meet again as early as they can.

use super::copies::Copies;
use super::local::Local;
use super::products::Products;
use crate::code::Instruction;
use crate::registers::Registers;

/// Lanes at one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
}

#[derive(Debug)]
pub(super) struct Warp {
    pub(super) registers: Registers,
    /// The group that runs; its program counter is the least.
    pub(super) current: Group,
    /// The others, the one furthest ahead first.
    others: Vec<Group>,
    /// Lanes that have not exited; none left means done.
    pub(super) alive: u32,
    /// At a barrier.
    pub(super) waits: bool,
    /// The barrier in shared memory that it waits at.
    pub(super) waits_at: Option<u64>,
    pub(super) local: Local,
    pub(super) copies: Copies,
    pub(super) products: Products,
}

impl Warp {
    pub(super) fn new(registers: Registers, local_bytes: usize) -> Self {
        Self {
            registers,
            current: Group { pc: 0, mask: 0 },
            others: Vec::new(),
            alive: 0,
            waits: false,
            waits_at: None,
            local: Local::new(local_bytes),
            copies: Copies::default(),
            products: Products::default(),
        }
    }

    /// At the first instruction with these lanes.
    pub(super) fn reset(&mut self, lanes: u32) {
        self.current = Group { pc: 0, mask: lanes };
        self.others.clear();
        self.alive = lanes;
        self.waits = false;
        self.waits_at = None;
        self.local.reset();
        self.copies.reset();
        self.products = Products::default();
    }

    /// The lanes of the running group that an instruction's guard lets through.
    #[inline]
    pub(super) fn active(&self, instruction: &Instruction) -> u32 {
        match instruction.guard {
            None => self.current.mask,
            Some((slot, flip)) => {
                self.current.mask & (self.registers.preds[slot.0 as usize] ^ flip)
            }
        }
    }

    fn park(&mut self, group: Group) {
        let at = self.others.partition_point(|other| other.pc > group.pc);
        match self.others.get_mut(at) {
            Some(other) if other.pc == group.pc => other.mask |= group.mask,
            _ => self.others.insert(at, group),
        }
    }

    /// Joins the running group with those it has reached; lets the one furthest back run.
    #[inline]
    pub(super) fn reconverge(&mut self) {
        while let Some(next) = self.others.last().copied() {
            if self.current.mask != 0 && next.pc > self.current.pc {
                return;
            }
            self.others.pop();
            if self.current.mask == 0 {
                self.current = next;
            } else if next.pc == self.current.pc {
                self.current.mask |= next.mask;
            } else {
                let ahead = std::mem::replace(&mut self.current, next);
                self.park(ahead);
            }
        }
    }

    /// Sends the lanes of `taken` to `target`, the rest of the group to the next instruction.
    pub(super) fn branch(&mut self, taken: u32, target: u32) {
        let rest = self.current.mask & !taken;
        let next = self.current.pc + 1;
        if taken == 0 {
            self.current.pc = next;
        } else if rest == 0 {
            self.current.pc = target;
        } else {
            self.park(Group {
                pc: target,
                mask: taken,
            });
            self.current = Group {
                pc: next,
                mask: rest,
            };
        }
        self.reconverge();
    }

    /// Sends each lane of the group to its own target.
    pub(super) fn scatter(&mut self, active: u32, targets: &[u32; 32]) {
        let rest = self.current.mask & !active;
        let next = self.current.pc + 1;
        self.current.mask = 0;
        if rest != 0 {
            self.park(Group {
                pc: next,
                mask: rest,
            });
        }
        for lane in crate::registers::lanes(active) {
            self.park(Group {
                pc: targets[lane],
                mask: 1 << lane,
            });
        }
        self.reconverge();
    }

    /// Ends the lanes of `mask`.
    pub(super) fn exit(&mut self, mask: u32) {
        self.alive &= !mask;
        self.current.mask &= !mask;
        self.current.pc += 1;
        self.reconverge();
    }
}
