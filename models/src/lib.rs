//! Architectures as words of kernels, the files their weights come in, and sampling.
//!
//! The way of a model: [`Checkpoint::open`] maps its files and reads its [`ModelConfig`],
//! [`Model::load`] packs its weights for a device, and [`ModelRunner`] adds KV memory and runs
//! the scheduler's batches on it.

mod activations;
mod attention;
mod checkpoint;
mod config;
mod digest;
mod eos;
mod gguf;
mod llama;
mod mlp;
mod rope;
mod runner;
mod safetensors;
mod sampler;
mod step;
mod weights;

pub use checkpoint::{Checkpoint, LoadError};
pub use config::{ModelConfig, RopeConfig, RopeScaling};
pub use gguf::{Gguf, GgufValue};
pub use llama::Model;
pub use rope::Rope;
pub use runner::{ModelRunner, RunnerOptions};
pub use sampler::Sampler;
