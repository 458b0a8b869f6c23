//! Contexts: each device has its primary one and no other.

use std::ffi::{c_int, c_uint};

use super::{CURRENT, Code, Handle, call, current, put, result};
use crate::driver::until_ready;
use crate::error::Error;
use crate::stream::Stream;

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Code {
    call(|driver| {
        if device as usize >= driver.devices.len() {
            return Err(Error::INVALID_DEVICE);
        }
        put(context, device as usize + 1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Code {
    0
}

/// What a lost context needs: its commands are dropped, and the device works again. Memory
/// stays what it is, so that who frees it later does no wrong.
#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> Code {
    call(|driver| {
        let ordinal = device as u32;
        let found = driver.devices.get_mut(device as usize);
        found.ok_or(Error::INVALID_DEVICE)?.lost = None;
        let own = |stream: &&mut Stream| stream.device == ordinal;
        for stream in driver.streams.values_mut().filter(own) {
            stream.queue.clear();
            stream.capture = None;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Code {
    result(put(context, CURRENT.get()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> Code {
    call(|driver| {
        if context > driver.devices.len() {
            return Err(Error::INVALID_CONTEXT);
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Code {
    result(current().and_then(|ordinal| put(device, ordinal as c_int)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    result(until_ready(|driver| {
        let ordinal = current()?;
        let streams = driver.streams.iter();
        let own = streams.filter(|(_, stream)| stream.device == ordinal);
        let own: Vec<usize> = own.map(|(handle, _)| *handle).collect();
        if own
            .iter()
            .any(|handle| driver.streams[handle].capture.is_some())
        {
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        own.into_iter().try_for_each(|stream| driver.drain(stream))
    }))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> Code {
    result(put(least, 0).and_then(|()| put(greatest, -5)))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(_flags: c_uint) -> Code {
    0
}
