//! From a model's name to everything that serves it.

mod encoder;

use std::sync::Arc;

use kernels::Device;
use models::{
    Checkpoint, EncoderRunner, LoadError, LoadOptions, Model, ModelRunner, RunnerOptions,
    SharedWeights, WeightKey,
};
use scheduler::{
    Batch, ConfigError, Executor, ExecutorError, Sampled, Scheduler, SchedulerConfig, Ticket,
};
use sha2::{Digest, Sha256};

use crate::device::{self, NoDevice};
use crate::embedder::EmbeddingModel;
use crate::identity::{hex, unix_seconds};
use crate::plan::{FreeMemory, MemoryPlan, Needs, PlanError};
use crate::settings::{Precision, Settings};
use crate::source::{ModelSource, SourceError};
use crate::state::ServedModel;
use crate::text::{ChatTemplate, TemplateError, Tokenizer, TokenizerError};

pub use encoder::{LoadedEncoder, load_encoder};

/// A model that cannot be served. Each names the file or the flag at fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Device(#[from] NoDevice),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Scheduler(#[from] ConfigError),
    #[error("{flag} is for models that generate text, but MODEL is an encoder")]
    EncoderFlag { flag: &'static str },
}

/// A model in memory, with the machine it runs on.
#[derive(Debug)]
pub struct Loaded {
    pub served: ServedModel,
    pub scheduler: Scheduler,
    pub runner: Runner,
    /// How it makes vectors, if it does.
    pub embedding: Option<EmbeddingModel>,
    /// An encoder beside it.
    pub beside: Option<LoadedEncoder>,
    pub plan: MemoryPlan,
    pub footprint: Footprint,
    /// Where models beside it find its matrices; `None`: it is alone.
    pub shared: Option<Arc<SharedWeights>>,
    /// What other models may run on beside it; `None`: an encoder, which has no device.
    pub device: Option<Device>,
    /// For people.
    pub description: Description,
}

/// Memory of a model: weights, KV cache, and what a step works in.
#[derive(Clone, Debug)]
pub struct Footprint {
    /// Matrices that other models may have too, and their bytes.
    pub matrices: Vec<(WeightKey, u64)>,
    /// Of all else.
    pub rest_bytes: u64,
}

impl Footprint {
    /// Of all of it.
    pub fn n_bytes(&self) -> u64 {
        let matrices = self.matrices.iter().map(|(_, n_bytes)| n_bytes);
        self.rest_bytes + matrices.sum::<u64>()
    }
}

/// What runs the batches of a loaded model.
#[derive(Debug)]
pub enum Runner {
    Decoder(Box<ModelRunner>),
    Encoder(Box<EncoderRunner>),
}

impl Executor for Runner {
    fn execute(&mut self, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        match self {
            Self::Decoder(runner) => runner.execute(batch),
            Self::Encoder(runner) => runner.execute(batch),
        }
    }

    fn lost(&self) -> Option<String> {
        match self {
            Self::Decoder(runner) => runner.lost(),
            Self::Encoder(runner) => runner.lost(),
        }
    }

    fn n_in_flight(&self) -> usize {
        match self {
            Self::Decoder(runner) => runner.n_in_flight(),
            Self::Encoder(runner) => runner.n_in_flight(),
        }
    }

    fn start(&mut self, batch: &Batch) -> Result<Ticket, ExecutorError> {
        match self {
            Self::Decoder(runner) => runner.start(batch),
            Self::Encoder(runner) => runner.start(batch),
        }
    }

    fn finish(&mut self, ticket: Ticket, batch: &Batch) -> Result<Vec<Sampled>, ExecutorError> {
        match self {
            Self::Decoder(runner) => runner.finish(ticket, batch),
            Self::Encoder(runner) => runner.finish(ticket, batch),
        }
    }
}

/// What the banner shows.
#[derive(Clone, Debug)]
pub struct Description {
    pub architecture: String,
    pub path: String,
    pub n_weight_bytes: u64,
    /// Of these, weights that are stored in fewer bits and held in more.
    pub n_widened_bytes: u64,
    pub device: String,
}

