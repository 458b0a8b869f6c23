//! A GPU as a back end: what is shared by all ops.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Allocation, CudaError, Driver, text};
use super::functions::{Functions, start};
use super::group::Member;
use super::scratch::Kind;
use super::step::Step;
use crate::cuda::{self, DevicePtr, Launch};
use crate::memory::{MemoryKind, OutOfMemory};
use crate::{CudaOptions, Numerics};

/// A device with the step that is being put together for it.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) driver: Arc<Driver>,
    functions: Arc<Functions>,
    step: Mutex<Step>,
    ordinal: usize,
    /// What low-rank matrices are multiplied with.
    pub(crate) low_rank: Numerics,
    /// Whether it multiplies by warp groups.
    pub(super) has_wgmma: bool,
    /// Its place among devices that compute together.
    pub(super) member: Option<Member>,
}

impl Gpu {
    pub(crate) fn open(options: CudaOptions) -> Result<Self, CudaError> {
        let driver = Driver::open(options.ordinal)?;
        Ok(Self::of(driver, options, None))
    }

    /// A device alone, or as a member of a group.
    pub(super) fn of(driver: Driver, options: CudaOptions, member: Option<Member>) -> Self {
        let driver = Arc::new(driver);
        let functions = Arc::new(Functions::new(driver.clone()));
        let own = (driver.clone(), functions.clone());
        let step = Step::new(own.0, own.1, options.graphs, member.clone());
        Self {
            step: Mutex::new(step),
            ordinal: options.ordinal,
            low_rank: options.low_rank,
            has_wgmma: cuda::has_wgmma(driver.capability),
            driver,
            functions,
            member,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Driver {
            name,
            capability: (major, minor),
            n_bytes,
            ..
        } = &*self.driver;
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let gib = *n_bytes as f64 / f64::from(1 << 30);
        format!(
            "CUDA device {}, {name}, compute capability {major}.{minor}, {gib:.1} GiB",
            self.ordinal
        )
    }

    pub(super) fn step(&self) -> MutexGuard<'_, Step> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles kernels now, so that no step waits for it.
    pub(crate) fn prepare(&self, image: &'static str) -> Result<(), CudaError> {
        let prepared = self.functions.prepare(image);
        prepared.map_err(|error| CudaError::Driver {
            doing: "compiling kernels",
            error,
        })
    }

    /// Ends a step: its failure, if it has failed.
    pub(crate) fn finish(&self) -> Result<(), String> {
        self.step().finish()
    }

    /// Why the device is of no use any more.
    pub(crate) fn lost(&self) -> Option<String> {
        self.step().lost().map(str::to_owned)
    }

    /// Copies values to the host, once what was noted is done.
    pub(crate) fn read(&self, from: DevicePtr, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.step().read(from, &mut out);
        out
    }

    /// Memory that holds these bytes.
    pub(crate) fn upload(&self, bytes: &[u8]) -> Result<Allocation, OutOfMemory> {
        let memory = self.driver.alloc(bytes.len())?;
        memory.write_at(0, bytes).map_err(|_| OutOfMemory {
            bytes: bytes.len(),
            of: MemoryKind::Device,
        })?;
        Ok(memory)
    }

    /// Runs one launch beside steps and waits for it.
    pub(crate) fn run_alone(&self, launch: &Launch) -> Result<(), String> {
        let function = self.functions.of(launch)?;
        let stream = self.driver.loading();
        let failed = |error| format!("{}: {}", launch.kernel, text(error));
        self.driver.bind().map_err(failed)?;
        // SAFETY: the caller holds all buffers until this returns, and no step uses them.
        unsafe { start(function, launch, stream) }.map_err(failed)?;
        self.driver.wait(stream).map_err(failed)
    }
}

impl Step {
    /// Memory to work in; if it cannot be had, the step has failed and the address is null.
    pub(super) fn scratch(&mut self, kind: Kind, n_bytes: usize) -> DevicePtr {
        let got = self.scratch.get(kind, n_bytes);
        got.unwrap_or_else(|refused| {
            self.fail(refused.to_string());
            DevicePtr::NULL
        })
    }

    /// Brings numbers to the device.
    pub(super) fn put_u32(&mut self, values: &[u32]) -> DevicePtr {
        self.put(bytes_of(values))
    }

    /// Brings numbers to the device.
    pub(super) fn put_f32(&mut self, values: &[f32]) -> DevicePtr {
        self.put(bytes_of(values))
    }
}

/// Numbers as they lie in memory; hosts of CUDA devices are little endian, as the devices are.
pub(super) fn bytes_of<T: crate::memory::Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values have no padding, so all their bytes are there to be read.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
