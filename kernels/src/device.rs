//! The machine that ops run on.

mod attention;
mod elementwise;
mod group;
mod linear;
mod norm;
mod rows;
mod sample;

pub use sample::SampleLimits;

use std::sync::Arc;
use std::time::Duration;

use crate::cpu::{self, Cpu};
use crate::cuda::{CudaError, DevicePtr, Gpu};
use crate::memory::OutOfMemory;
use crate::{Buffer, Isa, Numerics, Peak};

/// How to set up the CPU back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads that work on a step, the caller's among them; `None`: as many as this process
    /// may use.
    pub n_threads: Option<usize>,
    /// Use this instruction set instead of the best one (tests).
    pub isa: Option<Isa>,
}

/// How to set up the CUDA back end.
#[derive(Clone, Copy, Debug)]
pub struct CudaOptions {
    /// Number of the device among those that the driver shows.
    pub ordinal: usize,
    /// Start steps that were seen before as captured graphs.
    pub graphs: bool,
    /// What adapters' low-rank matrices are held in and multiplied with: bf16 or f32.
    pub low_rank: Numerics,
}

/// Which part of a model a device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub index: usize,
    /// Parts that there are.
    pub of: usize,
}

/// A step that a device could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceFailed(pub String);

/// A handle to a device; clones share it.
#[derive(Clone, Debug)]
pub struct Device {
    backend: Arc<Backend>,
}

/// What does the work. Ops check their shapes in the methods of [`Device`], once for all.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, behind an Arc")]
enum Backend {
    Cpu(Cpu),
    Cuda(Arc<Gpu>),
}

impl Device {
    /// # Panics
    /// When `options` ask for zero threads or for an instruction set that is not
    /// [available](Isa::is_available).
    pub fn cpu(options: CpuOptions) -> Self {
        Self {
            backend: Arc::new(Backend::Cpu(Cpu::new(options))),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_cpu(cpu: Cpu) -> Self {
        Self {
            backend: Arc::new(Backend::Cpu(cpu)),
        }
    }

    /// A GPU, through the driver that is installed.
    ///
    /// # Errors
    /// There is no driver, no such device, or the device is too old.
    pub fn cuda(options: CudaOptions) -> Result<Self, CudaError> {
        let gpu = Arc::new(Gpu::open(options)?);
        Ok(Self {
            backend: Arc::new(Backend::Cuda(gpu)),
        })
    }

    /// For people: "CPU, 2 threads, AVX-512 VNNI".
    pub fn describe(&self) -> String {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu.describe(),
            Backend::Cuda(gpu) => gpu.describe(),
        }
    }

    /// Devices of the same arithmetic give the same bits for the same ops. Its number goes up with
    /// every change of a kernel that changes bits.
    pub fn arithmetic(&self) -> String {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu.arithmetic(),
            Backend::Cuda(gpu) => {
                let (major, minor) = gpu.driver.capability;
                let alone = format!("CUDA 3 {major}.{minor}");
                match gpu.part().of {
                    1 => alone,
                    n => format!("{alone}, {n} parts"),
                }
            }
        }
    }

    /// Free memory of a device that has its own; `None`: it shares the host's.
    pub fn free_bytes(&self) -> Option<u64> {
        self.as_cuda().map(|gpu| gpu.driver.free_bytes())
    }

    /// Waits until all ops that were called are done.
    ///
    /// # Errors
    /// One of them, since the last call, could not be done: what they wrote is of no use.
    pub fn finish(&self) -> Result<(), DeviceFailed> {
        match &*self.backend {
            Backend::Cpu(_) => Ok(()),
            Backend::Cuda(gpu) => gpu.finish().map_err(DeviceFailed),
        }
    }

    /// Why the device is of no use to this process any more, if so: a fault inside a kernel.
    pub fn lost(&self) -> Option<String> {
        self.as_cuda().and_then(|gpu| gpu.lost())
    }

    /// Whoever makes buffers asks whether all of them could be had.
    ///
    /// # Errors
    /// A buffer since the last call could not.
    pub fn check_memory(&self) -> Result<(), OutOfMemory> {
        let missing = self.as_cuda().and_then(|gpu| gpu.driver.take_missing());
        missing.map_or(Ok(()), Err)
    }

    /// Measures for about three times `time` what this device can do at best; for benchmarks.
    /// `None` for a device without such a measurement: a GPU.
    ///
    /// # Errors
    /// When there is no memory to stream.
    pub fn peak(&self, time: Duration) -> Result<Option<Peak>, OutOfMemory> {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu::peak::measure(cpu, time).map(Some),
            Backend::Cuda(_) => Ok(None),
        }
    }

    pub(crate) fn as_cpu(&self) -> &Cpu {
        match &*self.backend {
            Backend::Cpu(cpu) => cpu,
            Backend::Cuda(_) => panic!("work of a GPU on the CPU"),
        }
    }

    pub(crate) fn as_cuda(&self) -> Option<&Arc<Gpu>> {
        match &*self.backend {
            Backend::Cpu(_) => None,
            Backend::Cuda(gpu) => Some(gpu),
        }
    }
}

/// A buffer may be larger than this step needs, but not smaller.
fn check(buffer: &Buffer, len: usize, name: &str) {
    let found = buffer.len();
    assert!(found >= len, "{name} holds {found} values, needs {len}");
}

/// The first `len` values of a buffer.
fn first<'a>(buffer: &'a Buffer, len: usize, name: &str) -> &'a [f32] {
    check(buffer, len, name);
    &buffer.as_slice()[..len]
}

/// As [`first`], to be written.
fn first_mut<'a>(buffer: &'a mut Buffer, len: usize, name: &str) -> &'a mut [f32] {
    check(buffer, len, name);
    &mut buffer.as_mut_slice()[..len]
}

/// Where a buffer of at least `len` values is on a GPU.
fn at(buffer: &Buffer, len: usize, name: &str) -> DevicePtr {
    check(buffer, len, name);
    buffer.device_ptr()
}

/// As [`at`], to be written.
fn at_mut(buffer: &mut Buffer, len: usize, name: &str) -> DevicePtr {
    at(buffer, len, name)
}