/// Loads the model at `source`: a decoder or an encoder.
pub fn load(settings: &Settings, source: &ModelSource) -> Result<Loaded, StartError> {
    if models::is_encoder(&source.path) {
        encoder::load_as_model(settings, source)
    } else {
        load_decoder(settings, source)
    }
}

/// Loads a decoder on a device that other models are on already, whose weights are in `shared`.
pub fn load_beside(
    settings: &Settings,
    source: &ModelSource,
    device: &Device,
    shared: Arc<SharedWeights>,
) -> Result<Loaded, StartError> {
    let device = || Ok((vec![device.clone()], device.describe()));
    load_on(settings, source, Some(shared), device)
}

fn load_decoder(settings: &Settings, source: &ModelSource) -> Result<Loaded, StartError> {
    let is_alone = settings.fleet.models.is_empty();
    let shared = (!is_alone).then(Arc::default);
    load_on(settings, source, shared, || device::open(settings))
}

fn load_on(
    settings: &Settings,
    source: &ModelSource,
    shared: Option<Arc<SharedWeights>>,
    open_devices: impl FnOnce() -> Result<(Vec<Device>, String), NoDevice>,
) -> Result<Loaded, StartError> {
    let checkpoint = Checkpoint::open(&source.path)?;
    // Small files first: their errors should not wait for the weights.
    let tokenizer = Tokenizer::load(&checkpoint)?;
    let template = ChatTemplate::load(&checkpoint)?;
    if let Some(template) = &template {
        try_template(template)?;
    }
    let (devices, device_text) = open_devices()?;
    // What one of them computes.
    let config = checkpoint.part_of(devices.len())?;
    let Precision {
        numerics,
        dense,
        kv_type,
    } = settings.precision;
    let options = LoadOptions {
        numerics,
        dense,
        shared: shared.as_deref(),
    };
    let parts = devices.iter();
    let parts = parts.map(|device| Model::load_with(&checkpoint, device, options));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let description = Description {
        architecture: config.architecture.clone(),
        path: source.path.display().to_string(),
        n_weight_bytes: parts.iter().map(|part| part.n_bytes() as u64).sum(),
        n_widened_bytes: parts.iter().map(|part| part.widened_bytes() as u64).sum(),
        device: device_text,
    };
    // Blocks are the same on all devices, so the fullest decides.
    let memory = FreeMemory::of(devices.iter().filter_map(Device::free_bytes).min());
    let memory = memory.within(&settings.fleet, description.n_weight_bytes);
    let plan = MemoryPlan::new(&Needs::new(settings, &config, memory))?;
    let runner = ModelRunner::of_parts(
        parts,
        RunnerOptions {
            n_blocks: plan.n_blocks,
            block_size: plan.block_size,
            kv_type,
            max_batched_tokens: settings.max_batched_tokens,
            max_model_len: plan.max_model_len,
        },
    )?;
    let scheduler = scheduler(settings, &plan, config.kv_window())?;
    let arithmetic = devices[0].arithmetic();
    let identity = identity(checkpoint.digest(), settings.precision, &arithmetic);
    let served = ServedModel {
        names: names(settings, source),
        tokenizer,
        generates: true,
        template,
        eos_tokens: Arc::from(checkpoint.eos_tokens()),
        vocab_size: config.vocab_size,
        max_model_len: u32::try_from(plan.max_model_len).unwrap_or(u32::MAX),
        kv_root: u64::from_le_bytes(identity[..8].try_into().expect("eight bytes")),
        fingerprint: fingerprint(&identity),
        created: unix_seconds(),
    };
    let footprint = footprint(&runner, &plan, settings);
    Ok(Loaded {
        embedding: embedding(settings, &served, config.hidden_size),
        served,
        scheduler,
        runner: Runner::Decoder(Box::new(runner)),
        beside: None,
        footprint,
        shared,
        device: devices.into_iter().next(),
        plan,
        description,
    })
}

/// See [`Footprint`].
fn footprint(runner: &ModelRunner, plan: &MemoryPlan, settings: &Settings) -> Footprint {
    let model = runner.model();
    let matrices = model.matrices().to_vec();
    let n_shareable = matrices.iter().map(|(_, n_bytes)| n_bytes).sum();
    let step = ModelRunner::step_bytes(model.config(), settings.max_batched_tokens);
    let own = (model.n_bytes() as u64).saturating_sub(n_shareable);
    Footprint {
        matrices,
        rest_bytes: own + plan.n_bytes() + step,
    }
}

