//! The functions of the C interface, by what they are about.

mod context;
mod device;
mod event;
mod graph;
mod launch;
mod memory;
mod module;
mod nccl;
mod stream;

use std::cell::Cell;

use crate::driver::{self, Driver};
use crate::error::Error;

thread_local! {
    /// The current context of the thread: a device's ordinal plus one, or 0.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// A `CUresult`.
type Code = u32;

/// Handles as C sees them.
type Handle = usize;

/// A device address.
type DevicePtr = u64;

fn result(done: Result<(), Error>) -> Code {
    done.map_or_else(|error| error.0, |()| 0)
}

/// Runs a function of the API on the driver's state.
fn call(f: impl FnOnce(&mut Driver) -> Result<(), Error>) -> Code {
    let mut driver = driver::lock();
    result(driver.as_mut().ok_or(Error::NOT_INITIALIZED).and_then(f))
}

/// The device of the current context.
fn current() -> Result<u32, Error> {
    match CURRENT.get() {
        0 => Err(Error::INVALID_CONTEXT),
        context => Ok(context as u32 - 1),
    }
}

/// The stream that a handle names; the default ones have the handles 0, 1 and 2 in the API.
fn stream(handle: Handle) -> Result<usize, Error> {
    match handle {
        0..=2 => Ok(current()? as usize),
        handle => Ok(handle),
    }
}

/// Writes a result where the caller wants it.
fn put<T>(to: *mut T, value: T) -> Result<(), Error> {
    if to.is_null() || !to.is_aligned() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: the caller of the API promises that a non-null pointer can be written.
    unsafe { to.write(value) };
    Ok(())
}
