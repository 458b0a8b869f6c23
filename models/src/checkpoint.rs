//! A model on disk: configuration and tensors, whatever the container.

use std::path::{Path, PathBuf};

use kernels::{RopeStyle, WeightType};

use crate::config::{read_config_json, read_gguf_config};
use crate::digest::digest;
use crate::eos;
use crate::families::{Family, Names};
use crate::lookup::Lookup;
use crate::quantized::{Quantization, RawTensor, read_quantization};
use crate::safetensors::Shards;
use crate::{Gguf, ModelConfig};

/// A model that cannot be loaded: which file, which field, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct LoadError {
    pub file: String,
    pub message: String,
}

impl LoadError {
    pub(crate) fn new(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            message: message.into(),
        }
    }
}

/// A tensor as its file stores it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor<'a> {
    pub(crate) file: &'a Path,
    pub(crate) ty: WeightType,
    /// Outermost dimension first: a linear layer is `[n_out, n_in]`.
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

/// An opened model: a directory in Hugging Face layout (safetensors) or a GGUF file.
#[derive(Debug)]
pub struct Checkpoint {
    config: ModelConfig,
    family: &'static Family,
    /// How linear layers of a directory are stored, if not plainly.
    quantization: Option<Quantization>,
    eos_tokens: Vec<u32>,
    container: Container,
}

/// Names of a family in both containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdapterNames {
    pub(crate) hugging_face: &'static Names,
    pub(crate) gguf: &'static Names,
    /// Hugging Face lays the halves of rotated heads one after the other.
    pub(crate) halves: bool,
}

#[derive(Debug)]
enum Container {
    HuggingFace { dir: PathBuf, shards: Shards },
    Gguf(Box<Gguf>),
}

impl Checkpoint {
    /// Maps the files of a model and checks everything but the values of its weights.
    ///
    /// # Errors
    /// A file is missing, damaged, or asks for something that is not supported; the error names
    /// the file and the field or tensor.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| LoadError::new(path, format!("cannot be read: {error}")))?;
        let Opened {
            config,
            family,
            quantization,
            eos_tokens,
            container,
        } = if metadata.is_dir() {
            open_directory(path)?
        } else {
            open_gguf(path)?
        };
        Ok(Self {
            config,
            family,
            quantization,
            eos_tokens,
            container,
        })
    }

    /// What each of `n` devices computes of it.
    ///
    /// # Errors
    /// The model cannot be cut into so many parts.
    pub fn part_of(&self, n: usize) -> Result<ModelConfig, LoadError> {
        let part = self.config().part_of(n);
        part.map_err(|why| LoadError::new(self.path(), why))
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the tensors are called.
    pub(crate) fn tensor_map(&self) -> &'static Names {
        match &self.container {
            Container::HuggingFace { .. } => (self.family.names)(&self.config),
            Container::Gguf(_) => (self.family.gguf_names)(&self.config),
        }
    }

    /// What adapters call the modules.
    pub(crate) fn adapter_names(&self) -> AdapterNames {
        let mut plain = self.config.clone();
        plain.attention.rope_style = RopeStyle::Half;
        (self.family.shape)(&mut plain);
        AdapterNames {
            hugging_face: (self.family.names)(&self.config),
            gguf: (self.family.gguf_names)(&self.config),
            halves: plain.attention.rope_style == RopeStyle::Half,
        }
    }

    /// The type that the embedding is stored in, and with it most of the model.
    ///
    /// # Errors
    /// The checkpoint has no embedding.
    pub fn stored_type(&self) -> Result<WeightType, LoadError> {
        let names = self.tensor_map();
        let name = format!("{}.weight", names.embedding);
        let lookup = Lookup::new(self, names);
        let shape = [self.config.vocab_size, self.config.hidden_size];
        Ok(lookup.tensor(&name, &shape)?.ty)
    }

    /// The architecture that this model becomes in a GGUF file, if it has such a form.
    pub(crate) fn gguf_form(&self) -> Option<&'static str> {
        self.family.gguf_form
    }

    /// Tokens that end a generation, from generation_config.json, config.json or GGUF metadata.
    pub fn eos_tokens(&self) -> &[u32] {
        &self.eos_tokens
    }

    /// The directory, for a checkpoint in Hugging Face layout.
    pub fn dir(&self) -> Option<&Path> {
        match &self.container {
            Container::HuggingFace { dir, .. } => Some(dir),
            Container::Gguf(_) => None,
        }
    }

    /// The GGUF file, with its metadata (tokenizer, chat template).
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.container {
            Container::HuggingFace { .. } => None,
            Container::Gguf(gguf) => Some(gguf),
        }
    }

    /// Identity of the weights by content, not by name or place. It reads all of them, as
    /// loading does.
    pub fn digest(&self) -> u64 {
        let digest = digest(self);
        self.drop_pages();
        digest
    }

    /// What errors about the checkpoint as a whole are reported under.
    pub(crate) fn path(&self) -> &Path {
        match &self.container {
            Container::HuggingFace { shards, .. } => shards.path(),
            Container::Gguf(gguf) => gguf.path(),
        }
    }

    /// Gives the pages of weights read so far back to the system.
    pub(crate) fn drop_pages(&self) {
        match &self.container {
            Container::HuggingFace { shards, .. } => shards.drop_pages(),
            Container::Gguf(gguf) => gguf.drop_pages(),
        }
    }

    /// Names of all tensors, sorted.
    pub(crate) fn tensor_names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.container {
            Container::HuggingFace { shards, .. } => Box::new(shards.names()),
            Container::Gguf(gguf) => Box::new(gguf.tensor_names()),
        }
    }

    /// Whether there is a tensor of exactly this name, of whatever type.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.container {
            Container::HuggingFace { shards, .. } => shards.has(name),
            Container::Gguf(gguf) => gguf.tensor(name).is_some(),
        }
    }

    pub(crate) fn quantization(&self) -> Option<&Quantization> {
        self.quantization.as_ref()
    }

    /// The tensor of exactly this name in safetensors files, whatever its type.
    pub(crate) fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        match &self.container {
            Container::HuggingFace { shards, .. } => shards.raw(name),
            Container::Gguf(_) => None,
        }
    }

    /// The tensor of exactly this name, or `None` when the checkpoint has none.
    ///
    /// # Errors
    /// It is stored in a type that is not supported.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor<'_>>, LoadError> {
        match &self.container {
            Container::HuggingFace { shards, .. } => shards.tensor(name),
            Container::Gguf(gguf) => Ok(gguf.tensor(name)),
        }
    }
}

