//! Compiled kernels of a device, each image compiled by the driver when it is first needed.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::driver::{Driver, text};
use crate::cuda::{Launch, images_for};

/// Dynamic shared memory that every kernel may use.
const ALLOWED: u32 = 48 * 1024;

#[derive(Debug)]
pub(crate) struct Functions {
    driver: Arc<Driver>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<&'static str, Module>,
    functions: HashMap<&'static str, Function>,
}

#[derive(Clone, Copy, Debug)]
struct Module(sys::CUmodule);

// SAFETY: a number of the driver's, which any thread may use.
unsafe impl Send for Module {}

/// A kernel that can be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may use.
    allowed: u32,
}

// SAFETY: a number of the driver's, which any thread may use.
unsafe impl Send for Function {}

impl Functions {
    pub(crate) fn new(driver: Arc<Driver>) -> Self {
        Self {
            driver,
            loaded: Mutex::default(),
        }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles an image now, so that no step waits for it.
    pub(crate) fn prepare(&self, image: &'static str) -> Result<(), String> {
        self.module(&mut self.loaded(), image).map(|_| ())
    }

    fn module(&self, loaded: &mut Loaded, name: &'static str) -> Result<Module, String> {
        if let Some(module) = loaded.modules.get(name) {
            return Ok(*module);
        }
        let image = images_for(self.driver.capability)
            .find(|image| image.name == name)
            .expect("launches name images that there are");
        let module = self.driver.load_module(image.ptx);
        let module = module.map_err(|error| format!("kernels `{name}`: {}", text(error)))?;
        loaded.modules.insert(name, Module(module));
        Ok(Module(module))
    }

    /// The kernel of a launch, allowed the shared memory that the launch wants.
    pub(crate) fn of(&self, launch: &Launch) -> Result<Function, String> {
        let loaded = &mut *self.loaded();
        let failed = |error| format!("kernel `{}`: {}", launch.kernel, text(error));
        let mut function = match loaded.functions.get(launch.kernel) {
            Some(function) => *function,
            None => {
                let module = self.module(loaded, launch.image)?;
                self.driver.bind().map_err(failed)?;
                let name = CString::new(launch.kernel).expect("a name of a kernel");
                // SAFETY: modules are never unloaded.
                let handle = unsafe { result::module::get_function(module.0, name) };
                Function {
                    handle: handle.map_err(failed)?,
                    allowed: ALLOWED,
                }
            }
        };
        if launch.shared_bytes > function.allowed {
            use sys::CUfunction_attribute_enum as Attribute;
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let n_bytes = i32::try_from(launch.shared_bytes).expect("a few kilobytes");
            self.driver.bind().map_err(failed)?;
            // SAFETY: the function is of a loaded module.
            unsafe {
                result::function::set_function_attribute(function.handle, attribute, n_bytes)
            }
            .map_err(failed)?;
            function.allowed = launch.shared_bytes;
        }
        loaded.functions.insert(launch.kernel, function);
        Ok(function)
    }
}

/// Starts a kernel on a stream of the bound context.
///
/// # Safety
/// The launch's pointers are of live memory of that context, as large as the kernel takes them
/// to be, until the stream has done it; and nothing else uses them meanwhile.
pub(crate) unsafe fn start(
    function: Function,
    launch: &Launch,
    stream: sys::CUstream,
) -> Result<(), DriverError> {
    let bytes = launch.params.bytes();
    let offsets = launch.params.offsets().iter();
    let mut params: Vec<*mut c_void> = offsets
        .map(|&offset| bytes[offset..].as_ptr().cast_mut().cast())
        .collect();
    let [x, y, z] = launch.grid;
    // SAFETY: the parameters are laid out as the kernel has them (held by tests of every launch),
    // and are read before the call returns; the rest is the caller's promise.
    unsafe {
        result::launch_kernel(
            function.handle,
            (x, y, z),
            (launch.threads, 1, 1),
            launch.shared_bytes,
            stream,
            &mut params,
        )
    }
}
