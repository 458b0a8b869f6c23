//! What a step brings from the host: lists of tokens, slots, angles, tables. All of them lie in
//! one piece of pinned memory, which goes to the device in one copy. There are two such pieces, in
//! turn: the copy of one step may not have been made when the next is put together. On the device
//! one is enough, since copies and kernels follow each other in one stream.
//!
//! Places depend only on the sizes of what was put before, rounded up: steps of the same shape
//! find theirs at the same addresses, so that a captured graph of one is a graph of all.

use std::sync::Arc;

use cudarc::driver::{DriverError, result};

use super::driver::{Allocation, Driver};
use crate::cuda::DevicePtr;
use crate::memory::{MemoryKind, OutOfMemory};

/// Places are multiples of this.
const ALIGN: usize = 256;

#[derive(Debug)]
pub(crate) struct Arena {
    /// The first is written, the other may be read by a step that was started.
    hosts: [Pinned; 2],
    device: Allocation,
    used: usize,
    /// Bytes that were copied already.
    sent: usize,
    entries: Vec<Entry>,
}

/// Where the bytes of one list lie.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first: usize,
    len: usize,
}

impl Arena {
    pub(crate) fn new(driver: &Arc<Driver>, n_bytes: usize) -> Result<Self, OutOfMemory> {
        Ok(Self {
            hosts: [Pinned::new(driver, n_bytes)?, Pinned::new(driver, n_bytes)?],
            device: driver.alloc(n_bytes)?,
            used: 0,
            sent: 0,
            entries: Vec::new(),
        })
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.device.n_bytes()
    }

    /// How much room so many bytes take.
    pub(crate) fn room(len: usize) -> usize {
        len.next_power_of_two().max(ALIGN)
    }

    /// Where the bytes will be on the device; `None`: there is no room. Bytes that are there
    /// already are not put twice: layers share them.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<DevicePtr> {
        let same = |entry: &&Entry| {
            entry.len == bytes.len() && self.hosts[0].bytes()[entry.first..][..entry.len] == *bytes
        };
        if let Some(entry) = self.entries.iter().find(same) {
            return Some(DevicePtr(self.device.at()).offset(entry.first));
        }
        let first = self.used;
        if Self::room(bytes.len()) > self.n_bytes() - first {
            return None;
        }
        self.used += Self::room(bytes.len());
        self.hosts[0].bytes_mut()[first..][..bytes.len()].copy_from_slice(bytes);
        self.entries.push(Entry {
            first,
            len: bytes.len(),
        });
        Some(DevicePtr(self.device.at()).offset(first))
    }

    /// Copies what was put since the last call.
    pub(crate) fn send(&mut self, driver: &Driver) -> Result<(), DriverError> {
        if self.sent == self.used {
            return Ok(());
        }
        let (first, end) = (self.sent, self.used);
        self.sent = end;
        let to = self.device.at() + first as u64;
        // SAFETY: both sides are as long, and these bytes of the host stay as they are until they
        // are written again, which is after `reset` or two `swap`s: the stream has been waited for,
        // or the step that this is of has ended.
        unsafe { result::memcpy_htod_async(to, &self.hosts[0].bytes()[first..end], driver.steps()) }
    }

    /// Begins the next step's lists, while this one's are on their way. Those before have arrived.
    pub(crate) fn swap(&mut self) {
        self.hosts.swap(0, 1);
        self.reset();
    }

    /// Forgets everything. The stream has done all that read it.
    pub(crate) fn reset(&mut self) {
        self.used = 0;
        self.sent = 0;
        self.entries.clear();
    }
}

/// Memory of the host that the device reads by itself.
#[derive(Debug)]
pub(crate) struct Pinned {
    driver: Arc<Driver>,
    start: *mut u8,
    n_bytes: usize,
}

// SAFETY: owned by this value alone, like a boxed slice.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Zeros.
    pub(crate) fn new(driver: &Arc<Driver>, n_bytes: usize) -> Result<Self, OutOfMemory> {
        let refused = OutOfMemory {
            bytes: n_bytes,
            of: MemoryKind::Pinned,
        };
        driver.bind().map_err(|_| refused)?;
        // SAFETY: filled below before anybody reads it.
        let start = unsafe { result::malloc_host(n_bytes.max(1), 0) }.map_err(|_| refused)?;
        let start = start.cast::<u8>();
        // SAFETY: as many bytes were allocated.
        unsafe { start.write_bytes(0, n_bytes) };
        Ok(Self {
            driver: driver.clone(),
            start,
            n_bytes,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and filled by `new`; borrowed with self.
        unsafe { std::slice::from_raw_parts(self.start, self.n_bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.n_bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.driver.bind().is_ok() {
            // SAFETY: from `malloc_host`, and nothing borrows it. A failure means that the
            // context is lost.
            unsafe { result::free_host(self.start.cast()) }.ok();
        }
    }
}
