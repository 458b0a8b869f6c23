//! Events.

use std::ffi::c_uint;

use super::{Code, Handle, call, put, result, stream};
use crate::command::Command;
use crate::driver::until_ready;
use crate::error::Error;
use crate::stream::Event;

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(to: *mut Handle, _flags: c_uint) -> Code {
    call(|driver| {
        let handle = driver.handle();
        driver.events.insert(handle, Event::default());
        put(to, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: Handle) -> Code {
    call(|driver| {
        let found = driver.events.remove(&event);
        found.map(|_| ()).ok_or(Error::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, handle: Handle) -> Code {
    call(|driver| {
        let stream = stream(handle)?;
        let capture = driver
            .streams
            .get(&stream)
            .ok_or(Error::INVALID_HANDLE)?
            .capture;
        let found = driver.events.get_mut(&event).ok_or(Error::INVALID_HANDLE)?;
        found.capture = capture;
        if capture.is_some() {
            return Ok(());
        }
        found.n_asked += 1;
        found.stream = stream;
        let nth = found.n_asked;
        driver.enqueue(stream, Command::Record { event, nth })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> Code {
    result(until_ready(|driver| {
        let found = driver.events.get(&event).ok_or(Error::INVALID_HANDLE)?;
        if found.capture.is_some() {
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let nth = found.n_asked;
        driver.wait(event, nth)
    }))
}

/// Asking moves the event's stream on by one command.
#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: Handle) -> Code {
    call(|driver| {
        let reached = |found: &Event| found.n_reached >= found.n_asked;
        let found = driver.events.get(&event).ok_or(Error::INVALID_HANDLE)?;
        if reached(found) {
            return Ok(());
        }
        let stream = found.stream;
        driver.step(stream)?;
        match driver.events.get(&event) {
            Some(found) if !reached(found) => Err(Error::NOT_READY),
            _ => Ok(()),
        }
    })
}

fn elapsed(to: *mut f32, first: Handle, second: Handle) -> Code {
    call(|driver| {
        let at = |event: Handle| {
            let found = driver.events.get(&event).ok_or(Error::INVALID_HANDLE)?;
            let done = found.n_asked > 0 && found.n_reached >= found.n_asked;
            found.at.filter(|_| done).ok_or(Error::NOT_READY)
        };
        let (first, second) = (at(first)?, at(second)?);
        put(
            to,
            second.saturating_duration_since(first).as_secs_f32() * 1e3,
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(to: *mut f32, first: Handle, second: Handle) -> Code {
    elapsed(to, first, second)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(to: *mut f32, first: Handle, second: Handle) -> Code {
    elapsed(to, first, second)
}
