//! Streams.

use std::ffi::{c_int, c_uint, c_void};

use super::{Code, Handle, call, current, put, result, stream};
use crate::command::{Command, HostCall};
use crate::driver::until_ready;
use crate::error::Error;
use crate::stream::Stream;

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(to: *mut Handle, _flags: c_uint) -> Code {
    call(|driver| {
        let device = current()?;
        driver.device(device)?;
        let handle = driver.handle();
        driver.streams.insert(handle, Stream::new(device));
        put(to, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(to: *mut Handle, flags: c_uint, _priority: c_int) -> Code {
    cuStreamCreate(to, flags)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(handle: Handle) -> Code {
    call(|driver| {
        // Its commands still run.
        let drained = driver.drain(handle);
        driver
            .streams
            .remove(&handle)
            .ok_or(Error::INVALID_HANDLE)?;
        drained
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(handle: Handle) -> Code {
    result(until_ready(|driver| {
        let stream = stream(handle)?;
        let found = driver.streams.get(&stream).ok_or(Error::INVALID_HANDLE)?;
        if let Some(capture) = found.capture {
            if let Some(capture) = driver.captures.get_mut(&capture) {
                capture.broken = true;
            }
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        driver.drain(stream)
    }))
}

/// Asking moves the stream on by one command, so that who asks often enough gets there.
#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(handle: Handle) -> Code {
    call(|driver| {
        let stream = stream(handle)?;
        driver.step(stream)?;
        match driver.streams.get(&stream) {
            Some(found) if found.queue.is_empty() => Ok(()),
            Some(_) => Err(Error::NOT_READY),
            None => Err(Error::INVALID_HANDLE),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(handle: Handle, event: Handle, _flags: c_uint) -> Code {
    call(|driver| {
        let stream = stream(handle)?;
        let found = driver.events.get(&event).ok_or(Error::INVALID_HANDLE)?;
        let (nth, of_capture) = (found.n_asked, found.capture);
        let waiting = driver
            .streams
            .get_mut(&stream)
            .ok_or(Error::INVALID_HANDLE)?;
        match (waiting.capture, of_capture) {
            // Part of one capture: its order keeps the dependency.
            (Some(own), Some(other)) if own == other => Ok(()),
            (None, Some(capture)) if driver.captures.contains_key(&capture) => {
                waiting.capture = Some(capture);
                Ok(())
            }
            (Some(capture), _) => {
                if let Some(capture) = driver.captures.get_mut(&capture) {
                    capture.broken = true;
                }
                driver.complain("a captured stream waits for an event outside of the capture");
                Err(Error::STREAM_CAPTURE_INVALIDATED)
            }
            _ if nth == 0 => Ok(()),
            _ => driver.enqueue(stream, Command::Wait { event, nth }),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(
    handle: Handle,
    function: Option<extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> Code {
    call(|driver| {
        let function = function.ok_or(Error::INVALID_VALUE)?;
        let argument = argument as usize;
        let call = HostCall { function, argument };
        driver.enqueue(stream(handle)?, Command::Host(call))
    })
}
