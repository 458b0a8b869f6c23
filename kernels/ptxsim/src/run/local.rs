//! Local memory: a frame of bytes for each lane of a warp.

use crate::fault::{FaultKind, Space};

#[derive(Debug, Default)]
pub(crate) struct Local {
    /// Bytes of one lane's frame.
    size: usize,
    bytes: Vec<u8>,
    written: Vec<bool>,
}

impl Local {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            bytes: vec![0; 32 * size],
            written: vec![false; 32 * size],
        }
    }

    pub(super) fn reset(&mut self) {
        self.written.fill(false);
    }

    fn locate(
        &self,
        lane: usize,
        address: u64,
        len: usize,
        align: usize,
    ) -> Result<usize, FaultKind> {
        let space = Space::Local;
        if address & (align as u64 - 1) != 0 {
            return Err(FaultKind::Misaligned {
                space,
                address,
                len,
            });
        }
        let end = (address as usize).checked_add(len);
        if end.is_none_or(|end| end > self.size) {
            let near = format!("a frame of {} bytes", self.size);
            return Err(FaultKind::OutOfBounds {
                space,
                address,
                len,
                near,
            });
        }
        Ok(lane * self.size + address as usize)
    }

    pub(super) fn read(
        &self,
        lane: usize,
        address: u64,
        len: usize,
        align: usize,
    ) -> Result<&[u8], FaultKind> {
        let at = self.locate(lane, address, len, align)?;
        if self.written[at..at + len].contains(&false) {
            let space = Space::Local;
            return Err(FaultKind::Uninitialised {
                space,
                address,
                len,
            });
        }
        Ok(&self.bytes[at..at + len])
    }

    pub(super) fn write(
        &mut self,
        lane: usize,
        address: u64,
        len: usize,
        align: usize,
    ) -> Result<&mut [u8], FaultKind> {
        let at = self.locate(lane, address, len, align)?;
        self.written[at..at + len].fill(true);
        Ok(&mut self.bytes[at..at + len])
    }
}
