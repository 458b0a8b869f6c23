//! From a checkpoint in Hugging Face layout to a GGUF file, and from one GGUF file to another of
//! fewer bits.

mod hyperparameters;
mod plan;
mod plan_experts;
mod recode;
mod rows;
mod rules;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;

use kernels::WeightType;

use crate::checkpoint::Tensor;
use crate::config::{RopeScaling, read_gguf_config};
use crate::families::{family_of_gguf, gguf_rope_style};
use crate::gguf::{GgufMetadata, GgufTensor, write_gguf};
use crate::{Checkpoint, Gguf, LoadError};

pub(crate) use recode::recode;
use rows::{Planned, Rows};
pub use rules::WEIGHT_TYPES;
pub(crate) use rules::{Role, role_of, type_for};

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    pub n_tensors: usize,
    pub n_bytes: u64,
    /// Bytes of tensors of each type, largest first.
    pub by_type: Vec<(String, u64)>,
    /// What readers of other programs should know.
    pub notes: Vec<String>,
}

/// Writes `checkpoint`, a directory in Hugging Face layout, as the GGUF file `out`, its matrices
/// in type `ty`. `metadata`: more entries, such as the tokenizer's.
///
/// # Errors
/// The architecture has no GGUF form, or its GGUF form cannot say something that the checkpoint's
/// configuration does; nothing is written then. A tensor is missing, or a file cannot be written.
pub fn convert(
    checkpoint: &Checkpoint,
    out: &Path,
    ty: WeightType,
    metadata: &GgufMetadata,
    n_threads: usize,
) -> Result<Converted, LoadError> {
    let config = checkpoint.config();
    let fail = |message: String| LoadError::new(checkpoint.path(), message);
    if checkpoint.dir().is_none() {
        return Err(fail("is a GGUF file already".to_string()));
    }
    let Some(architecture) = checkpoint.gguf_form() else {
        return Err(fail(format!(
            "architecture {:?} has no GGUF form",
            config.architecture
        )));
    };
    let family = family_of_gguf(architecture)
        .ok_or_else(|| fail(format!("GGUF architecture {architecture:?} is not read")))?;
    let mut all = GgufMetadata::default();
    hyperparameters::write(config, architecture, &mut all);
    all.u32("general.file_type", rules::file_type(ty));
    if ty.is_quantized() {
        all.u32("general.quantization_version", 2);
    }
    all.extend(metadata);
    let extra: Vec<(&str, [usize; 1], Vec<u8>)> = hyperparameters::rope_tensors(config)
        .into_iter()
        .map(|(name, values)| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, [values.len()], bytes)
        })
        .collect();
    let names = (family.gguf_names)(config);
    let style = gguf_rope_style(architecture, config);
    let mut planned = plan::plan(checkpoint, names, style, ty, n_threads)?;
    planned.extend(extra.iter().map(|(name, shape, bytes)| {
        let tensor = Tensor {
            file: out,
            ty: WeightType::F32,
            shape,
            bytes,
        };
        Planned {
            name: (*name).to_string(),
            shape: shape.to_vec(),
            ty: WeightType::F32,
            rows: Rows::of(tensor, shape[0]),
            n_threads: 1,
        }
    }));
    write_checked(checkpoint, out, &all, &planned)?;
    Ok(report(&planned, notes(checkpoint)))
}

