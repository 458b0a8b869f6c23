//! The files of weights of a merge.

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};
use kernels::WeightType;
use safetensors::tensor::{Dtype, View};
use serde_json::json;

use super::combine::Tensors;
use super::source::{Source, is_float};
use super::{MergeError, MergeOptions, Merged};

/// A tensor to be, merged when it is written.
#[derive(Debug)]
struct Target<'a> {
    name: &'a str,
    tensors: Tensors<'a>,
    dtype: Dtype,
}

impl View for &Target<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.tensors.first().shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if !is_float(self.dtype) {
            return Cow::Borrowed(self.tensors.first().bytes);
        }
        let mut bytes = Vec::with_capacity(self.data_len());
        self.tensors.merge(|values| match self.dtype {
            Dtype::F16 => bytes.extend(values.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes())),
            Dtype::BF16 => {
                bytes.extend(values.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()));
            }
            _ => bytes.extend(values.iter().flat_map(|x| (*x as f32).to_le_bytes())),
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let n_values: usize = self.tensors.first().shape.iter().product();
        n_values * self.dtype.bitsize() / 8
    }
}

/// Writes all tensors, in as many files as the options ask for.
pub(super) fn write(
    options: &MergeOptions,
    sources: &[Source<'_>],
    base: Option<&Source<'_>>,
    out: &Path,
) -> Result<Merged, MergeError> {
    let first = base.unwrap_or(&sources[0]);
    let targets: Vec<Target<'_>> = first
        .shards
        .names()
        .map(|name| {
            let tensors = Tensors::new(name, sources, base, options.method);
            let stored = tensors.first().dtype;
            let dtype = options.dense.filter(|_| is_float(stored)).map(dtype_of);
            Target {
                name,
                tensors,
                dtype: dtype.unwrap_or(stored),
            }
        })
        .collect();
    let shards = split(&targets, options.max_shard_bytes);
    let n_bytes = targets.iter().map(n_bytes).sum();
    let mut weight_map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let path = out.join(&file);
        let tensors = shard.iter().map(|target| (target.name, target));
        let metadata = [("format".to_string(), "pt".to_string())];
        safetensors::serialize_to_file(tensors, Some(metadata.into()), &path)
            .map_err(|error| MergeError::write(&path, error))?;
        for target in *shard {
            weight_map.insert(target.name.to_string(), json!(file));
        }
        for source in sources.iter().chain(base) {
            source.shards.drop_pages();
        }
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": n_bytes}, "weight_map": weight_map});
        let path = out.join("model.safetensors.index.json");
        std::fs::write(&path, format!("{index:#}\n"))
            .map_err(|error| MergeError::write(&path, error))?;
    }
    Ok(Merged {
        n_tensors: targets.len(),
        n_bytes,
        n_files: shards.len(),
        notes: Vec::new(),
    })
}

fn n_bytes(target: &Target<'_>) -> u64 {
    (&target).data_len() as u64
}

/// Runs of tensors that take at most `most` bytes, or are one.
fn split<'t, 'a>(targets: &'t [Target<'a>], most: u64) -> Vec<&'t [Target<'a>]> {
    let mut shards = Vec::new();
    let (mut first, mut len) = (0, 0);
    for (i, target) in targets.iter().enumerate() {
        if i > first && len + n_bytes(target) > most {
            shards.push(&targets[first..i]);
            (first, len) = (i, 0);
        }
        len += n_bytes(target);
    }
    shards.push(&targets[first..]);
    shards
}

fn dtype_of(ty: WeightType) -> Dtype {
    match ty {
        WeightType::F16 => Dtype::F16,
        WeightType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}
