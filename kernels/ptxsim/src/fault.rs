//! What can go wrong, and where it did.

use std::fmt;

use thiserror::Error;

/// Why a text is not run: it is broken, or uses something the simulator does not know.
#[derive(Debug, Error)]
#[error("PTX line {line}: {what}")]
pub struct PtxError {
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub what: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { line, what }
    }
}

/// A state space, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Local,
    Module,
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Module => "module",
            Self::Param => "param",
        })
    }
}

/// What a kernel did that it must not do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FaultKind {
    #[error("{space} access of {len} bytes at {address:#x} is out of bounds: {near}")]
    OutOfBounds {
        space: Space,
        address: u64,
        len: usize,
        near: String,
    },
    #[error("global access at {address:#x}: that allocation was freed")]
    Freed { address: u64 },
    #[error("{space} access of {len} bytes at {address:#x} is misaligned")]
    Misaligned {
        space: Space,
        address: u64,
        len: usize,
    },
    #[error("uninitialised {space} read of {len} bytes at {address:#x}")]
    Uninitialised {
        space: Space,
        address: u64,
        len: usize,
    },
    #[error(
        "shared access at {address:#x} while a cp.async of thread {issuer} to it is in flight (missing wait)"
    )]
    InFlight { address: u64, issuer: u32 },
    #[error(
        "{space} memory at {address:#x}, which thread {writer} wrote, is used by the async proxy without a fence.proxy.async of that thread and memory after the write"
    )]
    ProxyFence {
        space: Space,
        address: u64,
        writer: u32,
    },
    #[error("mbarrier at {address:#x}: {what}")]
    Mbarrier { address: u64, what: String },
    #[error("a register of a wgmma in flight is used (missing wgmma.wait_group)")]
    RegisterInFlight,
    #[error("wgmma without a wgmma.fence since its registers were last used otherwise")]
    MissingFence,
    #[error("the threads of a warp group do not agree on {text}: {what}")]
    GroupDiffers { text: &'static str, what: String },
    #[error("matrix descriptor {descriptor:#018x}: {what}")]
    Descriptor { descriptor: u64, what: String },
    #[error("the block ends with work in flight: {what}")]
    Unfinished { what: String },
    #[error("shared memory race at {address:#x}: {access} without a barrier after {other}")]
    Race {
        address: u64,
        access: &'static str,
        other: String,
    },
    #[error("write to read-only {space} memory at {address:#x}")]
    ReadOnly { space: Space, address: u64 },
    #[error("divergent barrier: lanes {active:#010x} of {expected:#010x} arrived")]
    DivergentBarrier { active: u32, expected: u32 },
    #[error("barrier {barrier}: {what}")]
    Barrier { barrier: u32, what: String },
    #[error("member mask {mask:#010x} does not fit the lanes that arrived, {active:#010x}")]
    MemberMask { mask: u32, active: u32 },
    #[error("{what} with inactive lanes: active {active:#010x}")]
    InactiveLanes { what: &'static str, active: u32 },
    #[error("shuffle reads from lane {source_lane}, which is not active")]
    ShuffleSource { source_lane: u32 },
    #[error("integer division by zero")]
    DivisionByZero,
    #[error("deadlock: {what}")]
    Deadlock { what: String },
    #[error("no end after {instructions} warp instructions of one block")]
    Runaway { instructions: u64 },
    #[error("trap instruction")]
    Trap,
    #[error("launch refused: {what}")]
    Launch { what: String },
    #[error("not simulated: {what}")]
    Unsupported { what: String },
}

/// A fault of one lane or of the whole warp, before it is known where the warp stands.
#[derive(Debug)]
pub(crate) struct LaneFault {
    pub(crate) lane: Option<u32>,
    pub(crate) kind: FaultKind,
}

impl FaultKind {
    /// The fault as that lane's.
    pub(crate) fn at(self, lane: usize) -> LaneFault {
        let lane = Some(lane as u32);
        LaneFault { lane, kind: self }
    }

    /// The fault as the whole warp's.
    pub(crate) fn of_warp(self) -> LaneFault {
        let lane = None;
        LaneFault { lane, kind: self }
    }
}

/// A fault with its place: kernel, instruction, source line, block and thread.
#[derive(Clone, Debug, Error)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// Line of the PTX text, from 1; 0 when no instruction was running.
    pub line: u32,
    /// File and line of the source, if the PTX was made with `-lineinfo`; for an inlined
    /// function where it is called.
    pub source_line: Option<(String, u32)>,
    /// File and line within the inlined function.
    pub inlined_line: Option<(String, u32)>,
    /// The instruction as written.
    pub instruction: String,
    /// Index of the block.
    pub block: [u32; 3],
    /// Index of the thread in its block, counted x first; for a fault of a whole warp its first.
    pub thread: Option<u32>,
    /// What happened.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.kind)?;
        if self.line > 0 {
            write!(f, "\n  at PTX line {}: {}", self.line, self.instruction)?;
        }
        if let Some((file, line)) = &self.source_line {
            write!(f, "\n  from {file}:{line}")?;
        }
        if let Some((file, line)) = &self.inlined_line {
            write!(f, ", inlined from {file}:{line}")?;
        }
        write!(f, "\n  block {:?}", self.block)?;
        if let Some(thread) = self.thread {
            write!(f, ", thread {thread} (warp {})", thread / 32)?;
        }
        Ok(())
    }
}
