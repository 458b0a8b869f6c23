//! Memory that ops work in, each kind grown to its largest size once. Ops that follow each other
//! share it: the stream keeps them apart.

use std::sync::Arc;

use super::driver::{Allocation, Driver};
use crate::cuda::DevicePtr;
use crate::memory::OutOfMemory;

/// What a piece is for; pieces that one op needs at a time are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Activations in 16 bits, or in int8.
    Bf16,
    F16,
    Codes,
    Meta,
    /// `A x` of adapters.
    Between,
    /// Parts of attention.
    PartMax,
    PartSum,
    PartOut,
    /// Choices of experts.
    Experts,
    Weights,
    /// What sampling gives, and what logits were before it.
    Answers,
    Saved,
}

const N_KINDS: usize = Kind::Saved as usize + 1;

#[derive(Debug)]
pub(crate) struct Scratch {
    driver: Arc<Driver>,
    pieces: [Option<Allocation>; N_KINDS],
}

impl Scratch {
    pub(crate) fn new(driver: Arc<Driver>) -> Self {
        Self {
            driver,
            pieces: Default::default(),
        }
    }

    /// At least so many bytes, with anything in them.
    pub(crate) fn get(&mut self, kind: Kind, n_bytes: usize) -> Result<DevicePtr, OutOfMemory> {
        let piece = &mut self.pieces[kind as usize];
        let known = piece.as_ref().map_or(0, Allocation::n_bytes);
        if known < n_bytes || piece.is_none() {
            // In powers of two, so that growing steps do not move it each time. The old one is
            // kept by the driver until the step is done.
            let new = self.driver.alloc(n_bytes.next_power_of_two().max(4096))?;
            *piece = Some(new);
        }
        let at = piece.as_ref().map_or(0, Allocation::at);
        Ok(DevicePtr(at))
    }
}
