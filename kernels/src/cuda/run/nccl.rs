//! NCCL, found at run time like the driver: only what devices of one process need to exchange
//! values. No crate binds the name that packages install (`libnccl.so.2`), so we do.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

use cudarc::driver::sys;
use libloading::Library;

use super::driver::CudaError;
use crate::cuda::DevicePtr;

/// The names that packages install it by.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// Oldest version that has been thought about: `ncclCommAbort` ends what waits.
const OLDEST: c_int = 21_800;
const SUCCESS: c_int = 0;
const FLOAT32: c_int = 7;

/// An `ncclComm_t`: a device's place among others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comm(*mut c_void);

// SAFETY: a handle that any thread may use, one at a time: it is kept behind a mutex.
unsafe impl Send for Comm {}

type CommInitAll = unsafe extern "C" fn(*mut *mut c_void, c_int, *const c_int) -> c_int;
type AllGather = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    *mut c_void,
    sys::CUstream,
) -> c_int;
type CommAbort = unsafe extern "C" fn(*mut c_void) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;
type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;

/// The library's functions.
pub(super) struct Nccl {
    comm_init_all: CommInitAll,
    all_gather: AllGather,
    comm_abort: CommAbort,
    get_error_string: GetErrorString,
    /// `2.28.3`.
    pub(super) version: String,
    /// Keeps the functions where they are.
    _library: Library,
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nccl {}", self.version)
    }
}

impl Nccl {
    pub(super) fn open() -> Result<Self, CudaError> {
        let mut why = String::new();
        for name in NAMES {
            // SAFETY: NCCL's initialisers do nothing but set up its own state.
            match unsafe { Library::new(name) } {
                Ok(library) => return Self::of(library, name),
                Err(error) => why = error.to_string(),
            }
        }
        Err(CudaError::NoNccl { why })
    }

    fn of(library: Library, name: &str) -> Result<Self, CudaError> {
        let missing = |error: libloading::Error| CudaError::NoNccl {
            why: format!("{name}: {error}"),
        };
        // SAFETY: these are the types of nccl.h, the same in all versions since 2.4.
        let (get_version, comm_init_all, all_gather, comm_abort, get_error_string) = unsafe {
            (
                *library
                    .get::<GetVersion>("ncclGetVersion")
                    .map_err(missing)?,
                *library
                    .get::<CommInitAll>("ncclCommInitAll")
                    .map_err(missing)?,
                *library.get::<AllGather>("ncclAllGather").map_err(missing)?,
                *library.get::<CommAbort>("ncclCommAbort").map_err(missing)?,
                *library
                    .get::<GetErrorString>("ncclGetErrorString")
                    .map_err(missing)?,
            )
        };
        let mut version = 0;
        // SAFETY: there is room for a number.
        let code = unsafe { get_version(&raw mut version) };
        let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
        let version_text = format!("{major}.{minor}.{patch}");
        if code != SUCCESS || version < OLDEST {
            return Err(CudaError::NoNccl {
                why: format!("{name} is version {version_text}, at least 2.18 is needed"),
            });
        }
        Ok(Self {
            comm_init_all,
            all_gather,
            comm_abort,
            get_error_string,
            version: version_text,
            _library: library,
        })
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: takes any number, and gives a text that stays.
        let text = unsafe { (self.get_error_string)(code) };
        if text.is_null() {
            return Err(format!("NCCL error {code}"));
        }
        // SAFETY: a text that ends with a zero.
        let text = unsafe { CStr::from_ptr(text) };
        Err(format!("NCCL error {code} ({})", text.to_string_lossy()))
    }

    /// A place for each device, in order.
    pub(super) fn join(&self, ordinals: &[usize]) -> Result<Vec<Comm>, String> {
        let devices: Vec<c_int> = ordinals
            .iter()
            .map(|&ordinal| crate::cuda::int(ordinal))
            .collect();
        let mut comms = vec![std::ptr::null_mut(); devices.len()];
        let n = crate::cuda::int(devices.len());
        // SAFETY: as many devices and as much room as `n` says.
        self.check(unsafe { (self.comm_init_all)(comms.as_mut_ptr(), n, devices.as_ptr()) })?;
        Ok(comms.into_iter().map(Comm).collect())
    }

    /// Puts `n` values of each device, in the order of the devices, to `to`, on `stream`. It is
    /// done once all devices have come to it.
    ///
    /// # Safety
    /// `from` holds `n` values and `to` room for those of all devices, on the device of `comm`,
    /// until the stream has done it; and `comm` has not been aborted.
    pub(super) unsafe fn all_gather(
        &self,
        comm: Comm,
        from: DevicePtr,
        to: DevicePtr,
        n: usize,
        stream: sys::CUstream,
    ) -> Result<(), String> {
        let (from, to) = (from.0 as *const c_void, to.0 as *mut c_void);
        // SAFETY: the caller's promise.
        self.check(unsafe { (self.all_gather)(from, to, n, FLOAT32, comm.0, stream) })
    }

    /// Ends whatever waits for other devices.
    ///
    /// # Safety
    /// `comm` is not used any more.
    pub(super) unsafe fn abort(&self, comm: Comm) -> Result<(), String> {
        // SAFETY: the caller's promise.
        self.check(unsafe { (self.comm_abort)(comm.0) })
    }
}
