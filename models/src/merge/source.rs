//! A checkpoint as a source: its tensors, widened piece by piece.

use std::ops::Range;
use std::path::PathBuf;

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::{MergeError, MergeSource};
use crate::LoadError;
use crate::quantized::RawTensor;
use crate::safetensors::Shards;

/// An opened source.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) given: &'a MergeSource,
    pub(super) shards: Shards,
    pub(super) config: Map<String, Value>,
}

impl<'a> Source<'a> {
    pub(super) fn open(given: &'a MergeSource) -> Result<Self, MergeError> {
        let dir = &given.dir;
        if !dir.is_dir() {
            let message = "is no directory; checkpoints are merged in Hugging Face layout \
                           (config.json and safetensors)";
            return Err(LoadError::new(dir, message).into());
        }
        let path = dir.join("config.json");
        let bytes =
            std::fs::read(&path).map_err(|error| LoadError::new(&path, error.to_string()))?;
        let config: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|error| LoadError::new(&path, format!("no JSON object: {error}")))?;
        for field in ["quantization_config", "compression_config"] {
            if let Some(declared) = config.get(field).filter(|declared| !declared.is_null()) {
                let method = declared["quant_method"].as_str().unwrap_or("unnamed");
                let message = format!(
                    "field `{field}`: weights quantized by {method:?} cannot be merged; use the \
                     unquantized checkpoint, and quantize the result"
                );
                return Err(LoadError::new(&path, message).into());
            }
        }
        Ok(Self {
            given,
            shards: Shards::open(dir)?,
            config,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.given.name
    }

    /// A tensor that is there: all sources have the same ones.
    pub(super) fn tensor(&self, name: &str) -> RawTensor<'_> {
        self.shards.raw(name).expect("sources were compared")
    }

    /// The files of weights, in the order of their names.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.shards.files().map(ToOwned::to_owned).collect();
        files.sort();
        files
    }
}

/// Whether values of a type are merged; others are the same in all sources.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Values `range` of a tensor of floats.
pub(super) fn widen(tensor: &RawTensor<'_>, range: Range<usize>, out: &mut Vec<f64>) {
    out.clear();
    let halves = || {
        let (halves, _) = tensor.bytes.as_chunks::<2>();
        halves[range.clone()].iter()
    };
    match tensor.dtype {
        Dtype::F16 => out.extend(halves().map(|x| f16::from_le_bytes(*x).to_f64())),
        Dtype::BF16 => out.extend(halves().map(|x| bf16::from_le_bytes(*x).to_f64())),
        _ => {
            let (words, _) = tensor.bytes.as_chunks::<4>();
            let words = words[range.clone()].iter();
            out.extend(words.map(|x| f64::from(f32::from_le_bytes(*x))));
        }
    }
}
