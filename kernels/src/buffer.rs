//! Device memory for activations.

use std::borrow::Cow;
use std::ops::Range;

use crate::Device;
use crate::memory::Line;

/// A vector of f32 in device memory, aligned to 64 bytes.
#[derive(Debug)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(_device: &Device, len: usize) -> Self {
        Self {
            lines: vec![Line([0.0; 16]); len.div_ceil(16)],
            len,
        }
    }

    /// A copy of `values`.
    pub fn from_slice(device: &Device, values: &[f32]) -> Self {
        let mut buffer = Self::zeros(device, values.len());
        buffer.as_mut_slice().copy_from_slice(values);
        buffer
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values on the host; borrowed where device memory is host memory.
    pub fn read(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.as_slice()[range])
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: lines are 16 floats without padding, and `len` is at most 16 times their count.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
