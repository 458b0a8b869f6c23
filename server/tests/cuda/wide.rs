//! Micro models that are wide enough for formats with blocks of 256 weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine::fixtures;

const WIDTH: usize = 256;
const N_KV: usize = 128;
const VOCAB: usize = 512;

/// Numbers without structure, the same every time, as much as `size` from zero.
struct Noise(u64);

impl Noise {
    fn values(&mut self, n: usize, size: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0) * size
        };
        (0..n).map(|_| next()).collect()
    }
}

/// Tensors of one layer, and what is around it.
fn tensors(has_biases: bool) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut noise = Noise(17);
    let mut all = Vec::new();
    let mut add = |name: &str, shape: &[usize], size: f32| {
        let n = shape.iter().product();
        let values = if size == 0.0 {
            vec![1.0; n]
        } else {
            noise.values(n, size)
        };
        all.push((format!("{name}.weight"), shape.to_vec(), values));
        if has_biases
            && ["q_proj", "k_proj", "v_proj"]
                .iter()
                .any(|p| name.ends_with(p))
        {
            all.push((
                format!("{name}.bias"),
                vec![shape[0]],
                noise.values(shape[0], 0.5),
            ));
        }
    };
    add("model.embed_tokens", &[VOCAB, WIDTH], 1.0);
    add("model.norm", &[WIDTH], 0.0);
    add("lm_head", &[VOCAB, WIDTH], 0.3);
    let layer = |name: &str| format!("model.layers.0.{name}");
    add(&layer("input_layernorm"), &[WIDTH], 0.0);
    add(&layer("post_attention_layernorm"), &[WIDTH], 0.0);
    for (name, n_out) in [("q", WIDTH), ("k", N_KV), ("v", N_KV), ("o", WIDTH)] {
        add(
            &layer(&format!("self_attn.{name}_proj")),
            &[n_out, WIDTH],
            0.1,
        );
    }
    for name in ["gate", "up", "down"] {
        add(&layer(&format!("mlp.{name}_proj")), &[WIDTH, WIDTH], 0.1);
    }
    all
}

/// A checkpoint of the family of a micro model: one wide layer.
fn checkpoint(like: &str, to: &Path) {
    let from = fixtures().join("models").join(like);
    let tokenizer = fixtures().join("models/llama31-gqa");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizer.join(file), to.join(file)).unwrap();
    }
    let config = fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let sizes = [
        ("hidden_size", WIDTH),
        ("intermediate_size", WIDTH),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 64),
        ("vocab_size", VOCAB),
        ("max_window_layers", 1),
    ];
    for (key, size) in sizes {
        config[key] = json!(size);
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let all: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(like == "qwen2")
        .into_iter()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
}

/// A GGUF file of a wide model, its matrices in a format.
pub(crate) fn gguf(like: &str, format: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(like, dir.path());
    let file = dir.path().join(format!("{format}.gguf"));
    let done = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .arg("quantize")
        .arg(dir.path())
        .arg(&file)
        .args(["--type", format])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(told.to_lowercase().contains(format), "{told}");
    (dir, file)
}
