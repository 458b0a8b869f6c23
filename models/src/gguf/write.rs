//! Writing a GGUF file, version 3: all descriptions first, then the tensors one by one, so that
//! memory holds a piece of one tensor at a time.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kernels::WeightType;

use super::metadata::{GgufMetadata, string};
use super::tensor::type_number;
use crate::LoadError;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// A tensor to be written.
pub(crate) trait GgufTensor {
    fn name(&self) -> &str;
    fn ty(&self) -> WeightType;
    /// Outermost dimension first.
    fn shape(&self) -> &[usize];
    /// Writes the tensor's bytes, as many as type and shape say.
    fn write(&self, out: &mut dyn Write) -> Result<(), LoadError>;

    fn n_bytes(&self) -> usize {
        let n: usize = self.shape().iter().product();
        n / self.ty().block_elements() * self.ty().block_bytes()
    }
}

/// Writes `path` whole or not at all: to a file beside it, which takes its name in the end.
///
/// # Errors
/// The file cannot be written, or a tensor cannot be made.
pub(crate) fn write_gguf<T: GgufTensor>(
    path: &Path,
    metadata: &GgufMetadata,
    tensors: &[T],
) -> Result<(), LoadError> {
    let fail = |error: io::Error| LoadError::new(path, format!("cannot be written: {error}"));
    let partial = path.with_extension("gguf.partial");
    let file = File::create(&partial).map_err(fail)?;
    let written = write_to(BufWriter::new(file), metadata, tensors, &fail)
        .and_then(|()| std::fs::rename(&partial, path).map_err(fail));
    if written.is_err() {
        // What matters is the error that came first.
        std::fs::remove_file(&partial).ok();
    }
    written
}

fn write_to<T: GgufTensor>(
    mut out: BufWriter<File>,
    metadata: &GgufMetadata,
    tensors: &[T],
    fail: &dyn Fn(io::Error) -> LoadError,
) -> Result<(), LoadError> {
    let mut header = b"GGUF".to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    header.extend(metadata.bytes());
    let mut offset = 0;
    for tensor in tensors {
        header.extend(string(tensor.name()));
        header.extend((tensor.shape().len() as u32).to_le_bytes());
        let innermost_first = tensor.shape().iter().rev();
        header.extend(innermost_first.flat_map(|size| (*size as u64).to_le_bytes()));
        header.extend(type_number(tensor.ty()).to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += tensor.n_bytes().next_multiple_of(ALIGNMENT);
    }
    out.write_all(&header).map_err(fail)?;
    pad(&mut out, header.len()).map_err(fail)?;
    for tensor in tensors {
        tensor.write(&mut out)?;
        pad(&mut out, tensor.n_bytes()).map_err(fail)?;
    }
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    file.sync_all().map_err(fail)
}

fn pad(out: &mut impl Write, n_written: usize) -> io::Result<()> {
    out.write_all(&ZEROS[..n_written.next_multiple_of(ALIGNMENT) - n_written])
}
