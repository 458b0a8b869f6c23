//! Runs CUDA kernels without a GPU: the PTX that `nvcc` makes, on the CPU, with checks that a
//! GPU does not give.
//!
//! [`Module::parse`] reads a text, [`Kernel::launch`] runs a kernel on a [`Memory`]. A warp's 32
//! lanes run in lockstep until they diverge and meet again at the earliest instruction; blocks
//! are spread over threads. Found and named by kernel, PTX line, source line, block and thread
//! are: reads of memory that nothing wrote, accesses out of bounds or misaligned, races between
//! the warps of a block, copies used before they were waited for, barriers that a part of a
//! warp or block misses, shuffles and matrix instructions with missing lanes, deadlocks and
//! division by zero.
//!
//! What it cannot show: time; reordering of memory between blocks (they are sequentially
//! consistent here); races within a warp (its lanes run in lockstep here) and between blocks;
//! the last bits of the approximate functions and the order of sums inside the tensor cores.

mod address;
mod code;
mod decode;
mod fault;
mod fp8;
mod kernel;
mod memory;
mod registers;
mod rounding;
mod run;
mod text;
mod types;
mod vector;

pub use fault::{Fault, FaultKind, PtxError, Space};
pub use kernel::{Arg, Kernel, Module};
pub use memory::{Memory, Plain};
pub use run::{Counters, Launch, Options, Report};