fn scheduler(
    settings: &Settings,
    plan: &MemoryPlan,
    window: Option<usize>,
) -> Result<Scheduler, ConfigError> {
    Scheduler::new(SchedulerConfig {
        block_size: plan.block_size,
        n_blocks: plan.n_blocks,
        max_batched_tokens: settings.max_batched_tokens,
        max_sequences: settings.max_sequences,
        max_model_len: plan.max_model_len,
        window,
        prefix_cache: settings.prefix_cache,
        fairness: settings.fairness,
        head_start: settings.head_start,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    })
}

/// How a decoder's states become vectors, if they are to.
fn embedding(settings: &Settings, served: &ServedModel, width: usize) -> Option<EmbeddingModel> {
    let pooling = settings.embeddings?;
    Some(EmbeddingModel {
        names: served.names.clone(),
        tokenizer: served.tokenizer.clone(),
        vocab_size: served.vocab_size,
        pooling,
        normalize: true,
        width: u32::try_from(width).unwrap_or(u32::MAX),
        is_matryoshka: false,
        max_tokens: served.max_model_len as usize,
        cuts: false,
        kv_root: served.kv_root,
        created: served.created,
    })
}

/// Renders the simplest conversation there is. A template that cannot do that would fail every
/// request, and it is better to know now.
fn try_template(template: &ChatTemplate) -> Result<(), TemplateError> {
    let messages = serde_json::json!([{"role": "user", "content": "Hello."}]);
    let rendered = template.render(&messages, None, true, &serde_json::Map::new());
    match rendered {
        Ok(_) => Ok(()),
        Err(TemplateError::Raised(message)) => Err(TemplateError::Failed {
            file: template.file().to_owned(),
            message: format!(
                "the chat template refuses a conversation of one user message: {message}"
            ),
        }),
        Err(failed) => Err(failed),
    }
}

fn names(settings: &Settings, source: &ModelSource) -> Vec<String> {
    if settings.names.is_empty() {
        vec![source.name.clone()]
    } else {
        settings.names.clone()
    }
}

/// Digest of everything that the numbers in the KV cache, and so the answers, depend on.
fn identity(weights: u64, precision: Precision, arithmetic: &str) -> [u8; 32] {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{version}/{weights:016x}/{precision:?}/{arithmetic}");
    Sha256::digest(text.as_bytes()).into()
}

fn fingerprint(identity: &[u8; 32]) -> String {
    format!("fp_{}", hex(&identity[8..13]))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use kernels::{KvType, Numerics, WeightType};

    use super::*;

    #[test]
    fn what_is_computed_with_is_part_of_the_identity() {
        let kv_types = [KvType::Bf16, KvType::F32, KvType::Int8, KvType::Fp8];
        let identities: std::collections::BTreeSet<[u8; 32]> = kv_types
            .into_iter()
            .flat_map(|kv_type| {
                [None, Some(WeightType::Q8_0)].map(|dense| Precision {
                    numerics: Numerics::Native,
                    dense,
                    kv_type,
                })
            })
            .flat_map(|precision| {
                ["CPU", "CUDA"].map(|arithmetic| identity(7, precision, arithmetic))
            })
            .collect();
        assert_eq!(identities.len(), 16);
    }

    #[test]
    fn a_template_that_refuses_everybody_is_named_once() {
        let text = "{{ raise_exception('no') }}";
        let template = ChatTemplate::from_text(
            "dir/t.jinja",
            text,
            &serde_json::Map::new(),
            SystemTime::now,
        );
        let error = try_template(&template.unwrap()).unwrap_err();
        // As `main` prints it: the error and all that caused it.
        let printed = format!("{:#}", anyhow::Error::from(StartError::from(error)));
        assert_eq!(printed.matches("dir/t.jinja").count(), 1, "{printed}");
        assert_eq!(printed.matches(": no").count(), 1, "{printed}");
    }
}
