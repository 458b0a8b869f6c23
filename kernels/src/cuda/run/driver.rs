//! The driver: found at run time, so that one binary runs with and without it.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::cuda::images_for;
use crate::memory::{MemoryKind, OutOfMemory, Plain};

/// A GPU that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CudaError {
    #[error("there is no NVIDIA driver (no libcuda.so on the library path)")]
    NoDriver,
    #[error("there is no CUDA device {asked}: the driver has {found}")]
    NoDevice { asked: usize, found: usize },
    #[error("{name} has compute capability {}.{}; at least 8.0 is needed", .capability.0, .capability.1)]
    TooOld {
        name: String,
        capability: (u32, u32),
    },
    #[error(
        "several devices exchange values through NCCL, which cannot be used (libnccl.so.2 on the \
         library path; packages call it libnccl2 or nvidia-nccl): {why}"
    )]
    NoNccl { why: String },
    #[error("devices that compute together must be alike, but {first} and {other} are not")]
    Unlike { first: String, other: String },
    #[error("the NVIDIA driver failed while {doing}: {error}")]
    Driver { doing: &'static str, error: String },
}

/// What the driver says of a failed call.
pub(crate) fn text(error: DriverError) -> String {
    let say = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(
            |_| String::new(),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    let (name, what) = (say(error.error_name()), say(error.error_string()));
    if name.is_empty() {
        return format!("CUDA error {}", error.0 as u32);
    }
    format!("{name} ({what})")
}

/// What a call failed at, and what the driver says of it.
pub(super) fn failed(doing: &str) -> impl Fn(DriverError) -> String {
    move |error| format!("{doing}: {}", text(error))
}

/// One device: its context, its streams, and memory that is given back.
#[derive(Debug)]
pub(crate) struct Driver {
    context: Arc<CudaContext>,
    /// Steps run here, in order.
    steps: Arc<CudaStream>,
    /// Weights are copied here, beside steps.
    loading: Arc<CudaStream>,
    pub(crate) name: String,
    pub(crate) capability: (u32, u32),
    pub(crate) n_bytes: u64,
    retired: Mutex<Retired>,
    /// Bytes of the first buffer that could not be had since somebody asked; 0: none.
    missing: AtomicU64,
}

/// Memory that nobody owns any more, but that a step at work may still use.
#[derive(Debug, Default)]
struct Retired {
    is_busy: bool,
    /// Number of the step that is being put together.
    step: u64,
    /// With the last step that may use it.
    addresses: Vec<(u64, u64)>,
}

impl Driver {
    /// Takes device `ordinal`.
    pub(crate) fn open(ordinal: usize) -> Result<Self, CudaError> {
        // SAFETY: only looks a library up by its name; nothing of it is called.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let failed = |doing| {
            move |error| CudaError::Driver {
                doing,
                error: text(error),
            }
        };
        result::init().map_err(failed("starting"))?;
        let found = result::device::get_count().map_err(failed("counting devices"))?;
        let found = usize::try_from(found).unwrap_or(0);
        if ordinal >= found {
            return Err(CudaError::NoDevice {
                asked: ordinal,
                found,
            });
        }
        let context = CudaContext::new(ordinal).map_err(failed("taking the device"))?;
        let name = context.name().map_err(failed("asking for its name"))?;
        let (major, minor) = context
            .compute_capability()
            .map_err(failed("asking for its compute capability"))?;
        let capability = (major.unsigned_abs(), minor.unsigned_abs());
        if images_for(capability).next().is_none() {
            return Err(CudaError::TooOld { name, capability });
        }
        let (_, n_bytes) = context
            .mem_get_info()
            .map_err(failed("asking for its memory"))?;
        let stream = || context.new_stream().map_err(failed("making a stream"));
        Ok(Self {
            steps: stream()?,
            loading: stream()?,
            name,
            capability,
            n_bytes: n_bytes as u64,
            retired: Mutex::default(),
            missing: AtomicU64::new(0),
            context,
        })
    }

    /// Makes the context that of the calling thread; every other call needs that.
    pub(crate) fn bind(&self) -> Result<(), DriverError> {
        self.context.bind_to_thread()
    }

    /// The stream of steps.
    pub(crate) fn steps(&self) -> sys::CUstream {
        self.steps.cu_stream()
    }

    /// The stream of loading.
    pub(crate) fn loading(&self) -> sys::CUstream {
        self.loading.cu_stream()
    }

    /// Waits until all that was given to a stream of this device is done.
    pub(crate) fn wait(&self, stream: sys::CUstream) -> Result<(), DriverError> {
        self.bind()?;
        // SAFETY: streams live as long as the driver.
        unsafe { result::stream::synchronize(stream) }
    }

    /// Memory that nobody has taken.
    pub(crate) fn free_bytes(&self) -> u64 {
        let info = self.context.mem_get_info();
        info.map_or(0, |(free, _)| free as u64)
    }

    /// Memory with anything in it. No bytes are no allocation.
    pub(crate) fn alloc(self: &Arc<Self>, n_bytes: usize) -> Result<Allocation, OutOfMemory> {
        let refused = OutOfMemory {
            bytes: n_bytes,
            of: MemoryKind::Device,
        };
        let at = if n_bytes == 0 {
            0
        } else {
            self.bind().map_err(|_| refused)?;
            // SAFETY: what is in it is never read as anything but numbers.
            unsafe { result::malloc_sync(n_bytes) }.map_err(|_| refused)?
        };
        Ok(Allocation {
            driver: self.clone(),
            at,
            n_bytes,
        })
    }

    /// Notes that a buffer could not be had.
    pub(crate) fn note_missing(&self, refused: OutOfMemory) {
        let bytes = refused.bytes.max(1) as u64;
        let known = Ordering::Relaxed;
        // Only the first one is kept.
        self.missing.compare_exchange(0, bytes, known, known).ok();
    }

    /// The first buffer that could not be had since the last call.
    pub(crate) fn take_missing(&self) -> Option<OutOfMemory> {
        let bytes = self.missing.swap(0, Ordering::Relaxed);
        (bytes > 0).then(|| OutOfMemory {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            of: MemoryKind::Device,
        })
    }

    /// Compiles an image for this device.
    pub(crate) fn load_module(&self, ptx: &str) -> Result<sys::CUmodule, DriverError> {
        self.bind()?;
        let text = CString::new(ptx).expect("PTX is text");
        // SAFETY: the image is text that ends with a zero.
        unsafe { result::module::load_data(text.as_ptr().cast::<c_void>()) }
    }

    fn retired(&self) -> MutexGuard<'_, Retired> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step is at work: memory that is given back from here on is kept until it has ended.
    pub(crate) fn begin_work(&self) {
        self.retired().is_busy = true;
    }

    /// What was put together is a step of its own; its number.
    pub(crate) fn next_step(&self) -> u64 {
        let mut retired = self.retired();
        retired.step += 1;
        retired.step - 1
    }

    /// Steps up to this one have ended.
    pub(crate) fn end_step(&self, number: u64) {
        let ended = {
            let mut retired = self.retired();
            let ended = |(step, _): &mut (u64, u64)| *step <= number;
            retired.addresses.extract_if(.., ended).collect::<Vec<_>>()
        };
        for (_, at) in ended {
            self.free(at);
        }
    }

    /// Nothing is at work.
    pub(crate) fn end_work(&self) {
        self.retired().is_busy = false;
        self.end_step(u64::MAX);
    }

    fn free(&self, at: u64) {
        if self.bind().is_ok() {
            // SAFETY: it came from `alloc`, its owner is gone, and no step is at work on it.
            // A failure means that the context is lost, and the memory with it.
            unsafe { result::free_sync(at) }.ok();
        }
    }
}

