//! Global memory: allocations with known bounds, whose bytes know whether they were ever written.
//!
//! An address is an allocation's number and an offset into it. So a pointer that leaves its
//! allocation never lands in another, the lookup is one index, and a freed number comes back only
//! when all numbers have been used.

#![expect(
    unsafe_code,
    reason = "blocks run on several threads and share global memory, as on the device"
)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::fault::{FaultKind, Space};

/// Bits of an address that are the offset: an allocation has at most 64 GiB.
const OFFSET_BITS: u32 = 36;

/// Bits of the number of an allocation of one device.
const NUMBER_BITS: u32 = 16;

/// What uninitialised bytes read as, where reading them is allowed: NaN in every float format.
const POISON: u8 = 0xFF;

/// A plain value that can cross between host and device.
pub trait Plain: Copy {
    /// Bytes of one value.
    const BYTES: usize;
    /// Appends the value, little endian.
    fn put(self, bytes: &mut Vec<u8>);
    /// Reads a value from exactly `BYTES` bytes.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($ty:ty),*) => {$(
        impl Plain for $ty {
            const BYTES: usize = size_of::<$ty>();
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let bytes = bytes.try_into().expect("the caller cuts BYTES bytes");
                Self::from_le_bytes(bytes)
            }
        }
    )*};
}
plain!(
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    u64,
    i64,
    f32,
    f64,
    half::f16,
    half::bf16
);

#[derive(Debug)]
struct Allocation {
    len: usize,
    /// The bytes; none when freed.
    data: Box<[AtomicU64]>,
    /// For each byte 1 when it was written.
    written: Box<[AtomicU64]>,
    live: bool,
}

/// The memory of one simulated device.
#[derive(Debug, Default)]
pub struct Memory {
    allocations: Vec<Allocation>,
    /// Indices of freed allocations, the first freed first.
    freed: VecDeque<usize>,
    in_use: u64,
    /// The number of the first allocation, less one: tells devices apart.
    base: u64,
}

/// Bytes of one allocation that were checked to exist and to be aligned.
pub(crate) struct Span<'a> {
    data: *mut u8,
    written: *mut u8,
    memory: std::marker::PhantomData<&'a Memory>,
}

fn zeroed(n_words: usize) -> Box<[AtomicU64]> {
    // SAFETY: all bytes zero is a valid AtomicU64.
    unsafe { Box::new_zeroed_slice(n_words).assume_init() }
}

impl Memory {
    /// A device with nothing allocated.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with addresses that no device of another ordinal has (0 to 7).
    #[must_use]
    pub fn of_device(ordinal: u32) -> Self {
        let base = u64::from(ordinal & 7) << NUMBER_BITS;
        Self {
            base,
            ..Self::default()
        }
    }

    /// The ordinal of the device that an address belongs to, by its number alone.
    #[must_use]
    pub fn ordinal_of(address: u64) -> u32 {
        (address >> (OFFSET_BITS + NUMBER_BITS)) as u32
    }

    /// Bytes in live allocations.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// Allocates `len` bytes, uninitialised. The address is aligned to 64 GiB.
    ///
    /// # Panics
    /// If `len` is beyond 64 GiB, or 65 535 allocations live.
    pub fn alloc(&mut self, len: usize) -> u64 {
        assert!(len <= 1 << OFFSET_BITS, "an allocation of {len} bytes");
        let n_words = len.div_ceil(8);
        let (data, written) = (zeroed(n_words), zeroed(n_words));
        let live = true;
        let fresh = Allocation {
            len,
            data,
            written,
            live,
        };
        self.in_use += len as u64;
        let idx = if self.allocations.len() + 1 < 1 << NUMBER_BITS {
            self.allocations.push(fresh);
            self.allocations.len() - 1
        } else {
            let idx = self.freed.pop_front();
            let idx = idx.expect("fewer allocations live than there are numbers");
            self.allocations[idx] = fresh;
            idx
        };
        (self.base + idx as u64 + 1) << OFFSET_BITS
    }

    /// The allocation that an address names, if its number was ever given out.
    #[inline]
    fn idx(&self, address: u64) -> Option<usize> {
        let number = (address >> OFFSET_BITS).checked_sub(self.base + 1)?;
        let idx = usize::try_from(number).ok()?;
        (idx < self.allocations.len()).then_some(idx)
    }

