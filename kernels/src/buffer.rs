//! Device memory for activations.

use std::borrow::Cow;
use std::ops::Range;

use crate::Device;

/// A vector of f32 in device memory.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<f32>,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(_device: &Device, len: usize) -> Self {
        Self {
            data: vec![0.0; len],
        }
    }

    /// A copy of `values`.
    pub fn from_slice(_device: &Device, values: &[f32]) -> Self {
        Self {
            data: values.to_vec(),
        }
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The values on the host; borrowed where device memory is host memory.
    pub fn read(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.data[range])
    }
}
