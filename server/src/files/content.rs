//! The bytes of a file on their way to a client.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use axum::body::Bytes;
use futures::Stream;
use futures::stream::try_unfold;

use super::{BLOCK_BYTES, blocking};

/// An open file. It is read to its end even if it is deleted meanwhile.
#[derive(Debug)]
pub(crate) struct Content {
    file: File,
    n_bytes: u64,
}

impl Content {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let n_bytes = file.metadata()?.len();
        Ok(Self { file, n_bytes })
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The bytes, block by block.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        try_unfold(self.file, |mut file| async move {
            blocking(move || {
                let mut block = Vec::with_capacity(BLOCK_BYTES);
                let n = file
                    .by_ref()
                    .take(BLOCK_BYTES as u64)
                    .read_to_end(&mut block)?;
                Ok((n > 0).then(|| (Bytes::from(block), file)))
            })
            .await
        })
    }
}
