//! Adapters: small changes to a model's weights, many of them over one model in memory.
//!
//! [`Adapter::load`] reads one and binds it to a model, on any thread. An [`AdapterStack`] is one
//! or several of them, each with a weight. The [`AdapterTable`] says which stack an
//! [`scheduler::AdapterId`] stands for; the runner looks there at the start of each step.

mod error;
mod stack;
mod table;
mod target;

use std::path::Path;

pub use error::AdapterError;
pub use stack::AdapterStack;
pub use table::AdapterTable;
pub use target::AdapterTarget;

/// One adapter, checked against one model and packed for its device.
#[derive(Debug)]
pub struct Adapter {
    target: AdapterTarget,
    digest: [u8; 32],
    rank: usize,
    n_bytes: usize,
    targets: Vec<String>,
    base_model: Option<String>,
}

impl Adapter {
    /// Reads a directory in PEFT layout (`adapter_config.json`, `adapter_model.safetensors`) or
    /// a GGUF adapter. Blocks on disk and packs on the calling thread; the engine may run the
    /// model meanwhile.
    ///
    /// # Errors
    /// [`AdapterError::Refused`] names the file and the field or tensor.
    pub fn load(path: &Path, target: &AdapterTarget) -> Result<Self, AdapterError> {
        Err(AdapterError::failed(
            path,
            format!("no adapters for {} yet", target.config().architecture),
        ))
    }

    /// SHA-256 of everything that the adapter's effect depends on: its tensors and scales. Equal
    /// content has an equal digest, whatever its name and place.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The largest rank of its matrices; 0 when it only replaces weights.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Bytes of memory that it takes.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Names of the modules that it changes, without layers (`q_proj`, `lm_head`), sorted.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// What its configuration says it was trained on, if it says.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// The model that it is bound to.
    pub fn target(&self) -> &AdapterTarget {
        &self.target
    }
}
