//! Launches, and how many blocks fit a multiprocessor.

use std::ffi::{c_int, c_uint, c_void};

use ptxsim::Launch;

use super::{Code, Handle, call, current, put, stream};
use crate::command::{Command, Function};
use crate::driver::Driver;
use crate::error::Error;

/// Copies the arguments into the buffer that the kernel reads.
fn arguments(function: &Function, params: *mut *mut c_void) -> Result<Vec<u8>, Error> {
    let kernel = function.kernel()?;
    let n = kernel.param_bytes().count();
    if n > 0 && params.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let mut buffer = Vec::new();
    for idx in 0..n {
        let (offset, len) = kernel.param_at(idx).ok_or(Error::INVALID_VALUE)?;
        buffer.resize(offset + len, 0);
        // SAFETY: the caller of the launch promises a pointer for each parameter, which leads to
        // as many bytes as the parameter has.
        unsafe {
            let from = *params.add(idx);
            if from.is_null() {
                return Err(Error::INVALID_VALUE);
            }
            let to = buffer[offset..].as_mut_ptr();
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, len);
        }
    }
    Ok(buffer)
}

fn launch(
    driver: &mut Driver,
    function: Handle,
    shape: Launch,
    to_stream: usize,
    params: *mut *mut c_void,
) -> Result<(), Error> {
    let device = current()?;
    driver.device(device)?;
    let function = driver.function(function)?;
    let function = function.clone();
    if shape.dynamic_shared > function.max_dynamic_shared {
        let (asked, limit) = (shape.dynamic_shared, function.max_dynamic_shared);
        let name = &function.name;
        driver.complain(&format!(
            "{name}: {asked} bytes of dynamic shared memory of {limit}"
        ));
        return Err(Error::INVALID_VALUE);
    }
    let params = arguments(&function, params)?;
    driver.control.launch(&function.name, device, false)?;
    driver.enqueue(
        to_stream,
        Command::Launch {
            function,
            launch: shape,
            params,
        },
    )
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    handle: Handle,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Code {
    call(|driver| {
        if !extra.is_null() {
            driver.complain("launch with a packed parameter buffer is not simulated");
            return Err(Error::NOT_SUPPORTED);
        }
        let shape = Launch::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = shape.with_shared(shared_bytes as usize);
        launch(driver, function, shape, stream(handle)?, params)
    })
}

/// Blocks of a function that fit a multiprocessor, by threads and shared memory.
fn fitting(
    driver: &mut Driver,
    function: Handle,
    threads: c_int,
    dynamic: usize,
) -> Result<c_int, Error> {
    let card = driver.device(current()?)?.card;
    let function = driver.function(function)?;
    let kernel = function.kernel()?;
    if threads < 1 {
        return Err(Error::INVALID_VALUE);
    }
    // The device keeps a KiB of each block for itself.
    let shared = (kernel.static_shared() + dynamic + 1024) as c_int;
    let by_threads = card.threads_per_multiprocessor / threads;
    let by_shared = card.shared_per_multiprocessor / shared;
    Ok(by_threads
        .min(by_shared)
        .min(card.blocks_per_multiprocessor))
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    to: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic: usize,
) -> Code {
    call(|driver| {
        let n = fitting(driver, function, threads, dynamic)?;
        put(to, n)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    to: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic: usize,
    _flags: c_uint,
) -> Code {
    cuOccupancyMaxActiveBlocksPerMultiprocessor(to, function, threads, dynamic)
}
