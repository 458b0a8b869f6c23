//! Device memory for activations.

use std::borrow::Cow;
use std::ops::Range;

use crate::Device;
use crate::cuda::{DevicePtr, Values};
use crate::memory::Line;

/// A vector of f32 in device memory, aligned to 64 bytes.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Host(Vec<Line>),
    Cuda(Values),
}

/// An op got memory of another back end than its own: a bug of the caller.
const ELSEWHERE: &str = "a buffer of another device";

impl Buffer {
    /// `len` zeros.
    pub fn zeros(device: &Device, len: usize) -> Self {
        let memory = match device.as_cuda() {
            Some(gpu) => Memory::Cuda(Values::zeros(gpu, len)),
            None => Memory::Host(vec![Line([0.0; 16]); len.div_ceil(16)]),
        };
        Self { memory, len }
    }

    /// A copy of `values`.
    pub fn from_slice(device: &Device, values: &[f32]) -> Self {
        if let Some(gpu) = device.as_cuda() {
            return Self {
                memory: Memory::Cuda(Values::from_slice(gpu, values)),
                len: values.len(),
            };
        }
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

    /// The values on the host; borrowed where device memory is host memory. Ops that were called
    /// before are done then.
    pub fn read(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match &self.memory {
            Memory::Host(_) => Cow::Borrowed(&self.as_slice()[range]),
            Memory::Cuda(values) => {
                assert!(range.start <= range.end && range.end <= self.len);
                Cow::Owned(values.read(range.start, range.len()))
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        let Memory::Host(lines) = &self.memory else {
            panic!("{ELSEWHERE}");
        };
        // SAFETY: lines are 16 floats without padding, and `len` is at most 16 times their count.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let Memory::Host(lines) = &mut self.memory else {
            panic!("{ELSEWHERE}");
        };
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), self.len) }
    }

    /// Where the values are on a GPU.
    pub(crate) fn device_ptr(&self) -> DevicePtr {
        let Memory::Cuda(values) = &self.memory else {
            panic!("{ELSEWHERE}");
        };
        values.at()
    }
}
