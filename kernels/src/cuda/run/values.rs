//! A vector of f32 on a GPU.

use std::sync::Arc;

use super::driver::Allocation;
use super::gpu::{Gpu, bytes_of};
use crate::cuda::DevicePtr;

/// Values of a buffer. A buffer that could not be had has none: whoever made it asks the device
/// ([`crate::Device::check_memory`]), and a step that uses it fails.
#[derive(Debug)]
pub(crate) struct Values {
    gpu: Arc<Gpu>,
    memory: Option<Allocation>,
}

impl Values {
    pub(crate) fn zeros(gpu: &Arc<Gpu>, len: usize) -> Self {
        Self::new(gpu, len, |memory| memory.clear().is_ok())
    }

    pub(crate) fn from_slice(gpu: &Arc<Gpu>, values: &[f32]) -> Self {
        Self::new(gpu, values.len(), |memory| {
            memory.write_at(0, bytes_of(values)).is_ok()
        })
    }

    fn new(gpu: &Arc<Gpu>, len: usize, fill: impl Fn(&Allocation) -> bool) -> Self {
        let memory = gpu.driver.alloc(4 * len);
        if let Err(refused) = &memory {
            gpu.driver.note_missing(*refused);
        }
        let memory = memory.ok().filter(fill);
        Self {
            gpu: gpu.clone(),
            memory,
        }
    }

    /// Where they are.
    pub(crate) fn at(&self) -> DevicePtr {
        match &self.memory {
            Some(memory) => DevicePtr(memory.at()),
            None => {
                let missing = "memory of a buffer could not be had";
                self.gpu.step().fail(missing.to_owned());
                DevicePtr::NULL
            }
        }
    }

    /// `len` values from `first` on, once what was noted before is done.
    pub(crate) fn read(&self, first: usize, len: usize) -> Vec<f32> {
        self.gpu.read(self.at().offset(4 * first), len)
    }
}
