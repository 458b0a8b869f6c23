//! Adapters in PEFT layout as GGUF files, which llama.cpp reads as well.

use std::io::Write;
use std::path::Path;

use kernels::WeightType;

use super::file::{AdapterFile, ModuleTensors, Named};
use super::modules::{LinearModule, ModuleKind};
use super::target::NamedModules;
use super::{Adapter, AdapterError, AdapterTarget};
use crate::LoadError;
use crate::gguf::{GgufMetadata, GgufTensor, write_gguf};

/// A matrix to be written.
struct Matrix {
    name: String,
    ty: WeightType,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl GgufTensor for Matrix {
    fn name(&self) -> &str {
        &self.name
    }

    fn ty(&self) -> WeightType {
        self.ty
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn write(&self, out: &mut dyn Write) -> Result<(), LoadError> {
        out.write_all(&self.bytes)
            .map_err(|error| LoadError::new(Path::new(&self.name), error.to_string()))
    }
}

/// Writes the adapter at `path`, in PEFT layout, as the GGUF file `out`. `target` is of the model
/// that it belongs to, in GGUF: names and rows become those of that file.
///
/// # Errors
/// The adapter does not fit the model, the model is not in GGUF, or the adapter has something
/// that has no place in a GGUF file: anything but low-rank matrices beside linear layers.
pub fn adapter_to_gguf(
    path: &Path,
    target: &AdapterTarget,
    out: &Path,
) -> Result<usize, AdapterError> {
    // Everything is checked as for serving.
    Adapter::load(path, target)?;
    let file = AdapterFile::open(path)?;
    let Some(names) = target.gguf() else {
        let message = "becomes a GGUF file for a model in GGUF only, whose rows it takes over; \
                       `understudy convert` makes one of a checkpoint";
        return Err(AdapterError::refused(path, message));
    };
    if file.config().is_none() {
        return Err(AdapterError::refused(path, "is a GGUF file already"));
    }
    let mut alpha = None;
    let mut matrices = Vec::new();
    for (name, tensors) in file.modules()? {
        let (Some(a), Some(b)) = (&tensors.a, &tensors.b) else {
            return Err(file.refuse(&name, "only low-rank matrices have a place in GGUF"));
        };
        check_plain(&file, &tensors)?;
        let (rank, scale) = file.rank_and_scale(&name, a.tensor.shape[0])?;
        // One number serves all modules: `alpha / rank` is a module's scale.
        let own = scale * rank as f32;
        let factor = own / *alpha.get_or_insert(own);
        let found = target.hugging_face().find(&name);
        let module = match found.map(|(_, module)| &module.kind) {
            Some(ModuleKind::Linear(module)) => module,
            _ => return Err(file.refuse(&name, "has no place in GGUF")),
        };
        let pairs = pieces(target, names, module);
        if pairs.is_empty() {
            return Err(file.refuse(&name, "has no name in the model's GGUF file"));
        }
        for (name, rows) in pairs {
            matrices.push(Matrix {
                name: format!("{name}.weight.lora_a"),
                ty: a.tensor.ty,
                shape: [rank, module.n_in],
                bytes: a.tensor.bytes.to_vec(),
            });
            matrices.push(expansion(&name, b, rank, factor, &rows));
        }
    }
    let mut metadata = GgufMetadata::default();
    metadata.string("general.type", "adapter");
    if let Some(architecture) = target.gguf_architecture() {
        metadata.string("general.architecture", architecture);
    }
    metadata.string("adapter.type", "lora");
    metadata.f32("adapter.lora.alpha", alpha.unwrap_or(0.0));
    write_gguf(out, &metadata, &matrices)?;
    Ok(matrices.len())
}

fn check_plain(file: &AdapterFile, tensors: &ModuleTensors<'_>) -> Result<(), AdapterError> {
    let others = tensors.all().into_iter();
    let mut others = others.filter(|(kind, _)| !matches!(*kind, "a" | "b"));
    match others.find_map(|(_, tensor)| tensor) {
        Some(other) => Err(file.refuse_tensor(other, "has no place in GGUF")),
        None => Ok(()),
    }
}

/// The modules of a GGUF file that a module of PEFT becomes, and for each of their rows the row
/// of PEFT.
fn pieces(
    target: &AdapterTarget,
    names: &NamedModules,
    module: &LinearModule,
) -> Vec<(String, Vec<usize>)> {
    let mut pieces = Vec::new();
    for (name, kind) in names.linear() {
        let of_site = kind.site == module.site;
        let part_of = |output: usize| module.parts.iter().find(|part| part.output == output);
        if !of_site || !kind.parts.iter().all(|part| part_of(part.output).is_some()) {
            continue;
        }
        let mut rows = vec![0; kind.n_out];
        for part in &kind.parts {
            let Some(stored) = part_of(part.output) else {
                continue;
            };
            let n_out = target.layers(module.site)[part.output].weight.n_out();
            for row in 0..n_out {
                rows[part.row(target.config(), row)] = stored.row(target.config(), row);
            }
        }
        pieces.push((name.to_string(), rows));
    }
    pieces
}

/// `B` with rows in another order, times `factor`.
fn expansion(name: &str, b: &Named<'_>, rank: usize, factor: f32, rows: &[usize]) -> Matrix {
    let (ty, bytes) = if factor == 1.0 {
        let width = rank * b.tensor.ty.block_bytes();
        let row = |row: &usize| &b.tensor.bytes[row * width..][..width];
        (b.tensor.ty, rows.iter().flat_map(row).copied().collect())
    } else {
        let values = b.values();
        let row = |row: &usize| values[row * rank..][..rank].iter();
        let scaled = rows.iter().flat_map(row).map(|value| value * factor);
        let bytes = scaled.flat_map(f32::to_le_bytes).collect();
        (WeightType::F32, bytes)
    };
    Matrix {
        name: format!("{name}.weight.lora_b"),
        ty,
        shape: [rows.len(), rank],
        bytes,
    }
}
