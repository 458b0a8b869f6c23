//! Launches of what sampling needs of whole rows of logits.

use super::int;
use super::launch::{DevicePtr, Fields, Launch, Params};

/// Of each row of `n` logits: index of the largest (u32; of equals the lowest), its value, and
/// the logarithm of the sum of exponentials (f32).
pub fn summarize_logits(
    logits: DevicePtr,
    n: usize,
    n_rows: usize,
    best: DevicePtr,
    largest: DevicePtr,
    log_sum: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(logits)
        .int(int(n))
        .ptr(best)
        .ptr(largest)
        .ptr(log_sum);
    Launch::new("sample", "summarize_logits", params)
        .threads(256)
        .grid([n_rows, 1, 1])
}

/// A token that occurred in a row, and what that costs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    pub row: u32,
    pub token: u32,
    pub count: f32,
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
}

impl Penalty {
    /// As it lies on the device.
    pub fn fields(&self) -> Fields {
        Fields::new()
            .uint(self.row)
            .uint(self.token)
            .float(self.count)
            .float(self.repetition)
            .float(self.presence)
            .float(self.frequency)
    }
}

/// `penalties`: [`Penalty`]s, 24 bytes each; no token of a row occurs twice.
pub fn apply_penalties(
    logits: DevicePtr,
    n: usize,
    penalties: DevicePtr,
    n_penalties: usize,
) -> Launch {
    let params = Params::new()
        .ptr(logits)
        .int(int(n))
        .ptr(penalties)
        .int(int(n_penalties));
    Launch::new("sample", "apply_penalties", params).grid([n_penalties.div_ceil(128), 1, 1])
}

/// Tokens whose bit is not set get minus infinity. `masks`: `[n_masks][ceil(n / 32)]` u32;
/// `mask_of`: `[n_rows]` i32, -1 for none.
pub fn mask_logits(
    logits: DevicePtr,
    n: usize,
    n_rows: usize,
    masks: DevicePtr,
    mask_of: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(logits)
        .int(int(n))
        .ptr(masks)
        .ptr(mask_of);
    Launch::new("sample", "mask_logits", params).over_rows(n_rows, n)
}
