//! The GGUF container, versions 2 and 3.
//!
//! A reader of our own, because candle's copies every tensor out of the file, lacks some types,
//! and allocates what a header claims before it looks whether the file is that long. Here the
//! file is mapped, and every length is checked against the bytes that are left before it is used.
//!
//! Layout (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): magic, version, number
//! of tensors, number of metadata entries; the entries; one description a tensor; padding to the
//! alignment; the tensors' bytes.

mod cursor;
mod metadata;
mod tensor;
mod value;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kernels::MappedFile;

use crate::LoadError;
use crate::checkpoint::Tensor;
use cursor::Cursor;
use tensor::TensorInfo;

pub use metadata::GgufMetadata;
pub use value::GgufValue;
pub(crate) use write::{GgufTensor, write_gguf};

/// Files that ask for coarser alignment than this are damaged.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// A mapped GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: MappedFile,
    metadata: BTreeMap<String, GgufValue>,
    /// Where each entry's type and value are in the file.
    ranges: BTreeMap<String, Range<usize>>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be mapped, is damaged or truncated, or holds a type that is not supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = MappedFile::open(path)
            .map_err(|error| LoadError::new(path, format!("cannot be mapped: {error}")))?;
        let Header {
            metadata,
            ranges,
            tensors,
        } = read_header(file.bytes()).map_err(|message| LoadError::new(path, message))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            metadata,
            ranges,
            tensors,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata entry of this key.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// All metadata, sorted by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// All metadata as it is stored, sorted by key, to be written to another file.
    pub(crate) fn raw_metadata(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let bytes = self.file.bytes();
        self.ranges
            .iter()
            .map(|(key, range)| (key.as_str(), &bytes[range.clone()]))
    }

    pub(crate) fn drop_pages(&self) {
        self.file.drop_pages();
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let info = self.tensors.get(name)?;
        Some(Tensor {
            file: &self.path,
            ty: info.ty,
            shape: &info.shape,
            bytes: &self.file.bytes()[info.range.clone()],
        })
    }
}

/// What stands before the data.
struct Header {
    metadata: BTreeMap<String, GgufValue>,
    ranges: BTreeMap<String, Range<usize>>,
    tensors: BTreeMap<String, TensorInfo>,
}

fn read_header(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(4, "magic")? != b"GGUF" {
        return Err("not a GGUF file: it does not begin with \"GGUF\"".to_string());
    }
    match cursor.u32("version")? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err("big-endian GGUF files are not supported".to_string());
        }
        version => {
            return Err(format!(
                "GGUF version {version} is not supported; supported: 2, 3"
            ));
        }
    }
    let n_tensors = cursor.u64("tensor count")?;
    let n_entries = cursor.u64("metadata count")?;
    let (metadata, ranges) = read_metadata(&mut cursor, n_entries)?;
    let alignment = read_alignment(&metadata)?;
    let infos = tensor::read_infos(&mut cursor, n_tensors)?;
    let data_start = cursor.position().next_multiple_of(alignment);
    let tensors = tensor::place(infos, data_start, alignment, bytes.len())?;
    Ok(Header {
        metadata,
        ranges,
        tensors,
    })
}

/// Values, and where they are.
type Entries = (BTreeMap<String, GgufValue>, BTreeMap<String, Range<usize>>);

fn read_metadata(cursor: &mut Cursor<'_>, n_entries: u64) -> Result<Entries, String> {
    // The smallest entry: an empty key, a type and one byte of value.
    cursor.check_count(n_entries, 13, "metadata count")?;
    let mut budget = value::MAX_VALUES;
    let mut metadata = BTreeMap::new();
    let mut ranges = BTreeMap::new();
    for index in 0..n_entries {
        let key = cursor.string(&format!("key of metadata entry {index}"))?;
        let start = cursor.position();
        let value = value::read(cursor, key, &mut budget)?;
        ranges.insert(key.to_string(), start..cursor.position());
        if metadata.insert(key.to_string(), value).is_some() {
            return Err(format!("metadata key `{key}` occurs twice"));
        }
    }
    Ok((metadata, ranges))
}

fn read_alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<usize, String> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(GgufValue::Unsigned(n)) if n.is_power_of_two() && *n <= MAX_ALIGNMENT => {
            Ok(usize::try_from(*n).expect("at most MAX_ALIGNMENT"))
        }
        Some(other) => Err(format!(
            "metadata `general.alignment`: expected a power of two up to {MAX_ALIGNMENT}, found {}",
            other.describe()
        )),
    }
}
