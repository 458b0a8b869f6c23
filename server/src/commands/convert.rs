//! `understudy convert` and `understudy quantize`: GGUF files from checkpoints and from others.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use kernels::WeightType;
use models::{Checkpoint, Converted, Gguf, convert, quantize_gguf};

use super::{CommandError, n_threads, parse_weight_type};
use crate::plan::human_bytes;
use crate::source;
use crate::text::gguf_metadata;

/// Write a checkpoint (a directory in Hugging Face layout) as a GGUF file.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// A directory in Hugging Face layout.
    pub input: String,
    /// The file to write.
    pub output: PathBuf,
    /// Type of matrices: f32, f16 or bf16, or one of those of `quantize`. Default: the type that
    /// the embedding is stored in.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_weight_type)]
    pub ty: Option<WeightType>,
}

/// Write a model in fewer bits: a GGUF file that llama.cpp reads as well.
#[derive(Clone, Debug, Args)]
pub struct QuantizeArgs {
    /// A directory in Hugging Face layout or a GGUF file.
    pub input: String,
    /// The file to write.
    pub output: PathBuf,
    /// q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, q3_k or q2_k.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_weight_type)]
    pub ty: WeightType,
    /// Take a GGUF file that is quantized already; its errors stay, and new ones are added.
    #[arg(long)]
    pub allow_requantize: bool,
}

impl ConvertArgs {
    /// Does it, and tells what was written.
    pub fn run(&self) -> Result<String, CommandError> {
        let path = path_of(&self.input)?;
        let checkpoint = Checkpoint::open(&path)?;
        let ty = match self.ty {
            Some(ty) => ty,
            None => checkpoint.stored_type()?,
        };
        let converted = convert_directory(&checkpoint, &self.output, ty)?;
        Ok(report(&self.output, &converted))
    }
}

impl QuantizeArgs {
    /// Does it, and tells what was written.
    pub fn run(&self) -> Result<String, CommandError> {
        let path = path_of(&self.input)?;
        let converted = if path.is_dir() {
            convert_directory(&Checkpoint::open(&path)?, &self.output, self.ty)?
        } else {
            let gguf = Gguf::open(&path)?;
            quantize_gguf(
                &gguf,
                &self.output,
                self.ty,
                self.allow_requantize,
                n_threads(),
            )?
        };
        Ok(report(&self.output, &converted))
    }
}

pub(super) fn path_of(model: &str) -> Result<PathBuf, CommandError> {
    match source::resolve_local(Some(model))? {
        Some(found) => Ok(found.path),
        None => Err(CommandError::File {
            file: model.into(),
            message: "is not on this machine; `understudy fetch` downloads it".to_string(),
        }),
    }
}

fn convert_directory(
    checkpoint: &Checkpoint,
    out: &std::path::Path,
    ty: WeightType,
) -> Result<Converted, CommandError> {
    let (metadata, notes) = gguf_metadata(checkpoint)?;
    let mut converted = convert(checkpoint, out, ty, &metadata, n_threads())?;
    converted.notes.extend(notes);
    Ok(converted)
}

fn report(out: &std::path::Path, converted: &Converted) -> String {
    let mut text = format!(
        "{}: {} tensors, {}\n",
        out.display(),
        converted.n_tensors,
        human_bytes(converted.n_bytes)
    );
    // Writing to a string cannot fail.
    for (ty, n_bytes) in &converted.by_type {
        writeln!(text, "  {ty:<8} {}", human_bytes(*n_bytes)).ok();
    }
    for note in &converted.notes {
        writeln!(text, "  note: {note}").ok();
    }
    text
}
