//! Weights in safetensors files, one or several with an index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kernels::{MappedFile, WeightType};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use crate::LoadError;
use crate::checkpoint::Tensor;
use crate::quantized::RawTensor;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The mapped files of one checkpoint.
#[derive(Debug)]
pub(crate) struct Shards {
    /// The file that stands for all: the single file, or the index.
    path: PathBuf,
    files: Vec<(PathBuf, MappedFile)>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Shards {
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let index = dir.join(INDEX);
        let single = dir.join(SINGLE);
        let mut shards = Self {
            path: single.clone(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if single.is_file() {
            shards.add(&single)?;
        } else if index.is_file() {
            shards.path.clone_from(&index);
            shards.open_indexed(dir, &index)?;
        } else {
            return Err(no_weights(dir));
        }
        Ok(shards)
    }

    /// A single file of any name.
    pub(crate) fn open_file(path: &Path) -> Result<Self, LoadError> {
        let mut shards = Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        shards.add(path)?;
        Ok(shards)
    }

    fn open_indexed(&mut self, dir: &Path, index: &Path) -> Result<(), LoadError> {
        let weight_map = read_index(index)?;
        let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &weight_map {
            by_file.entry(file).or_default().push(tensor);
        }
        for (file, tensors) in by_file {
            let path = dir.join(file);
            if !path.is_file() {
                return Err(LoadError::new(
                    &path,
                    format!(
                        "shard is missing: {INDEX} places tensor `{}` in it",
                        tensors[0]
                    ),
                ));
            }
            self.add(&path)?;
            if let Some(absent) = tensors
                .iter()
                .find(|name| !self.tensors.contains_key(**name))
            {
                return Err(LoadError::new(
                    &path,
                    format!("tensor `{absent}` is missing, but {INDEX} places it here"),
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Result<(), LoadError> {
        let mapped = MappedFile::open(path)
            .map_err(|error| LoadError::new(path, format!("cannot be mapped: {error}")))?;
        let (header_len, metadata) =
            SafeTensors::read_metadata(mapped.bytes()).map_err(|error| {
                let message = diagnose(mapped.bytes())
                    .unwrap_or_else(|| format!("damaged safetensors header: {error}"));
                LoadError::new(path, message)
            })?;
        let data_start = 8 + header_len;
        for (name, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data_start + begin..data_start + end,
            };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                let first = self.files[other.file].0.display();
                return Err(LoadError::new(
                    path,
                    format!("tensor `{name}` is also in {first}"),
                ));
            }
        }
        self.files.push((path.to_path_buf(), mapped));
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn drop_pages(&self) {
        for (_, mapped) in &self.files {
            mapped.drop_pages();
        }
    }

    /// The files themselves.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of exactly this name, whatever its type.
    pub(crate) fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.tensors.get(name)?;
        let (file, mapped) = &self.files[entry.file];
        Some(RawTensor {
            file,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &mapped.bytes()[entry.range.clone()],
        })
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        let Some(entry) = self.tensors.get(name) else {
            return Ok(None);
        };
        let (file, mapped) = &self.files[entry.file];
        let ty = match entry.dtype {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::BF16,
            other => {
                return Err(LoadError::new(
                    file,
                    format!(
                        "tensor `{name}`: dtype {other:?} is not supported; supported: F32, F16, BF16"
                    ),
                ));
            }
        };
        Ok(Some(Tensor {
            file,
            ty,
            shape: &entry.shape,
            bytes: &mapped.bytes()[entry.range.clone()],
        }))
    }
}

/// Tensor names and the shard of each.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let fail = |message: String| LoadError::new(path, message);
    let text =
        std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let index: Value =
        serde_json::from_str(&text).map_err(|error| fail(format!("not valid JSON: {error}")))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| fail("field `weight_map` is missing or not an object".to_string()))?;
    map.iter()
        .map(|(tensor, file)| match file.as_str() {
            // A shard lies beside its index; a path could lead anywhere.
            Some(name) if is_plain_file_name(name) => Ok((tensor.clone(), name.to_string())),
            _ => Err(fail(format!(
                "field `weight_map.{tensor}`: expected the name of a file, found {file}"
            ))),
        })
        .collect()
}

fn is_plain_file_name(name: &str) -> bool {
    Path::new(name).file_name() == Some(name.as_ref())
}

fn no_weights(dir: &Path) -> LoadError {
    for pickle in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let path = dir.join(pickle);
        if path.is_file() {
            return LoadError::new(
                &path,
                "weights in Python's pickle format are not read, because a pickle can run code; \
                 convert them to safetensors",
            );
        }
    }
    LoadError::new(
        dir,
        format!("no weights: neither {SINGLE} nor {INDEX} is there"),
    )
}

/// Says which tensor of a header that was refused does not fit the file, if that is the reason.
fn diagnose(bytes: &[u8]) -> Option<String> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let n_left = bytes.len() - 8;
    let Some(header) = usize::try_from(length)
        .ok()
        .and_then(|length| bytes[8..].get(..length))
    else {
        return Some(format!(
            "truncated or damaged: the header claims {length} bytes, but the file has {n_left} left"
        ));
    };
    let n_data = n_left - header.len();
    let header: Value = serde_json::from_slice(header).ok()?;
    for (name, info) in header.as_object()? {
        if name == "__metadata__" {
            continue;
        }
        let offsets = &info["data_offsets"];
        let (begin, end) = (offsets[0].as_u64()?, offsets[1].as_u64()?);
        if begin > end || end > n_data as u64 {
            return Some(format!(
                "tensor `{name}`: its bytes {begin}..{end} are not in the file, which has \
                 {n_data} bytes of data"
            ));
        }
        let dtype: Dtype = serde_json::from_value(info["dtype"].clone()).ok()?;
        let n_bits = info["shape"]
            .as_array()?
            .iter()
            .map(Value::as_u64)
            .try_fold(dtype.bitsize() as u64, |n, size| n.checked_mul(size?));
        if n_bits != (end - begin).checked_mul(8) {
            return Some(format!(
                "tensor `{name}`: {dtype:?} of shape {} does not take the {} bytes that the \
                 header gives it",
                info["shape"],
                end - begin
            ));
        }
    }
    None
}