    /// Allocates and fills with `values`.
    pub fn upload<T: Plain>(&mut self, values: &[T]) -> u64 {
        let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
        values.iter().for_each(|value| value.put(&mut bytes));
        let address = self.alloc(bytes.len());
        self.write(address, &bytes)
            .expect("the allocation has this size");
        address
    }

    /// Reads `n` values from `address`.
    ///
    /// # Errors
    /// Out of bounds, freed, or bytes that nothing has written.
    pub fn download<T: Plain>(&self, address: u64, n: usize) -> Result<Vec<T>, FaultKind> {
        let mut bytes = vec![0; n * T::BYTES];
        if let Some(at) = self.read(address, &mut bytes)? {
            return Err(FaultKind::Uninitialised {
                space: Space::Global,
                address: address + at as u64,
                len: T::BYTES,
            });
        }
        Ok(bytes.chunks_exact(T::BYTES).map(T::get).collect())
    }

    /// Frees the allocation that begins at `address`.
    ///
    /// # Errors
    /// If none does.
    pub fn free(&mut self, address: u64) -> Result<(), FaultKind> {
        self.locate(address, 0)?;
        if address & ((1 << OFFSET_BITS) - 1) != 0 {
            let near = "not the begin of an allocation".to_owned();
            return Err(out_of_bounds(address, 0, near));
        }
        let idx = self.idx(address).expect("located above");
        self.freed.push_back(idx);
        let allocation = &mut self.allocations[idx];
        allocation.live = false;
        allocation.data = Box::default();
        allocation.written = Box::default();
        self.in_use -= allocation.len as u64;
        Ok(())
    }

    /// Length of the allocation that holds `address`, and the offset in it.
    ///
    /// # Errors
    /// If no live one does.
    pub fn locate(&self, address: u64, len: usize) -> Result<(usize, usize), FaultKind> {
        let offset = (address & ((1 << OFFSET_BITS) - 1)) as usize;
        let Some(found) = self.idx(address).map(|idx| &self.allocations[idx]) else {
            let near = "no allocation is there".to_owned();
            return Err(out_of_bounds(address, len, near));
        };
        if !found.live {
            return Err(FaultKind::Freed { address });
        }
        if offset + len > found.len {
            let (end, size) = (offset + len - found.len, found.len);
            let near = format!("ends {end} bytes past an allocation of {size} bytes");
            return Err(out_of_bounds(address, len, near));
        }
        Ok((found.len, offset))
    }

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// Out of bounds or freed.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), FaultKind> {
        let span = self.bytes(address, bytes.len())?;
        // SAFETY: `bytes` checked the range; values are plain bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.data, bytes.len());
            std::ptr::write_bytes(span.written, 1, bytes.len());
        }
        Ok(())
    }

    /// Copies bytes from the device; those never written read as 0xFF, and the offset of the
    /// first of them is told.
    ///
    /// # Errors
    /// Out of bounds or freed.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<Option<usize>, FaultKind> {
        let span = self.bytes(address, bytes.len())?;
        let mut poisoned = None;
        for (at, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `bytes` checked the range.
            let (value, written) = unsafe { (*span.data.add(at), *span.written.add(at)) };
            *byte = if written == 1 { value } else { POISON };
            if written == 0 {
                poisoned = poisoned.or(Some(at));
            }
        }
        Ok(poisoned)
    }

    /// Sets `len` bytes.
    ///
    /// # Errors
    /// Out of bounds or freed.
    pub fn fill(&self, address: u64, byte: u8, len: usize) -> Result<(), FaultKind> {
        self.write(address, &vec![byte; len])
    }

    /// Copies between places of the device; what was not written stays so.
    ///
    /// # Errors
    /// Out of bounds or freed.
    pub fn copy(&self, to: u64, from: u64, len: usize) -> Result<(), FaultKind> {
        let (to, from) = (self.bytes(to, len)?, self.bytes(from, len)?);
        // SAFETY: both ranges were checked; `copy` allows overlap.
        unsafe {
            std::ptr::copy(from.data, to.data, len);
            std::ptr::copy(from.written, to.written, len);
        }
        Ok(())
    }

    /// `len` bytes at `address`, unaligned.
    fn bytes(&self, address: u64, len: usize) -> Result<Span<'_>, FaultKind> {
        let (_, offset) = self.locate(address, len)?;
        let idx = self.idx(address).expect("located above");
        let found = &self.allocations[idx];
        let start = |words: &[AtomicU64]| {
            // SAFETY: `locate` found offset + len within the allocation.
            unsafe { words.as_ptr().cast::<u8>().cast_mut().add(offset) }
        };
        Ok(Span {
            data: start(&found.data),
            written: start(&found.written),
            memory: std::marker::PhantomData,
        })
    }

    /// `len` bytes at `address`, aligned to `align` (a power of two).
    #[inline]
    pub(crate) fn span(
        &self,
        address: u64,
        len: usize,
        align: usize,
    ) -> Result<Span<'_>, FaultKind> {
        if address & (align as u64 - 1) != 0 {
            let space = Space::Global;
            return Err(FaultKind::Misaligned {
                space,
                address,
                len,
            });
        }
        self.bytes(address, len)
    }
}

