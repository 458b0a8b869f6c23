//! Architectures as words of kernels, the files their weights come in, and sampling.

mod checkpoint;
mod config;
mod gguf;
mod llama;
mod runner;

pub use checkpoint::{Checkpoint, LoadError};
pub use config::ModelConfig;
pub use gguf::{Gguf, GgufValue};
pub use llama::Model;
pub use runner::{ModelRunner, RunnerOptions};
