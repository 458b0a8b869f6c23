//! `understudy adapters`: what adapters are, whether they fit a model, and what can be made of
//! them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kernels::{CpuOptions, Device, Numerics, WeightType};
use models::{Adapter, AdapterSummary, Checkpoint, Model, adapter_to_gguf, merge};

use super::convert::path_of;
use super::{CommandError, parse_weight_type};
use crate::adapters::adapters_in;
use crate::identity::hex;
use crate::plan::human_bytes;

/// List, inspect, verify, merge and convert adapters.
#[derive(Clone, Debug, Args)]
pub struct AdaptersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// One line for each adapter in a directory.
    List {
        /// What --adapter-dir is given.
        dir: PathBuf,
    },
    /// What the files of an adapter say.
    Inspect {
        /// A directory in PEFT layout or a GGUF file.
        adapter: PathBuf,
    },
    /// Check adapters against a model as serving would; the exit code is 0 if all fit.
    Verify {
        /// The model: a directory or a GGUF file.
        model: String,
        #[arg(required = true)]
        adapters: Vec<PathBuf>,
    },
    /// Write the model with adapters merged into its weights, as a directory in Hugging Face
    /// layout.
    Merge {
        /// The model: a directory with safetensors.
        model: String,
        /// Adapters, each with @WEIGHT behind it if that is not 1.
        #[arg(required = true)]
        adapters: Vec<String>,
        /// The directory to write, which must not exist.
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
        /// Type of changed tensors: f32, f16 or bf16. Default: as each is stored.
        #[arg(long = "type", value_name = "TYPE", value_parser = parse_weight_type)]
        ty: Option<WeightType>,
    },
    /// Write an adapter in PEFT layout as a GGUF file, which llama.cpp reads as well.
    Convert {
        /// The model that it belongs to: a GGUF file.
        model: String,
        /// A directory in PEFT layout.
        adapter: PathBuf,
        /// The file to write.
        output: PathBuf,
    },
}

impl AdaptersArgs {
    /// Does it, and tells what there is or was made.
    pub fn run(&self) -> Result<String, CommandError> {
        match &self.action {
            Action::List { dir } => list(dir),
            Action::Inspect { adapter } => inspect(adapter),
            Action::Verify { model, adapters } => verify(model, adapters),
            Action::Merge {
                model,
                adapters,
                output,
                ty,
            } => merge_into(model, adapters, output, *ty),
            Action::Convert {
                model,
                adapter,
                output,
            } => {
                let (_, model) = open(model)?;
                let n_tensors = adapter_to_gguf(adapter, model.adapter_target(), output)?;
                Ok(format!("{}: {n_tensors} tensors\n", output.display()))
            }
        }
    }
}

fn file_error(file: &Path, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::File {
        file: file.to_path_buf(),
        message: error.to_string(),
    }
}

fn list(dir: &Path) -> Result<String, CommandError> {
    let found = adapters_in(dir).map_err(|error| file_error(dir, &error))?;
    let mut text = String::new();
    for (name, path) in found {
        // Writing to a string cannot fail.
        match AdapterSummary::read(&path) {
            Ok(summary) => writeln!(
                text,
                "{name}  {}  rank {}  {}  {}  {}",
                summary.format,
                summary.max_rank,
                human_bytes(summary.n_bytes),
                summary.targets.join(","),
                summary.base_model.unwrap_or_default(),
            ),
            Err(error) => writeln!(text, "{name}  cannot be read: {error}"),
        }
        .ok();
    }
    Ok(text)
}

fn inspect(adapter: &Path) -> Result<String, CommandError> {
    let AdapterSummary {
        format,
        base_model,
        digest,
        n_modules,
        n_bytes,
        max_rank,
        targets,
        features,
    } = AdapterSummary::read(adapter)?;
    let features = match features.as_slice() {
        [] => "none".to_owned(),
        features => features.join(", "),
    };
    Ok(format!(
        "format    {format}\nbase      {}\nrank      {max_rank}\nmodules   {n_modules}\n\
         targets   {}\nbeside    {features}\nbytes     {}\ndigest    {}\n",
        base_model.as_deref().unwrap_or("not said"),
        targets.join(", "),
        human_bytes(n_bytes),
        hex(&digest),
    ))
}

