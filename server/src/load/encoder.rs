//! Encoders, as the model itself or beside it.

use models::{Encoder, EncoderRunner};
use scheduler::{Pooling, Scheduler, SchedulerConfig};

use super::{Description, Footprint, Loaded, Runner, StartError, fingerprint, names};
use crate::device::DeviceChoice;
use crate::embedder::EmbeddingModel;
use crate::identity::unix_seconds;
use crate::plan::MemoryPlan;
use crate::settings::Settings;
use crate::source::ModelSource;
use crate::state::ServedModel;
use crate::text::Tokenizer;

/// Texts that are encoded in one step at most.
const MAX_TEXTS: usize = 256;
/// Tokens of one step, at least: an encoder has no streams that long steps would make stutter.
const MIN_BATCHED_TOKENS: usize = 4096;

/// An encoder in memory, with the scheduler of its texts.
#[derive(Debug)]
pub struct LoadedEncoder {
    pub model: EmbeddingModel,
    pub scheduler: Scheduler,
    pub runner: EncoderRunner,
    pub plan: MemoryPlan,
    pub description: Description,
}

/// Loads the encoder at `source`.
pub fn load_encoder(
    settings: &Settings,
    source: &ModelSource,
    names: Vec<String>,
) -> Result<LoadedEncoder, StartError> {
    let tokenizer = Tokenizer::of_encoder(&source.path)?;
    let encoder = Encoder::load(&source.path, settings.n_threads)?;
    let config = encoder.config().clone();
    let block_size = settings.block_size;
    // There is no KV memory. Blocks only count the texts that may be worked on.
    let plan = MemoryPlan {
        n_blocks: MAX_TEXTS * config.max_tokens.div_ceil(block_size),
        block_size,
        bytes_per_block: 0,
        max_model_len: config.max_tokens,
    };
    let scheduler = Scheduler::new(SchedulerConfig {
        block_size,
        n_blocks: plan.n_blocks,
        max_batched_tokens: settings.max_batched_tokens.max(MIN_BATCHED_TOKENS),
        max_sequences: MAX_TEXTS,
        max_model_len: plan.max_model_len,
        window: None,
        prefix_cache: false,
        fairness: settings.fairness,
        head_start: settings.head_start,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    })?;
    Ok(LoadedEncoder {
        model: EmbeddingModel {
            names,
            tokenizer,
            vocab_size: config.vocab_size(),
            pooling: Pooling::Encoded,
            normalize: config.normalize,
            width: u32::try_from(config.width()).unwrap_or(u32::MAX),
            is_matryoshka: config.is_matryoshka,
            max_tokens: config.max_tokens,
            cuts: true,
            kv_root: 0,
            created: unix_seconds(),
        },
        description: Description {
            architecture: config.architecture.clone(),
            path: source.path.display().to_string(),
            n_weight_bytes: encoder.n_bytes() as u64,
            n_widened_bytes: 0,
            device: "CPU".to_owned(),
        },
        runner: EncoderRunner::new(encoder),
        scheduler,
        plan,
    })
}

/// An encoder as the model that is served.
pub(super) fn load_as_model(
    settings: &Settings,
    source: &ModelSource,
) -> Result<Loaded, StartError> {
    for (flag, is_given) in [
        ("--embeddings", settings.embeddings.is_some()),
        ("--embedding-model", settings.embedding_model.is_some()),
        ("--quantize", settings.precision.quantizes()),
        ("--kv-type", settings.kv_type_asked),
        (
            "--device cuda",
            matches!(settings.device, DeviceChoice::Cuda(_)),
        ),
        ("--tensor-parallel-size", settings.tensor_parallel_size > 1),
    ] {
        if is_given {
            return Err(StartError::EncoderFlag { flag });
        }
    }
    let LoadedEncoder {
        model,
        scheduler,
        runner,
        plan,
        description,
    } = load_encoder(settings, source, names(settings, source))?;
    let served = ServedModel {
        names: model.names.clone(),
        tokenizer: model.tokenizer.clone(),
        generates: false,
        template: None,
        eos_tokens: [].into(),
        vocab_size: model.vocab_size,
        max_model_len: u32::try_from(plan.max_model_len).unwrap_or(u32::MAX),
        kv_root: model.kv_root,
        fingerprint: fingerprint(&[0; 32]),
        created: model.created,
    };
    Ok(Loaded {
        served,
        scheduler,
        runner: Runner::Encoder(Box::new(runner)),
        embedding: Some(model),
        beside: None,
        footprint: Footprint {
            matrices: Vec::new(),
            rest_bytes: description.n_weight_bytes,
        },
        shared: None,
        device: None,
        plan,
        description,
    })
}