/// A model's files, opened.
struct Opened {
    config: ModelConfig,
    family: &'static Family,
    quantization: Option<Quantization>,
    eos_tokens: Vec<u32>,
    container: Container,
}

fn open_directory(dir: &Path) -> Result<Opened, LoadError> {
    let config_path = dir.join("config.json");
    if !config_path.exists() {
        refuse_gguf_files(dir)?;
    }
    let text = std::fs::read_to_string(&config_path)
        .map_err(|error| LoadError::new(&config_path, format!("cannot be read: {error}")))?;
    let (config, family) = read_config_json(&config_path, &text)?;
    let quantization = read_quantization(&config_path, &text)?;
    let eos_tokens = eos::from_directory(dir, &config_path, &text)?;
    let shards = Shards::open(dir)?;
    let container = Container::HuggingFace {
        dir: dir.to_path_buf(),
        shards,
    };
    Ok(Opened {
        config,
        family,
        quantization,
        eos_tokens,
        container,
    })
}

/// A directory of GGUF files is a place where models are, and not one of them.
fn refuse_gguf_files(dir: &Path) -> Result<(), LoadError> {
    let entries = std::fs::read_dir(dir)
        .map_err(|error| LoadError::new(dir, format!("cannot be read: {error}")))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.to_lowercase().ends_with(".gguf"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("holds GGUF files: name one of them: {}", names.join(", "));
    Err(LoadError::new(dir, message))
}

fn open_gguf(path: &Path) -> Result<Opened, LoadError> {
    let gguf = Gguf::open(path)?;
    let (config, family) = read_gguf_config(&gguf)?;
    let eos_tokens = eos::from_gguf(&gguf)?;
    Ok(Opened {
        config,
        family,
        quantization: None,
        eos_tokens,
        container: Container::Gguf(Box::new(gguf)),
    })
}