/// The model in memory. Adapters are checked against its weights, some of which they need.
fn open(model: &str) -> Result<(Checkpoint, Model), CommandError> {
    let checkpoint = Checkpoint::open(&path_of(model)?)?;
    let device = Device::cpu(CpuOptions::default());
    let model = Model::load(&checkpoint, &device, Numerics::Native, None)?;
    Ok((checkpoint, model))
}

fn verify(model: &str, adapters: &[PathBuf]) -> Result<String, CommandError> {
    let (_, model) = open(model)?;
    let (mut good, mut bad, mut n_bad) = (String::new(), String::new(), 0);
    for path in adapters {
        // Writing to a string cannot fail.
        match Adapter::load(path, model.adapter_target()) {
            Ok(adapter) => {
                let n_bytes = human_bytes(adapter.n_bytes() as u64);
                let rank = adapter.rank();
                writeln!(good, "{}: fits, rank {rank}, {n_bytes}", path.display()).ok();
            }
            Err(error) => {
                n_bad += 1;
                writeln!(bad, "  {error}").ok();
            }
        }
    }
    if n_bad == 0 {
        return Ok(good);
    }
    Err(CommandError::Misfits {
        n: adapters.len(),
        n_bad,
        list: bad.trim_end().to_owned(),
    })
}

fn merge_into(
    model: &str,
    adapters: &[String],
    output: &Path,
    ty: Option<WeightType>,
) -> Result<String, CommandError> {
    let (checkpoint, model) = open(model)?;
    let weighted = adapters.iter().map(|text| weighted(text));
    let weighted = weighted.collect::<Result<Vec<(&Path, f32)>, _>>()?;
    std::fs::create_dir(output).map_err(|error| file_error(output, &error))?;
    let written = merge(&checkpoint, model.adapter_target(), &weighted, ty, output)
        .map_err(CommandError::from)
        .and_then(|()| copy_others(&checkpoint, output));
    if let Err(error) = written {
        // What matters is the error that came first.
        std::fs::remove_dir_all(output).ok();
        return Err(error);
    }
    let n_adapters = adapters.len();
    let output = output.display();
    Ok(format!("{output}: {n_adapters} adapters merged\n"))
}

/// A path, and behind the last `@` a weight.
fn weighted(text: &str) -> Result<(&Path, f32), CommandError> {
    match text.rsplit_once('@') {
        Some((path, weight)) if !Path::new(text).exists() => {
            let weight = weight.parse().map_err(|_| {
                let message = format!("`{weight}` is not the weight of an adapter");
                file_error(Path::new(text), &message)
            })?;
            Ok((Path::new(path), weight))
        }
        _ => Ok((Path::new(text), 1.0)),
    }
}

/// Configuration, tokenizer and templates are the model's.
fn copy_others(checkpoint: &Checkpoint, output: &Path) -> Result<(), CommandError> {
    let Some(dir) = checkpoint.dir() else {
        return Ok(());
    };
    let entries = std::fs::read_dir(dir).map_err(|error| file_error(dir, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| file_error(dir, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        let text = name.to_string_lossy();
        let is_index = text.ends_with(".safetensors.index.json");
        let extension = path.extension().and_then(|ext| ext.to_str());
        let is_wanted = matches!(extension, Some("json" | "jinja" | "txt" | "model")) && !is_index;
        if path.is_file() && is_wanted {
            let copied = std::fs::copy(&path, output.join(&name));
            copied.map_err(|error| file_error(&path, &error))?;
        }
    }
    Ok(())
}
