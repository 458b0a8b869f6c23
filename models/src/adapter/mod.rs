//! Adapters: small changes to a model's weights, many of them over one model in memory.
//!
//! [`Adapter::load`] reads one and binds it to a model, on any thread. An [`AdapterStack`] is one
//! or several of them, each with a weight. The [`AdapterTable`] says which stack an
//! [`scheduler::AdapterId`] stands for; the runner looks there at the start of each step.

mod bind;
mod bind_tokens;
mod config;
mod embedding;
mod error;
mod file;
mod gguf;
mod merge;
mod modules;
mod pattern;
mod rows;
pub(crate) mod sites;
mod stack;
mod summary;
mod table;
mod target;
mod to_gguf;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kernels::{Linear, LowRank};
use sha2::{Digest, Sha256};

pub use error::AdapterError;
pub use merge::merge;
pub(crate) use rows::{AdapterRows, StepAdapters};
pub use stack::AdapterStack;
pub(crate) use stack::OwnNorm;
pub use summary::AdapterSummary;
pub use table::AdapterTable;
pub use target::AdapterTarget;
pub use to_gguf::adapter_to_gguf;

use embedding::AdapterEmbedding;
use file::AdapterFile;

/// One adapter, checked against one model and packed for its device.
#[derive(Debug)]
pub struct Adapter {
    target: AdapterTarget,
    digest: [u8; 32],
    rank: usize,
    n_bytes: usize,
    targets: Vec<String>,
    base_model: Option<String>,
    /// By number.
    sites: BTreeMap<usize, AdapterSite>,
    norms: BTreeMap<usize, SavedNorm>,
    embedding: AdapterEmbedding,
    /// The same for the model's parts on other devices.
    others: Vec<Arc<Adapter>>,
}

/// What an adapter changes at one site.
#[derive(Debug, Default)]
struct AdapterSite {
    low_rank: Vec<Arc<LowRank>>,
    outputs: Vec<AdapterOutput>,
}

/// What an adapter changes at one output apart from low-rank matrices.
#[derive(Debug)]
struct AdapterOutput {
    output: usize,
    /// `[n_out]`: what the model's output is multiplied by.
    scale: Option<Vec<f32>>,
    /// `[n_out]`: what is added then.
    shift: Option<Vec<f64>>,
    /// A matrix in the place of the model's.
    replaced: Option<Arc<Linear>>,
}

/// Weights in the place of a norm's.
#[derive(Debug, Default)]
struct SavedNorm {
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

impl Adapter {
    /// Reads a directory in PEFT layout (`adapter_config.json`, `adapter_model.safetensors`) or
    /// a GGUF adapter. Blocks on disk and packs on the calling thread; the engine may run the
    /// model meanwhile.
    ///
    /// # Errors
    /// [`AdapterError::Refused`] names the file and the field or tensor.
    pub fn load(path: &Path, target: &AdapterTarget) -> Result<Self, AdapterError> {
        let file = AdapterFile::open(path)?;
        let digest = digest(&file)?;
        let others = target.others().iter();
        let others = others.map(|part| Self::of_part(&file, digest, part).map(Arc::new));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            others,
            ..Self::of_part(&file, digest, target)?
        })
    }

    /// What it is for one part of a model.
    fn of_part(
        file: &AdapterFile,
        digest: [u8; 32],
        target: &AdapterTarget,
    ) -> Result<Self, AdapterError> {
        let bound = bind::bind(file, target)?;
        Ok(Self {
            target: target.clone(),
            digest,
            rank: bound.rank,
            n_bytes: n_bytes(&bound),
            targets: bound.targets,
            base_model: file.config().and_then(|config| config.base_model.clone()),
            sites: bound.sites,
            norms: bound.norms,
            embedding: bound.embedding,
            others: Vec::new(),
        })
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

    /// Bytes of memory that it takes, of the device where it takes most.
    pub fn n_bytes(&self) -> usize {
        let others = self.others.iter().map(|part| part.n_bytes);
        others.fold(self.n_bytes, usize::max)
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

fn n_bytes(bound: &bind::Bound) -> usize {
    let site = |site: &AdapterSite| {
        let low_rank: usize = site.low_rank.iter().map(|own| own.n_bytes()).sum();
        let output = |own: &AdapterOutput| {
            let scale = own.scale.as_ref().map_or(0, |scale| 4 * scale.len());
            let shift = own.shift.as_ref().map_or(0, |shift| 8 * shift.len());
            scale + shift + own.replaced.as_ref().map_or(0, |own| own.n_bytes())
        };
        low_rank + site.outputs.iter().map(output).sum::<usize>()
    };
    let len = |values: &Option<Vec<f32>>| values.as_ref().map_or(0, |values| 4 * values.len());
    let norms = bound.norms.values();
    let norms: usize = norms.map(|norm| len(&norm.weight) + len(&norm.bias)).sum();
    bound.sites.values().map(site).sum::<usize>() + norms + bound.embedding.n_bytes()
}

fn digest(file: &AdapterFile) -> Result<[u8; 32], AdapterError> {
    let mut hash = Sha256::new();
    for (module, tensors) in file.modules()? {
        let low_rank = [&tensors.a, &tensors.embedding_a];
        if low_rank.into_iter().any(Option::is_some) {
            let rank = [&tensors.b, &tensors.embedding_b]
                .into_iter()
                .flatten()
                .next();
            let rank = rank
                .and_then(|b| b.tensor.shape.last().copied())
                .unwrap_or(0);
            let (rank, scale) = file.rank_and_scale(&module, rank)?;
            hash.update(format!("\0{module}\0{rank}\0{:08x}", scale.to_bits()));
        }
        for (kind, tensor) in tensors.all() {
            if let Some(named) = tensor {
                let tensor = &named.tensor;
                hash.update(format!(
                    "\0{module}\0{kind}\0{:?}{:?}\0",
                    tensor.ty, tensor.shape
                ));
                hash.update(tensor.bytes);
            }
        }
    }
    if let Some(config) = file.config() {
        hash.update(format!("\0{:?}", config.tokens));
    }
    Ok(hash.finalize().into())
}
