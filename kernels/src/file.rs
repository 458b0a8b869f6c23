//! A file mapped read-only into memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

/// The bytes of a file, mapped, not read: pages come in when touched and can be dropped again.
///
/// The file must not be truncated while it is mapped: touching what is gone is a bus error.
#[derive(Debug)]
pub struct MappedFile {
    start: NonNull<u8>,
    n_bytes: usize,
}

// SAFETY: a read-only mapping owned by this value.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the whole file. An empty file gives no bytes.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let too_large = || std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        let n_bytes = usize::try_from(file.metadata()?.len()).map_err(|_| too_large())?;
        if n_bytes == 0 {
            return Ok(Self {
                start: NonNull::dangling(),
                n_bytes,
            });
        }
        if n_bytes > isize::MAX as usize {
            return Err(too_large());
        }
        // SAFETY: a fresh read-only private mapping of a file we hold open aliases nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                n_bytes,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(std::io::Error::last_os_error)?;
        Ok(Self { start, n_bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable for n_bytes as long as self lives (or empty).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.n_bytes) }
    }

    /// Gives the pages read so far back to the system; they come in again when touched.
    pub fn drop_pages(&self) {
        if self.n_bytes > 0 {
            // SAFETY: the range is our mapping; being clean file pages, they are read again from
            // the file with the same contents.
            unsafe {
                libc::madvise(
                    self.start.as_ptr().cast(),
                    self.n_bytes,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.n_bytes > 0 {
            // SAFETY: unmaps exactly what `open` mapped; no borrow outlives self.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.n_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_drops_and_maps_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let contents: Vec<u8> = (0..100_000_u32).map(|i| (i * 7) as u8).collect();
        std::fs::write(&path, &contents).unwrap();
        let file = MappedFile::open(&path).unwrap();
        assert_eq!(file.bytes(), contents);
        file.drop_pages();
        assert_eq!(file.bytes(), contents);
        std::fs::write(&path, []).unwrap();
        assert!(MappedFile::open(&path).unwrap().bytes().is_empty());
        std::fs::remove_file(&path).unwrap();
        assert!(MappedFile::open(&path).is_err());
    }
}