/// Writes to a file beside `out`, reads its configuration back, and renames it if that is right.
fn write_checked(
    checkpoint: &Checkpoint,
    out: &Path,
    metadata: &GgufMetadata,
    planned: &[Planned<'_>],
) -> Result<(), LoadError> {
    let unchecked = out.with_extension("unchecked");
    write_gguf(&unchecked, metadata, planned)?;
    let checked = Gguf::open(&unchecked)
        .and_then(|gguf| read_gguf_config(&gguf).map(|(found, _)| found))
        .and_then(
            |found| match verify::difference(checkpoint.config(), &found) {
                None => Ok(()),
                Some(difference) => Err(LoadError::new(
                    checkpoint.path(),
                    format!("cannot be said in GGUF: {difference}"),
                )),
            },
        )
        .and_then(|()| {
            std::fs::rename(&unchecked, out)
                .map_err(|error| LoadError::new(out, format!("cannot be written: {error}")))
        });
    if checked.is_err() {
        // What matters is the error that came first.
        std::fs::remove_file(&unchecked).ok();
    }
    checked
}

/// What is exact here and not elsewhere.
fn notes(checkpoint: &Checkpoint) -> Vec<String> {
    let config = checkpoint.config();
    let mut notes = Vec::new();
    let has_own_activation = matches!(
        (config.architecture.as_str(), config.mlp.activation),
        ("gpt_neox" | "falcon", kernels::Activation::GeluTanh)
    );
    if has_own_activation {
        notes.push(
            "the activation is an approximation of gelu, under a key of our own; other readers \
             use gelu itself"
                .to_string(),
        );
    }
    if matches!(config.architecture.as_str(), "gemma2" | "gemma3_text") {
        let by_head = 1.0 / (config.head_dim as f32).sqrt();
        if (config.attention.scale - by_head).abs() > 1e-6 {
            notes.push(
                "the scale of attention is under attention.scale; other readers may go by the \
                 size of the model"
                    .to_string(),
            );
        }
    }
    let keeps_ends = |scaling: &RopeScaling| {
        matches!(
            scaling,
            RopeScaling::Yarn {
                truncate: false,
                ..
            }
        )
    };
    if config.ropes.iter().any(|rope| keeps_ends(&rope.scaling)) {
        notes.push("other readers round the ends of YaRN's ramp".to_string());
    }
    notes
}

/// Writes the tensors of a GGUF file in type `ty` to another, all else as it is.
///
/// # Errors
/// A tensor is quantized already and `requantize` is not set (its error would add to the new
/// one), holds values that are not numbers, or a file cannot be read or written.
pub fn quantize_gguf(
    gguf: &Gguf,
    out: &Path,
    ty: WeightType,
    requantize: bool,
    n_threads: usize,
) -> Result<Converted, LoadError> {
    let mut metadata = GgufMetadata::default();
    for (key, value) in gguf.raw_metadata() {
        if key != "general.alignment" {
            metadata.raw(key, value);
        }
    }
    metadata.u32("general.file_type", rules::file_type(ty));
    metadata.u32("general.quantization_version", 2);
    let mut planned = Vec::new();
    for name in gguf.tensor_names() {
        let Some(tensor) = gguf.tensor(name) else {
            continue;
        };
        if tensor.ty.is_quantized() && !requantize {
            return Err(LoadError::new(
                gguf.path(),
                format!(
                    "tensor `{name}` is quantized already ({:?}); errors would add up \
                     (--allow-requantize does it nevertheless)",
                    tensor.ty
                ),
            ));
        }
        let n_in = tensor.shape.last().copied().unwrap_or(1);
        planned.push(Planned {
            name: name.to_string(),
            shape: tensor.shape.to_vec(),
            ty: type_for(ty, role_of(name, tensor.shape), n_in, tensor.ty),
            rows: Rows::of(tensor, n_in),
            n_threads,
        });
    }
    write_gguf(out, &metadata, &planned)?;
    Ok(report(&planned, Vec::new()))
}

fn report(planned: &[Planned<'_>], notes: Vec<String>) -> Converted {
    let mut by_type = BTreeMap::new();
    for tensor in planned {
        *by_type.entry(format!("{:?}", tensor.ty)).or_insert(0) += tensor.n_bytes() as u64;
    }
    let mut by_type: Vec<(String, u64)> = by_type.into_iter().collect();
    by_type.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    Converted {
        n_tensors: planned.len(),
        n_bytes: by_type.iter().map(|(_, n)| n).sum(),
        by_type,
        notes,
    }
}
