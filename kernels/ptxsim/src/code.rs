//! Decoded instructions.

use crate::decode::Address;
use crate::fault::LaneFault;
use crate::registers::{Registers, Slot};
use crate::run::Context;
use crate::text::Source;

/// Computes lanes of registers from lanes of registers.
pub(crate) type Alu = Box<dyn Fn(&mut Registers, u32) + Send + Sync>;

/// Does more than that, for the lanes of a mask, and may fault.
pub(crate) type Act = Box<dyn Fn(&mut Context<'_>, u32) -> Result<(), LaneFault> + Send + Sync>;

/// An arrival at a barrier of the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierCall {
    pub(crate) barrier: Slot,
    /// Number of threads; all of the block if none.
    pub(crate) n_threads: Option<Slot>,
    /// Whether the warp waits.
    pub(crate) waits: bool,
    /// A reduction over the predicate of all threads.
    pub(crate) reduction: Option<Reduction>,
}

/// `barrier.red`: predicate in, result out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    pub(crate) kind: ReductionKind,
    pub(crate) input: (Slot, u32),
    pub(crate) output: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReductionKind {
    And,
    Or,
    Count,
}

/// A wait for a phase of a barrier in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitCall {
    /// Becomes true.
    pub(crate) done: Slot,
    pub(crate) address: Address,
    /// A parity (a word) or what an arrival gave (64 bits).
    pub(crate) phase: Slot,
    pub(crate) by_parity: bool,
}

/// What an instruction does.
pub(crate) enum Op {
    Alu(Alu),
    Act(Act),
    Branch(u32),
    /// A jump by table.
    Switch(Slot, Vec<u32>),
    Exit,
    Barrier(BarrierCall),
    Wait(WaitCall),
    Nothing,
}

/// One instruction.
pub(crate) struct Instruction {
    pub(crate) op: Op,
    /// Predicate, exclusive-or'ed with the second.
    pub(crate) guard: Option<(Slot, u32)>,
    /// Registers it uses that products of warp groups use too, if it is no such product.
    pub(crate) tensor: Box<[Slot]>,
    /// Line of the PTX text.
    pub(crate) line: u32,
    pub(crate) source: Option<Source>,
    /// The opcode as written.
    pub(crate) text: String,
}

impl std::fmt::Debug for Instruction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}
