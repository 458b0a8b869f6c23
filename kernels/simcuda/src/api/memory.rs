//! Device memory, pinned host memory, copies and fills.

use std::alloc::Layout;
use std::ffi::{c_int, c_uchar, c_uint, c_ushort, c_void};

use super::{Code, DevicePtr, Handle, call, current, put, result, stream};
use crate::command::{Command, Place};
use crate::driver::{Driver, until_ready};
use crate::error::Error;

fn alloc(driver: &mut Driver, to: *mut DevicePtr, len: usize) -> Result<(), Error> {
    let ordinal = current()?;
    if len == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let after = driver.device(ordinal)?.memory.in_use() + len as u64;
    if after > driver.device(ordinal)?.total_bytes {
        // What was freed in stream order may not have been given back yet.
        driver.drain_all()?;
    }
    let after = driver.device(ordinal)?.memory.in_use() + len as u64;
    driver.control.alloc(after, ordinal)?;
    let device = driver.device(ordinal)?;
    if after > device.total_bytes {
        return Err(Error::OUT_OF_MEMORY);
    }
    put(to, device.memory.alloc(len))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(to: *mut DevicePtr, len: usize) -> Code {
    call(|driver| alloc(driver, to, len))
}

/// Allocations have no order in the stream: they are there at once.
#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(to: *mut DevicePtr, len: usize, handle: Handle) -> Code {
    call(|driver| {
        let stream = driver.streams.get(&stream(handle)?);
        if stream.ok_or(Error::INVALID_HANDLE)?.capture.is_some() {
            driver.complain("allocation within a captured stream is not simulated");
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        alloc(driver, to, len)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(
    to: *mut DevicePtr,
    len: usize,
    _pool: Handle,
    handle: Handle,
) -> Code {
    cuMemAllocAsync(to, len, handle)
}

/// Waits for all that may still use the memory, as the driver does.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: DevicePtr) -> Code {
    call(|driver| {
        if address == 0 {
            return Ok(());
        }
        // A lost context still gives its memory back.
        let drained = driver.drain_all();
        let freed = driver.memory_of(address)?.free(address);
        freed.map_err(|_| Error::INVALID_VALUE)?;
        drained
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: DevicePtr, handle: Handle) -> Code {
    call(|driver| {
        let ordinal = current()?;
        let lost = driver.devices[ordinal as usize].lost;
        if let Some(error) = lost {
            driver
                .memory_of(address)?
                .free(address)
                .map_err(|_| Error::INVALID_VALUE)?;
            return Err(error);
        }
        driver.enqueue(stream(handle)?, Command::Free(address))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    call(|driver| {
        driver.drain_all()?;
        let device = driver.device(current()?)?;
        put(total, device.total_bytes as usize)?;
        put(
            free,
            device.total_bytes.saturating_sub(device.memory.in_use()) as usize,
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(_pool: Handle, _attribute: c_int, _value: *mut c_void) -> Code {
    0
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(_pool: Handle, _attribute: c_int, value: *mut u64) -> Code {
    result(put(value, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(_pool: Handle, _keep: usize) -> Code {
    0
}

const PINNED_ALIGN: usize = 4096;

fn pinned_layout(len: usize) -> Result<Layout, Error> {
    Layout::from_size_align(len.max(1), PINNED_ALIGN).map_err(|_| Error::INVALID_VALUE)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(to: *mut Handle, len: usize, _flags: c_uint) -> Code {
    call(|driver| {
        let layout = pinned_layout(len)?;
        // SAFETY: the layout has a size; the memory is filled before anyone sees it.
        let address = unsafe {
            let address = std::alloc::alloc(layout);
            if address.is_null() {
                return Err(Error::OUT_OF_MEMORY);
            }
            address.write_bytes(0xFF, layout.size());
            address as usize
        };
        driver.pinned.insert(address, len);
        put(to, address)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(to: *mut Handle, len: usize) -> Code {
    cuMemHostAlloc(to, len, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: Handle) -> Code {
    call(|driver| {
        let drained = driver.drain_all();
        let len = driver.pinned.remove(&address).ok_or(Error::INVALID_VALUE)?;
        let layout = pinned_layout(len)?;
        // SAFETY: allocated above with this layout, and forgotten now.
        unsafe { std::alloc::dealloc(address as *mut u8, layout) };
        drained
    })
}

fn upload(
    driver: &mut Driver,
    to: u64,
    from: usize,
    len: usize,
    to_stream: usize,
) -> Result<(), Error> {
    let capturing = driver
        .streams
        .get(&to_stream)
        .is_some_and(|found| found.capture.is_some());
    if driver.is_pinned(from, len) || capturing {
        let (to, from) = (Place::Device(to), Place::Host(from));
        return driver.enqueue(to_stream, Command::Copy { to, from, len });
    }
    let mut bytes = vec![0; len];
    if len > 0 {
        // SAFETY: the caller of the copy promises so many bytes to read.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), len) };
    }
    driver.enqueue(to_stream, Command::Write { to, bytes })
}

fn download(driver: &mut Driver, to: usize, from: u64, len: usize, of: usize) -> Result<(), Error> {
    let late = driver.is_pinned(to, len);
    let (to, from) = (Place::Host(to), Place::Device(from));
    driver.enqueue(of, Command::Copy { to, from, len })?;
    let capturing = driver
        .streams
        .get(&of)
        .is_some_and(|found| found.capture.is_some());
    // A copy to pageable memory returns when it is done.
    if late || capturing {
        Ok(())
    } else {
        driver.drain(of)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(
    to: DevicePtr,
    from: Handle,
    len: usize,
    handle: Handle,
) -> Code {
    call(|driver| upload(driver, to, from, len, stream(handle)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(
    to: Handle,
    from: DevicePtr,
    len: usize,
    handle: Handle,
) -> Code {
    let given = call(|driver| download(driver, to, from, len, stream(handle)?));
    if given != Error::NOT_READY.0 {
        return given;
    }
    result(until_ready(|driver| driver.drain(stream(handle)?)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(
    to: DevicePtr,
    from: DevicePtr,
    len: usize,
    handle: Handle,
) -> Code {
    call(|driver| {
        let (to, from) = (Place::Device(to), Place::Device(from));
        driver.enqueue(stream(handle)?, Command::Copy { to, from, len })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: DevicePtr,
    _to_context: Handle,
    from: DevicePtr,
    _from_context: Handle,
    len: usize,
    handle: Handle,
) -> Code {
    cuMemcpyDtoDAsync_v2(to, from, len, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: DevicePtr, from: Handle, len: usize) -> Code {
    call(|driver| {
        driver.drain_all()?;
        let default = stream(0)?;
        upload(driver, to, from, len, default)?;
        driver.drain(default)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: Handle, from: DevicePtr, len: usize) -> Code {
    call(|driver| {
        driver.drain_all()?;
        let default = stream(0)?;
        download(driver, to, from, len, default)?;
        driver.drain(default)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: DevicePtr, from: DevicePtr, len: usize) -> Code {
    cuMemcpyDtoDAsync_v2(to, from, len, 0)
}

fn fill(to: DevicePtr, pattern: &[u8], n: usize, handle: Handle) -> Code {
    call(|driver| {
        let pattern = pattern.to_vec();
        driver.enqueue(stream(handle)?, Command::Fill { to, pattern, n })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: DevicePtr, value: c_uchar, n: usize, handle: Handle) -> Code {
    fill(to, &[value], n, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(to: DevicePtr, value: c_ushort, n: usize, handle: Handle) -> Code {
    fill(to, &value.to_le_bytes(), n, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: DevicePtr, value: c_uint, n: usize, handle: Handle) -> Code {
    fill(to, &value.to_le_bytes(), n, handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: DevicePtr, value: c_uchar, n: usize) -> Code {
    fill(to, &[value], n, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: DevicePtr, value: c_uint, n: usize) -> Code {
    fill(to, &value.to_le_bytes(), n, 0)
}