#[cold]
fn out_of_bounds(address: u64, len: usize, near: String) -> FaultKind {
    FaultKind::OutOfBounds {
        space: Space::Global,
        address,
        len,
        near,
    }
}

impl Span<'_> {
    /// The value of `len` (1, 2, 4, 8) bytes at `offset`; none if a byte of it was never written.
    #[inline]
    pub(crate) fn load(&self, offset: usize, len: usize) -> Option<u64> {
        // SAFETY: the span was checked to hold the access and to be aligned to it; the atomics
        // only make concurrent blocks defined.
        unsafe {
            let (data, written) = (self.data.add(offset), self.written.add(offset));
            match len {
                1 => (AtomicU8::from_ptr(written).load(Relaxed) == 1)
                    .then(|| u64::from(AtomicU8::from_ptr(data).load(Relaxed))),
                2 => (AtomicU16::from_ptr(written.cast()).load(Relaxed) == 0x0101)
                    .then(|| u64::from(AtomicU16::from_ptr(data.cast()).load(Relaxed))),
                4 => (AtomicU32::from_ptr(written.cast()).load(Relaxed) == 0x0101_0101)
                    .then(|| u64::from(AtomicU32::from_ptr(data.cast()).load(Relaxed))),
                _ => (AtomicU64::from_ptr(written.cast()).load(Relaxed) == 0x0101_0101_0101_0101)
                    .then(|| AtomicU64::from_ptr(data.cast()).load(Relaxed)),
            }
        }
    }

    /// Writes the low `len` (1, 2, 4, 8) bytes of `value` at `offset`.
    #[inline]
    pub(crate) fn store(&self, offset: usize, len: usize, value: u64) {
        // SAFETY: as in `load`.
        unsafe {
            let (data, written) = (self.data.add(offset), self.written.add(offset));
            match len {
                1 => {
                    AtomicU8::from_ptr(data).store(value as u8, Relaxed);
                    AtomicU8::from_ptr(written).store(1, Relaxed);
                }
                2 => {
                    AtomicU16::from_ptr(data.cast()).store(value as u16, Relaxed);
                    AtomicU16::from_ptr(written.cast()).store(0x0101, Relaxed);
                }
                4 => {
                    AtomicU32::from_ptr(data.cast()).store(value as u32, Relaxed);
                    AtomicU32::from_ptr(written.cast()).store(0x0101_0101, Relaxed);
                }
                _ => {
                    AtomicU64::from_ptr(data.cast()).store(value, Relaxed);
                    AtomicU64::from_ptr(written.cast()).store(0x0101_0101_0101_0101, Relaxed);
                }
            }
        }
    }

    /// Replaces the value of `len` (2, 4, 8) bytes at the span's begin by `f` of it, atomically,
    /// and returns the old one; none if it was never written.
    pub(crate) fn update(&self, len: usize, f: impl Fn(u64) -> u64) -> Option<u64> {
        self.load(0, len)?;
        // SAFETY: as in `load`.
        unsafe {
            match len {
                2 => {
                    let cell = AtomicU16::from_ptr(self.data.cast());
                    let new = |old| Some(f(u64::from(old)) as u16);
                    cell.fetch_update(Relaxed, Relaxed, new).ok().map(u64::from)
                }
                4 => {
                    let cell = AtomicU32::from_ptr(self.data.cast());
                    let new = |old| Some(f(u64::from(old)) as u32);
                    cell.fetch_update(Relaxed, Relaxed, new).ok().map(u64::from)
                }
                _ => {
                    let cell = AtomicU64::from_ptr(self.data.cast());
                    cell.fetch_update(Relaxed, Relaxed, |old| Some(f(old))).ok()
                }
            }
        }
    }
}
