//! Devices that compute one model together.

use std::ops::Range;
use std::sync::Arc;

use super::{Backend, Device, Part, at, at_mut};
use crate::cuda::{CudaError, Gpu};
use crate::{Buffer, CudaOptions};

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// This part of `n` things, which the parts share equally.
    ///
    /// # Panics
    /// They do not: whoever cuts a model has checked that.
    pub fn range(self, n: usize) -> Range<usize> {
        assert!(n.is_multiple_of(self.of), "{n} in {} parts", self.of);
        let len = n / self.of;
        self.index * len..(self.index + 1) * len
    }
}

impl Device {
    /// GPUs `options.ordinal` and the `n - 1` that follow, which compute one model together,
    /// each from a thread of its own.
    ///
    /// # Errors
    /// As for [`Self::cuda`]; devices are not alike, or NCCL is not there.
    pub fn cuda_group(options: CudaOptions, n: usize) -> Result<Vec<Self>, CudaError> {
        let gpus = Gpu::open_group(options, n)?.into_iter();
        let device = |gpu| Self {
            backend: Arc::new(Backend::Cuda(Arc::new(gpu))),
        };
        Ok(gpus.map(device).collect())
    }

    /// Which part of a model this device computes.
    pub fn part(&self) -> Part {
        self.as_cuda().map_or(Part::WHOLE, |gpu| gpu.part())
    }

    /// For people, of a device of a group: "2 parts through NCCL 2.28.3".
    pub fn describe_group(&self) -> Option<String> {
        self.as_cuda()?.describe_group()
    }

    /// Makes the first `len` values of `x` the sum of those of all devices of the group, in the
    /// order of the devices; `all`: room for the values of all of them. A device alone has its
    /// sum already.
    ///
    /// All devices call this as often and with the same `len`, whatever becomes of their steps.
    pub fn sum_parts(&self, x: &mut Buffer, len: usize, all: &mut Buffer) {
        let Some(gpu) = self.as_cuda() else { return };
        let n = gpu.part().of;
        if n > 1 {
            gpu.sum_parts(at_mut(x, len, "x"), len, at(all, n * len, "all"));
        }
    }

    /// This device's thread will not do its part: the others stop waiting for it, and the group
    /// is of no use any more.
    pub fn leave_group(&self, why: &str) {
        if let Some(gpu) = self.as_cuda() {
            gpu.leave_group(why);
        }
    }
}
