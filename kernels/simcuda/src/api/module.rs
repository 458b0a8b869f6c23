//! Modules and functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use ptxsim::Module;

use super::{Code, Handle, call, current, put};
use crate::command::Function;
use crate::driver::Driver;
use crate::error::Error;

/// Dynamic shared memory that a launch may ask for without an attribute.
const DEFAULT_SHARED: usize = 48 * 1024;

/// Whether code for `target` runs on a device of that capability.
fn runs_on(target: &str, arch: u32) -> bool {
    let Some(name) = target
        .split(',')
        .next()
        .and_then(|name| name.trim().strip_prefix("sm_"))
    else {
        return false;
    };
    // `sm_90a` runs on 9.0 only.
    match name.strip_suffix(['a', 'f']) {
        Some(exact) => exact.parse() == Ok(arch),
        None => name.parse::<u32>().is_ok_and(|least| least <= arch),
    }
}

fn load(driver: &mut Driver, to: *mut Handle, image: &CStr) -> Result<(), Error> {
    let ordinal = current()?;
    driver.device(ordinal)?;
    let Ok(text) = image.to_str() else {
        driver.complain("an image that is not PTX text: only PTX is simulated");
        return Err(Error::NO_BINARY_FOR_GPU);
    };
    let module = Module::parse(text).map_err(|error| {
        driver.complain(&error.to_string());
        Error::INVALID_PTX
    })?;
    if !runs_on(module.target(), driver.settings.arch) {
        let (target, arch) = (module.target(), driver.settings.arch);
        driver.complain(&format!("PTX for {target} on a device of sm_{arch}"));
        return Err(Error::NO_BINARY_FOR_GPU);
    }
    let handle = driver.handle();
    driver.modules.insert(handle, Arc::new(module));
    put(to, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(to: *mut Handle, image: *const c_char) -> Code {
    call(|driver| {
        if image.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller promises text that ends in a zero byte. A binary image begins with
        // bytes that are no text, and is refused at its first zero.
        let image = unsafe { CStr::from_ptr(image) };
        load(driver, to, image)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    to: *mut Handle,
    image: *const c_char,
    _n_options: c_uint,
    _options: *mut c_int,
    _values: *mut *mut c_void,
) -> Code {
    cuModuleLoadData(to, image)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(to: *mut Handle, path: *const c_char) -> Code {
    call(|driver| {
        if path.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller promises a path that ends in a zero byte.
        let path = unsafe { CStr::from_ptr(path) }
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read(path).map_err(|_| Error::FILE_NOT_FOUND)?;
        let text = std::ffi::CString::new(text).map_err(|_| Error::NO_BINARY_FOR_GPU)?;
        load(driver, to, &text)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> Code {
    call(|driver| {
        let found = driver.modules.remove(&module);
        found.map(|_| ()).ok_or(Error::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(to: *mut Handle, module: Handle, name: *const c_char) -> Code {
    call(|driver| {
        if name.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller promises a name that ends in a zero byte.
        let name = unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned();
        let module = driver.modules.get(&module).ok_or(Error::INVALID_HANDLE)?;
        let module = Arc::clone(module);
        let kernel = module.kernel(&name).ok_or(Error::NOT_FOUND)?;
        let max_dynamic_shared = DEFAULT_SHARED.saturating_sub(kernel.static_shared());
        let handle = driver.handle();
        let function = Function {
            module,
            name,
            max_dynamic_shared,
        };
        driver.functions.insert(handle, function);
        put(to, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(
    _to: *mut u64,
    _len: *mut usize,
    _module: Handle,
    _name: *const c_char,
) -> Code {
    call(|driver| {
        driver.complain("variables of modules cannot be reached from the host here");
        Err(Error::NOT_SUPPORTED)
    })
}

const MAX_THREADS: c_int = 0;
const SHARED_BYTES: c_int = 1;
const CONST_BYTES: c_int = 2;
const LOCAL_BYTES: c_int = 3;
const NUM_REGS: c_int = 4;
const PTX_VERSION: c_int = 5;
const BINARY_VERSION: c_int = 6;
const MAX_DYNAMIC_SHARED: c_int = 8;
const CARVEOUT: c_int = 9;

/// Registers of a thread are decided by the assembler, which does not run here: this is what
/// fills a multiprocessor with 2048 threads.
const ASSUMED_REGISTERS: c_int = 32;

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(to: *mut c_int, attribute: c_int, function: Handle) -> Code {
    call(|driver| {
        let arch = driver.settings.arch as c_int;
        let function = driver.function(function)?;
        let kernel = function.kernel()?;
        put(
            to,
            match attribute {
                MAX_THREADS => kernel.max_threads().unwrap_or(1024) as c_int,
                SHARED_BYTES => kernel.static_shared() as c_int,
                LOCAL_BYTES => kernel.local_bytes() as c_int,
                NUM_REGS => ASSUMED_REGISTERS,
                PTX_VERSION | BINARY_VERSION => arch,
                MAX_DYNAMIC_SHARED => function.max_dynamic_shared as c_int,
                CONST_BYTES | CARVEOUT => 0,
                _ => return Err(Error::INVALID_VALUE),
            },
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) -> Code {
    call(|driver| {
        let limit = driver.device(current()?)?.card.shared_per_block as usize;
        let function = driver
            .functions
            .get_mut(&function)
            .ok_or(Error::INVALID_HANDLE)?;
        let kernel = function.kernel()?;
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let value = usize::try_from(value).map_err(|_| Error::INVALID_VALUE)?;
                if value + kernel.static_shared() > limit {
                    return Err(Error::INVALID_VALUE);
                }
                function.max_dynamic_shared = value;
                Ok(())
            }
            // A preference only.
            CARVEOUT => Ok(()),
            _ => Err(Error::INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(_function: Handle, _config: c_int) -> Code {
    0
}
