//! Files of models and adapters.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::{CpuOptions, Device, Numerics, WeightType};
use models::{Adapter, Checkpoint, GgufMetadata, Model, convert};
use serde_json::Value;
use tempfile::TempDir;
use tests::fuzz::{Taken, mutate_bytes, mutate_json};
use tests::rng::Rng;
use understudy::text::{ChatTemplate, Tokenizer};

use crate::{fixtures, run};

const BASE: &str = "gemma3";

fn base() -> PathBuf {
    fixtures().join("models").join(BASE)
}

fn device() -> Device {
    Device::cpu(CpuOptions {
        n_threads: Some(1),
        isa: None,
    })
}

/// A directory whose files are made anew for each input. They are removed before they are written:
/// an earlier input may be mapped.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::remove_file(&path).ok();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Whatever a server does with a model before the first request.
fn load(path: &Path, device: &Device) -> Taken {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return Taken::Refused;
    };
    // Either may be missing or broken without the other.
    drop(Tokenizer::load(&checkpoint));
    drop(ChatTemplate::load(&checkpoint));
    match Model::load(&checkpoint, device, Numerics::F32, None) {
        Ok(_) => Taken::Accepted,
        Err(_) => Taken::Refused,
    }
}

/// Bytes of the header of a safetensors file, its length included.
fn safetensors_head(bytes: &[u8]) -> usize {
    let length = bytes[..8].try_into().unwrap();
    8 + usize::try_from(u64::from_le_bytes(length)).unwrap()
}

/// Changes the header as text that is still JSON, and its length with it.
fn mutate_header(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let n_head = safetensors_head(bytes);
    let mut header: Value = serde_json::from_slice(&bytes[8..n_head]).unwrap();
    let names = [
        "dtype",
        "shape",
        "data_offsets",
        "__metadata__",
        "model.norm.weight",
    ];
    mutate_json(rng, &mut header, &names);
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &bytes[n_head..]].concat()
}

#[test]
fn safetensors() {
    let weights = fs::read(base().join("model.safetensors")).unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(base().join("config.json")).unwrap()).unwrap();
    let (scratch, device) = (Scratch::new(), device());
    let names = [
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "num_hidden_layers",
        "rope_scaling",
        "intermediate_size",
        "sliding_window",
        "architectures",
        "quantization_config",
        "layer_types",
        "max_position_embeddings",
        "rms_norm_eps",
    ];
    run("safetensors", |rng| {
        let (own_config, bytes) = mutate_either(rng, &config, &weights, &names);
        scratch.put("config.json", own_config.to_string().as_bytes());
        scratch.put("model.safetensors", &bytes);
        load(scratch.0.path(), &device)
    });
}

/// A configuration and safetensors beside it, one of them wrong.
fn mutate_either(
    rng: &mut Rng,
    config: &Value,
    weights: &[u8],
    names: &[&str],
) -> (Value, Vec<u8>) {
    let (mut config, mut bytes) = (config.clone(), weights.to_vec());
    match rng.range(0, 2) {
        0 => mutate_json(rng, &mut config, names),
        1 => bytes = mutate_header(rng, weights),
        _ => mutate_bytes(rng, &mut bytes, safetensors_head(weights)),
    }
    (config, bytes)
}

#[test]
fn gguf() {
    let (scratch, device) = (Scratch::new(), device());
    let source = scratch.0.path().join("source.gguf");
    let checkpoint = Checkpoint::open(&base()).unwrap();
    let mut metadata = GgufMetadata::default();
    metadata.string("tokenizer.ggml.model", "gpt2");
    metadata.strings("tokenizer.ggml.tokens", ["<s>", "a", "b", "ab", "</s>"]);
    metadata.strings("tokenizer.ggml.merges", ["a b"]);
    metadata.i32s("tokenizer.ggml.token_type", [3, 1, 1, 1, 3]);
    metadata.string("tokenizer.chat_template", "{{ messages[0].content }}");
    convert(&checkpoint, &source, WeightType::F32, &metadata, 1).unwrap();
    let bytes = fs::read(&source).unwrap();
    let n_weights = fs::metadata(base().join("model.safetensors"))
        .unwrap()
        .len();
    let n_head = bytes.len().saturating_sub(n_weights as usize / 2).max(4096);
    run("gguf", |rng| {
        let mut own = bytes.clone();
        mutate_bytes(rng, &mut own, n_head.min(8192));
        load(&scratch.put("model.gguf", &own), &device)
    });
}

#[test]
fn adapters() {
    let from = fixtures().join("adapters/gemma3-dora");
    let weights = fs::read(from.join("adapter_model.safetensors")).unwrap();
    let config = fs::read(from.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let checkpoint = Checkpoint::open(&base()).unwrap();
    let model = Model::load(&checkpoint, &device(), Numerics::F32, None).unwrap();
    let target = model.adapter_target();
    let scratch = Scratch::new();
    let names = [
        "r",
        "lora_alpha",
        "target_modules",
        "use_rslora",
        "use_dora",
        "bias",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "peft_type",
    ];
    run("adapters", |rng| {
        let (own_config, bytes) = mutate_either(rng, &config, &weights, &names);
        scratch.put("adapter_config.json", own_config.to_string().as_bytes());
        scratch.put("adapter_model.safetensors", &bytes);
        match Adapter::load(scratch.0.path(), target) {
            Ok(_) => Taken::Accepted,
            Err(_) => Taken::Refused,
        }
    });
}
