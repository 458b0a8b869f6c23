//! What an adapter's files say, without a model.

use std::path::Path;

use super::AdapterError;
use super::file::{AdapterFile, ModuleTensors};

/// What is in an adapter's files. Whether it fits a model is another question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterSummary {
    /// `PEFT` or `GGUF`.
    pub format: &'static str,
    /// What it says it was trained on, if it says.
    pub base_model: Option<String>,
    /// SHA-256 of everything that its effect depends on.
    pub digest: [u8; 32],
    pub n_modules: usize,
    pub n_bytes: u64,
    pub max_rank: usize,
    /// Names of modules without layers, sorted.
    pub targets: Vec<String>,
    /// What it has beside plain low-rank matrices, in the words of PEFT.
    pub features: Vec<&'static str>,
}

impl AdapterSummary {
    /// Reads a directory in PEFT layout or a GGUF adapter.
    ///
    /// # Errors
    /// [`AdapterError::Refused`] names the file and the field or tensor.
    pub fn read(path: &Path) -> Result<Self, AdapterError> {
        let file = AdapterFile::open(path)?;
        let config = file.config();
        let modules = file.modules()?;
        let mut summary = Self {
            format: if config.is_some() { "PEFT" } else { "GGUF" },
            base_model: config.and_then(|config| config.base_model.clone()),
            digest: super::digest(&file)?,
            n_modules: modules.len(),
            ..Self::default()
        };
        for (name, tensors) in &modules {
            summary.add(name, tensors);
        }
        if config.is_some_and(|config| !config.tokens.is_empty()) {
            summary.note("trainable_token_indices");
        }
        summary.targets.sort();
        summary.targets.dedup();
        summary.features.sort_unstable();
        Ok(summary)
    }

    fn add(&mut self, name: &str, tensors: &ModuleTensors<'_>) {
        for (_, tensor) in tensors.all() {
            let n_bytes = tensor.map_or(0, |named| named.tensor.bytes.len());
            self.n_bytes += n_bytes as u64;
        }
        let a = tensors.a.as_ref();
        let rank = a.and_then(|a| a.tensor.shape.first()).copied();
        self.max_rank = self.max_rank.max(rank.unwrap_or(0));
        let last = name.rsplit('.').next().unwrap_or(name);
        self.targets.push(last.to_owned());
        for (is_there, feature) in [
            (tensors.magnitude.is_some(), "use_dora"),
            (tensors.b_bias.is_some(), "lora_bias"),
            (tensors.embedding_a.is_some(), "lora_embedding"),
            (tensors.tokens.is_some(), "trainable_token_indices"),
            (tensors.weight.is_some(), "modules_to_save"),
            (tensors.bias.is_some(), "bias"),
        ] {
            if is_there {
                self.note(feature);
            }
        }
    }

    fn note(&mut self, feature: &'static str) {
        if !self.features.contains(&feature) {
            self.features.push(feature);
        }
    }
}
