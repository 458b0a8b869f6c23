//! Initialisation, devices and errors' names.

use std::ffi::{c_char, c_int, c_uint};

use super::{Code, Handle, call, put, result};
use crate::driver::{self, Driver};
use crate::error::Error;
use crate::report::tell;
use crate::settings::Settings;

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Code {
    if flags != 0 {
        return Error::INVALID_VALUE.0;
    }
    let mut driver = driver::lock();
    if driver.is_none() {
        match Settings::read() {
            Ok(settings) => *driver = Some(Driver::new(settings)),
            Err(what) => {
                tell(&what);
                return Error::INVALID_VALUE.0;
            }
        }
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    result(put(version, 13000))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    call(|driver| put(count, driver.devices.len() as c_int))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    call(|driver| {
        if !(0..driver.devices.len() as c_int).contains(&ordinal) {
            return Err(Error::INVALID_DEVICE);
        }
        put(device, ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> Code {
    call(|driver| {
        let device = driver.devices.get(device as usize);
        let text = device.ok_or(Error::INVALID_DEVICE)?.card.name.as_bytes();
        let n = text.len().min((len as usize).saturating_sub(1));
        for (at, byte) in text[..n].iter().chain(&[0]).enumerate() {
            // SAFETY: the caller promises room for `len` bytes, and n + 1 <= len.
            put(unsafe { name.add(at) }, *byte as c_char)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> Code {
    call(|driver| {
        let device = driver.devices.get(device as usize);
        let card = device.ok_or(Error::INVALID_DEVICE)?.card;
        match card.attribute(attribute) {
            Some(found) => put(value, found),
            None => {
                tell(&format!("device attribute {attribute} is not simulated"));
                Err(Error::INVALID_VALUE)
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> Code {
    call(|driver| {
        let device = driver.devices.get(device as usize);
        put(
            bytes,
            device.ok_or(Error::INVALID_DEVICE)?.total_bytes as usize,
        )
    })
}

fn uuid(to: *mut [u8; 16], device: c_int) -> Code {
    call(|driver| {
        if device as usize >= driver.devices.len() {
            return Err(Error::INVALID_DEVICE);
        }
        let mut bytes = *b"simulated-device";
        bytes[15] = device as u8;
        put(to, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(to: *mut [u8; 16], device: c_int) -> Code {
    uuid(to, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(to: *mut [u8; 16], device: c_int) -> Code {
    uuid(to, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceCanAccessPeer(can: *mut c_int, _device: c_int, _peer: c_int) -> Code {
    result(put(can, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: c_int) -> Code {
    result(put(pool, device as usize + 1))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(pool: *mut Handle, device: c_int) -> Code {
    result(put(pool, device as usize + 1))
}

fn text(code: c_uint, to: *mut *const c_char, of: impl Fn(u32) -> Option<*const c_char>) -> Code {
    match of(code) {
        Some(text) => result(put(to, text)),
        None => Error::INVALID_VALUE.0,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: c_uint, to: *mut *const c_char) -> Code {
    text(code, to, |code| Some(Error::texts(code)?.0.as_ptr()))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: c_uint, to: *mut *const c_char) -> Code {
    text(code, to, |code| Some(Error::texts(code)?.1.as_ptr()))
}
