//! The part of NCCL that Understudy calls, for devices of one process. Results are NCCL's codes.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{Handle, put, stream};
use crate::clique::{Clique, Gather, Meeting, Rank};
use crate::command::Command;
use crate::driver::{Driver, lock, tell_met};
use crate::error::Error;

/// An `ncclResult_t`.
type Code = c_int;

const SUCCESS: Code = 0;
const UNHANDLED_CUDA_ERROR: Code = 1;
const INVALID_ARGUMENT: Code = 4;

/// `ncclFloat32`.
const FLOAT32: c_int = 7;

/// Most ranks of a clique: handles of its ranks follow each other below the next handle.
const MOST_RANKS: usize = 8;

fn call(f: impl FnOnce(&mut Driver) -> Result<(), Error>) -> Code {
    let mut driver = lock();
    match driver.as_mut().ok_or(Error::NOT_INITIALIZED).and_then(f) {
        Ok(()) => SUCCESS,
        Err(Error::INVALID_VALUE | Error::INVALID_HANDLE) => INVALID_ARGUMENT,
        Err(_) => UNHANDLED_CUDA_ERROR,
    }
}

/// The clique and the rank of an `ncclComm`.
fn place(driver: &Driver, comm: Handle) -> Result<(usize, usize), Error> {
    let below = driver.cliques.range(..=comm).next_back();
    let (first, clique) = below.ok_or(Error::INVALID_HANDLE)?;
    let rank = comm - first;
    if rank >= clique.ranks.len() {
        return Err(Error::INVALID_HANDLE);
    }
    Ok((*first, rank))
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetVersion(version: *mut c_int) -> Code {
    call(|_| put(version, 22800))
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(code: Code) -> *const c_char {
    let text: &CStr = match code {
        SUCCESS => c"no error",
        UNHANDLED_CUDA_ERROR => c"unhandled cuda error",
        INVALID_ARGUMENT => c"invalid argument",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommInitAll(comms: *mut Handle, n: c_int, devices: *const c_int) -> Code {
    call(|driver| {
        let n = n as usize;
        if !(1..=MOST_RANKS).contains(&n) || comms.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let device = |rank| {
            if devices.is_null() {
                return rank as u32;
            }
            // SAFETY: the caller promises so many numbers.
            unsafe { *devices.add(rank) as u32 }
        };
        let mut ranks = Vec::new();
        for rank in 0..n {
            let device = device(rank);
            driver.device(device)?;
            let at = Meeting::Coming;
            ranks.push(Rank { device, at });
        }
        let first = driver.handle();
        let aborted = false;
        driver.cliques.insert(first, Clique { ranks, aborted });
        for rank in 0..n {
            // SAFETY: the caller promises room for so many handles.
            put(unsafe { comms.add(rank) }, first + rank)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclAllGather(
    from: *const c_void,
    to: *mut c_void,
    n: usize,
    ty: c_int,
    comm: Handle,
    handle: Handle,
) -> Code {
    call(|driver| {
        let (clique, rank) = place(driver, comm)?;
        if ty != FLOAT32 {
            driver.complain(&format!("a gather of type {ty} is not simulated"));
            return Err(Error::INVALID_VALUE);
        }
        let device = driver.cliques[&clique].ranks[rank].device;
        driver.control.launch("nccl_all_gather", device, false)?;
        let gather = Gather {
            clique,
            rank,
            from: from as u64,
            to: to as u64,
            len: 4 * n,
        };
        driver.enqueue(stream(handle)?, Command::Gather(gather))
    })
}

/// What waits for other ranks goes on, with nothing gathered.
#[unsafe(no_mangle)]
extern "C" fn ncclCommAbort(comm: Handle) -> Code {
    let code = call(|driver| {
        let (clique, _) = place(driver, comm)?;
        if let Some(clique) = driver.cliques.get_mut(&clique) {
            clique.aborted = true;
        }
        Ok(())
    });
    tell_met();
    code
}
