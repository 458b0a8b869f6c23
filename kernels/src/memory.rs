//! Zeroed memory straight from the operating system: page aligned, and real only once touched or
//! asked for.

use std::fmt;
use std::ptr::NonNull;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    /// The operating system's.
    Host,
    /// A GPU's own.
    Device,
    /// The host's, which a GPU reads by itself.
    Pinned,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the operating system",
            Self::Device => "the GPU",
            Self::Pinned => "the NVIDIA driver",
        })
    }
}

/// Memory that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of} refused {bytes} bytes of memory")]
pub struct OutOfMemory {
    pub bytes: usize,
    pub of: MemoryKind,
}

impl OutOfMemory {
    pub(crate) fn host(bytes: usize) -> Self {
        Self {
            bytes,
            of: MemoryKind::Host,
        }
    }
}

/// Types for which any bytes, zeros among them, are a value, and that have no padding.
///
/// # Safety
/// Exactly that must hold, and the alignment must be at most 64.
pub(crate) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: integers and floats, and arrays of them, have no padding and no forbidden values.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: a byte, and nothing else.
unsafe impl Plain for crate::kv::E4m3 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A zeroed anonymous mapping. Zero bytes map nothing.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    n_bytes: usize,
}

// SAFETY: the mapping is owned by this value alone, like a boxed slice.
unsafe impl Send for Pages {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn zeroed(n_bytes: usize) -> Result<Self, OutOfMemory> {
        if n_bytes == 0 {
            return Ok(Self {
                start: NonNull::<Line>::dangling().cast(),
                n_bytes,
            });
        }
        let refused = OutOfMemory::host(n_bytes);
        if n_bytes > isize::MAX as usize {
            return Err(refused);
        }
        // SAFETY: an anonymous private mapping at an address the kernel chooses aliases nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                n_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(refused);
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(refused)?;
        #[cfg(target_os = "linux")]
        // SAFETY: the range is ours; advice changes no contents. Refusal costs only speed.
        unsafe {
            libc::madvise(start.as_ptr().cast(), n_bytes, libc::MADV_HUGEPAGE);
        }
        Ok(Self { start, n_bytes })
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Makes `n_bytes` from an address real; whether the system can be asked to (Linux 5.14 and
    /// newer). What is there stays; where nothing is mapped, nothing happens.
    #[cfg(target_os = "linux")]
    pub(crate) fn populate(address: usize, n_bytes: usize) -> bool {
        let page = page_size();
        let first = address / page * page;
        // SAFETY: no contents change, and addresses that are not mapped are an error.
        let result = unsafe {
            libc::madvise(
                first as *mut libc::c_void,
                address + n_bytes - first,
                libc::MADV_POPULATE_WRITE,
            )
        };
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn populate(_: usize, _: usize) -> bool {
        false
    }

    /// Bytes of some that begin at a page which are in memory.
    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn resident(address: usize, n_bytes: usize) -> usize {
        let mut found = vec![0; n_bytes.div_ceil(page_size())];
        // SAFETY: writes a byte for each page, of which there is room.
        let result =
            unsafe { libc::mincore(address as *mut libc::c_void, n_bytes, found.as_mut_ptr()) };
        assert_eq!(result, 0);
        page_size() * found.iter().filter(|&&page: &&u8| page & 1 == 1).count()
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The memory as values; bytes after the last whole value are left out.
    pub(crate) fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: mapped and readable for n_bytes, at least 64-byte aligned, any bytes are a T.
        unsafe {
            std::slice::from_raw_parts(
                self.start.as_ptr().cast(),
                self.n_bytes / std::mem::size_of::<T>(),
            )
        }
    }

    pub(crate) fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.as_ptr().cast(),
                self.n_bytes / std::mem::size_of::<T>(),
            )
        }
    }

    /// Zeroes everything; on Linux by giving the pages back.
    pub(crate) fn clear(&mut self) {
        #[cfg(target_os = "linux")]
        if self.n_bytes > 0 {
            // SAFETY: the range is ours and exclusively borrowed; private anonymous pages read
            // as zeros after this.
            let result = unsafe {
                libc::madvise(
                    self.start.as_ptr().cast(),
                    self.n_bytes,
                    libc::MADV_DONTNEED,
                )
            };
            if result == 0 {
                return;
            }
        }
        self.as_mut_slice::<u8>().fill(0);
    }
}

#[cfg(target_os = "linux")]
fn page_size() -> usize {
    // SAFETY: only asks.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_or(4096, |size| size.max(1))
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.n_bytes > 0 {
            // SAFETY: maps exactly what `zeroed` mapped; no borrow outlives self.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.n_bytes) };
        }
    }
}

/// One cache line of floats: gives vectors their alignment.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; 16]);

// SAFETY: as many bytes as its floats, so there is no padding.
unsafe impl Plain for Line {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_written_cleared() {
        let mut pages = Pages::zeroed(10_000).unwrap();
        assert!(pages.as_slice::<u8>().iter().all(|&b| b == 0));
        pages.as_mut_slice::<f32>()[2_499] = 1.0;
        assert_eq!(pages.as_slice::<f32>()[2_499], 1.0);
        pages.clear();
        assert!(pages.as_slice::<f32>().iter().all(|&x| x == 0.0));
        assert_eq!(Pages::zeroed(0).unwrap().as_slice::<f32>().len(), 0);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert_eq!(
            Pages::zeroed(1 << 60).unwrap_err(),
            OutOfMemory::host(1 << 60)
        );
        assert!(Pages::zeroed(usize::MAX).is_err());
    }
}
