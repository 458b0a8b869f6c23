//! Architectures as words of kernels, the files their weights come in, and sampling.
//!
//! The way of a model: [`Checkpoint::open`] maps its files and reads its [`ModelConfig`],
//! [`Model::load`] packs its weights for a device, and [`ModelRunner`] adds KV memory and runs
//! the scheduler's batches on it.

mod activations;
mod adapter;
mod alibi;
mod attention;
mod checkpoint;
mod config;
mod convert;
mod cut;
mod decoder;
mod digest;
mod encoder;
mod eos;
mod evaluate;
mod experts;
mod families;
mod gguf;
mod latent;
mod lookup;
mod merge;
mod mlp;
mod norm;
mod piece;
mod pooling;
mod quantized;
mod rope;
mod runner;
mod safetensors;
mod sampler;
mod shared;
mod step;
mod weights;

pub use adapter::{
    Adapter, AdapterError, AdapterStack, AdapterSummary, AdapterTable, AdapterTarget,
    adapter_to_gguf, merge,
};
pub use checkpoint::{Checkpoint, LoadError};
pub use config::{
    AttentionConfig, BlockConfig, EmbeddingConfig, ExpertsConfig, LatentConfig, LayerConfig,
    LogitsConfig, MlpConfig, ModelConfig, NormConfig, NormWeight, Parallel, QkNorm, RopeConfig,
    RopeScaling, SharedExpert,
};
pub use convert::{Converted, WEIGHT_TYPES, convert, quantize_gguf};
pub use decoder::{LoadOptions, Model};
pub use encoder::{EncodeError, Encoder, EncoderConfig, EncoderPooling, EncoderRunner, is_encoder};
pub use evaluate::{Divergence, Reference};
pub use gguf::{Gguf, GgufMetadata, GgufValue};
pub use merge::{MergeError, MergeMethod, MergeOptions, MergeSource, Merged, merge_checkpoints};
pub use rope::Rope;
pub use runner::{ModelRunner, RunnerOptions};
pub use sampler::{Sampler, ask};
pub use shared::{SharedWeights, WeightKey};
