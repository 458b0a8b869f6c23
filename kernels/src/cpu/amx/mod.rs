//! Linear layers on AMX: eight tiles of 16 rows by 64 bytes, and instructions that multiply one
//! with another.
//!
//! Ops are written against [`Tiles`], which is the machine's instructions ([`hardware`]) or plain
//! Rust that does the same step by step ([`model`]). The plain one proves the ops on any machine,
//! and every device that has the instructions compares both before it uses them ([`check`]).
//!
//! - Quantized weights ([`integers`]): sums of a group of 32 inputs are exact integers, and what
//!   follows them in f32 is what `quant::native_block` does. So a row has the same bits as with
//!   any other instruction set, and tiles are used only where they are faster.
//! - bf16 weights ([`pairs`]): the order of additions is that of the instruction, which no other
//!   has. So all rows go through tiles, be they few or many.

mod activations;
mod check;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "hardware.rs"]
mod hardware;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "absent.rs"]
mod hardware;
mod integers;
mod model;
mod pairs;
mod panel;
pub(super) mod peak;
mod streams;
#[cfg(test)]
mod tests;
mod tiles;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use self::activations::Activations;
use self::check::Products;
use self::hardware::Hardware;
pub(crate) use self::hardware::is_available;
use self::integers::Integers;
#[cfg(test)]
use self::model::Model;
use self::pairs::Pairs;
use self::panel::Panel;
use super::ahead::Ahead;
use super::packed::PackedLinear;
use super::quant::Format;
use super::shared::SharedMut;
#[cfg(test)]
use super::simd::ActiveIsa;
use crate::format::layout::TILE;

/// Rows from which quantized weights go through tiles. A block of sixteen rows takes about 40
/// cycles for a group of 32 inputs of a tile of columns, and some 25 more to put codes together,
/// however many of its rows there are; dot instructions take about 11 for each row.
const FEWEST_ROWS: usize = 8;

/// Who multiplies tiles.
#[derive(Clone, Copy, Debug)]
enum Engine {
    Hardware(Hardware),
    /// Beside an instruction set for all else.
    #[cfg(test)]
    Model(ActiveIsa),
}

/// Tiles of a device, with scratch that is kept between ops.
#[derive(Debug)]
pub(crate) struct Amx {
    engine: Engine,
    /// Whether sums are rounded as in the model.
    pub(crate) rounds_as_modelled: bool,
    activations: Mutex<Activations>,
    /// One for each thread.
    panels: Vec<Mutex<Panel>>,
}

impl Amx {
    /// `None`: this machine has no tiles, or their products are wrong.
    pub(crate) fn new(n_threads: usize) -> Option<Self> {
        let hardware = Hardware::find()?;
        let products = Products::of(hardware);
        products.are_right().then(|| {
            Self::with(
                Engine::Hardware(hardware),
                products.are_rounded_alike(),
                n_threads,
            )
        })
    }

    /// Tiles in plain Rust.
    #[cfg(test)]
    pub(crate) fn model(isa: ActiveIsa, n_threads: usize) -> Self {
        Self::with(Engine::Model(isa), true, n_threads)
    }

    fn with(engine: Engine, rounds_as_modelled: bool, n_threads: usize) -> Self {
        Self {
            engine,
            rounds_as_modelled,
            activations: Mutex::default(),
            panels: (0..n_threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether a layer of so many rows goes through tiles.
    pub(crate) fn takes(&self, weight: &PackedLinear, n_rows: usize) -> bool {
        weight.takes_pairs() || weight.is_native() && n_rows >= FEWEST_ROWS
    }

    /// The scratch of one call.
    pub(crate) fn activations(&self) -> MutexGuard<'_, Activations> {
        lock(&self.activations)
    }
}

/// A lock whose data is written anew by whoever takes it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some tiles of columns of one layer, all rows.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) weight: &'a PackedLinear,
    pub(crate) bias: Option<&'a [f32]>,
    /// `[n_rows, n_out]`; the columns of `columns` are this chunk's alone.
    pub(crate) out: &'a SharedMut<'a, f32>,
    pub(crate) activations: &'a Activations,
    pub(crate) n_rows: usize,
    /// Tiles of 16 columns.
    pub(crate) columns: Range<usize>,
    /// What is read after this op.
    pub(crate) next: Ahead<'a>,
}

impl Chunk<'_> {
    /// bf16 weights times rows of [`Activations::round`].
    pub(crate) fn pairs(self, amx: &Amx) {
        match amx.engine {
            Engine::Hardware(unit) => unit.run(Pairs { chunk: self, unit }),
            #[cfg(test)]
            Engine::Model(isa) => isa.run(Pairs {
                chunk: self,
                unit: Model,
            }),
        }
    }

    /// Weights in a format times rows of [`Activations::gather`].
    pub(crate) fn integers<Q: Format>(self, amx: &Amx, thread: usize) {
        let panel = &mut *lock(&amx.panels[thread]);
        match amx.engine {
            Engine::Hardware(unit) => unit.run(Integers::<Q, _>::new(self, unit, panel)),
            #[cfg(test)]
            Engine::Model(isa) => isa.run(Integers::<Q, _>::new(self, Model, panel)),
        }
    }

    /// The outputs of a row that a tile has; one is borrowed at a time.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "chunks of a shared slice are disjoint")]
    fn out(&self, row: usize, tile: usize) -> &mut [f32] {
        let n_out = self.weight.n_out;
        let first = tile * TILE;
        // SAFETY: a chunk's columns are its own, and it borrows one row of one tile at a time.
        unsafe { (self.out).part(row * n_out + first, TILE.min(n_out - first)) }
    }

    /// The bias of a tile's columns.
    #[inline(always)]
    fn bias_of(&self, tile: usize) -> Option<&[f32]> {
        let first = tile * TILE;
        let end = self.weight.n_out.min(first + TILE);
        self.bias.map(|bias| &bias[first..end])
    }
}