/// Memory of a device, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Allocation {
    driver: Arc<Driver>,
    at: u64,
    n_bytes: usize,
}

impl Allocation {
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Copies bytes to it from `offset` on and waits for them to be there.
    pub(crate) fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        assert!(offset + bytes.len() <= self.n_bytes, "more than there is");
        if bytes.is_empty() {
            return Ok(());
        }
        let (driver, to) = (&self.driver, self.at + offset as u64);
        driver.bind()?;
        // SAFETY: within the allocation, and the bytes are borrowed until the copy is done.
        unsafe { result::memcpy_htod_async(to, bytes, driver.loading()) }?;
        driver.wait(driver.loading())
    }

    /// Copies what is in it from `offset` on to the host; nothing is at work on it.
    pub(crate) fn read_at<T: Plain>(
        &self,
        offset: usize,
        out: &mut [T],
    ) -> Result<(), DriverError> {
        assert!(
            offset + size_of_val(out) <= self.n_bytes,
            "more than there is"
        );
        if out.is_empty() {
            return Ok(());
        }
        let (driver, from) = (&self.driver, self.at + offset as u64);
        driver.bind()?;
        // SAFETY: within the allocation, and `out`, of which any bytes are a value, is borrowed
        // until the copy is done.
        unsafe { result::memcpy_dtoh_async(out, from, driver.loading()) }?;
        driver.wait(driver.loading())
    }

    /// Makes all bytes zero and waits for that.
    pub(crate) fn clear(&self) -> Result<(), DriverError> {
        if self.n_bytes == 0 {
            return Ok(());
        }
        let driver = &self.driver;
        driver.bind()?;
        // SAFETY: exactly the allocation.
        unsafe { result::memset_d8_async(self.at, 0, self.n_bytes, driver.loading()) }?;
        driver.wait(driver.loading())
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.at == 0 {
            return;
        }
        let mut retired = self.driver.retired();
        if retired.is_busy {
            let step = retired.step;
            retired.addresses.push((step, self.at));
        } else {
            drop(retired);
            self.driver.free(self.at);
        }
    }
}
