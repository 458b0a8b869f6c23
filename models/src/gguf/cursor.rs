//! Reading of little-endian fields from bytes that may end too early.

/// A position in a file. Every read names what it reads, for the error.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn n_left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], String> {
        if n > self.n_left() {
            return Err(format!(
                "truncated: {what} needs {n} bytes at offset {}, but the file has {} left",
                self.position,
                self.n_left()
            ));
        }
        let taken = &self.bytes[self.position..self.position + n];
        self.position += n;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, String> {
        let length = self.u64(&format!("length of {what}"))?;
        self.check_count(length, 1, &format!("length of {what}"))?;
        let bytes = self.take(to_usize(length, what)?, what)?;
        std::str::from_utf8(bytes)
            .map_err(|error| format!("{what} at offset {} is not UTF-8: {error}", self.position))
    }

    /// Refuses a count of items that cannot all be in the rest of the file.
    pub(super) fn check_count(
        &self,
        count: u64,
        smallest: usize,
        what: &str,
    ) -> Result<(), String> {
        let most = self.n_left() / smallest;
        if usize::try_from(count).is_ok_and(|count| count <= most) {
            return Ok(());
        }
        Err(format!(
            "{what} is {count}, but the {} bytes left hold at most {most}",
            self.n_left()
        ))
    }
}

pub(super) fn to_usize(n: u64, what: &str) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| format!("{what}: {n} is too large"))
}
