//! One model in both containers: a GGUF file has other names, permuted queries and keys, and
//! rope scaling worked out as divisors, and must give the same answers.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use common::{GgufWriter, Scratch, fixture, runner, scored_row};
use models::{Checkpoint, ModelConfig, Rope, RopeConfig, RopeScaling};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scheduler::{Batch, Executor, TokenLogprobs};

/// GGUF's name of a tensor.
fn rename(name: &str) -> String {
    let short = name.trim_start_matches("model.");
    let short = match short.strip_prefix("layers.") {
        None => short.to_string(),
        Some(rest) => format!("blk.{rest}"),
    };
    [
        ("embed_tokens.", "token_embd."),
        ("lm_head.", "output."),
        ("input_layernorm.", "attn_norm."),
        ("post_attention_layernorm.", "ffn_norm."),
        ("self_attn.q_proj.", "attn_q."),
        ("self_attn.k_proj.", "attn_k."),
        ("self_attn.v_proj.", "attn_v."),
        ("self_attn.o_proj.", "attn_output."),
        ("mlp.gate_proj.", "ffn_gate."),
        ("mlp.up_proj.", "ffn_up."),
        ("mlp.down_proj.", "ffn_down."),
    ]
    .iter()
    .fold(short, |name, (from, to)| name.replace(from, to))
}

/// Puts the two values of each rotated pair side by side: row `(half, i)` of a head becomes row
/// `(i, half)`.
fn permute(tensor: &TensorView<'_>, head_dim: usize) -> Vec<u8> {
    let n_rows = tensor.shape()[0];
    let row_bytes = tensor.data().len() / n_rows;
    let half = head_dim / 2;
    let mut permuted = Vec::with_capacity(tensor.data().len());
    for row in 0..n_rows {
        let (head, place) = (row / head_dim, row % head_dim);
        let from = head * head_dim + place % 2 * half + place / 2;
        permuted.extend(&tensor.data()[from * row_bytes..(from + 1) * row_bytes]);
    }
    permuted
}

fn convert(name: &str) -> Vec<u8> {
    let path = fixture(name);
    let config = Checkpoint::open(&path).unwrap().config().clone();
    let mut gguf = GgufWriter::default();
    write_config(&mut gguf, &config);
    let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let ty = match tensor.dtype() {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::BF16 => 30,
            other => panic!("{other:?}"),
        };
        let is_rotated = name.contains("q_proj") || name.contains("k_proj");
        let data = if is_rotated {
            permute(&tensor, config.head_dim)
        } else {
            tensor.data().to_vec()
        };
        let shape: Vec<u64> = tensor.shape().iter().rev().map(|n| *n as u64).collect();
        let name = match name.as_str() {
            "model.norm.weight" => "output_norm.weight".to_string(),
            name => rename(name),
        };
        gguf.tensor(&name, &shape, ty, data);
    }
    gguf.bytes()
}

fn write_config(gguf: &mut GgufWriter, config: &ModelConfig) {
    let n = |x: usize| x as u32;
    gguf.string("general.architecture", "llama")
        .u32("llama.block_count", n(config.n_layers))
        .u32("llama.context_length", n(config.max_positions))
        .u32("llama.embedding_length", n(config.hidden_size))
        .u32("llama.feed_forward_length", n(config.intermediate_size))
        .u32("llama.attention.head_count", n(config.n_heads))
        .u32("llama.attention.head_count_kv", n(config.n_kv_heads))
        .u32("llama.attention.key_length", n(config.head_dim))
        .u32("llama.rope.dimension_count", n(config.rope.dim))
        .f32("llama.attention.layer_norm_rms_epsilon", config.norm_eps)
        .f32("llama.rope.freq_base", config.rope.theta as f32);
    match &config.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            gguf.string("llama.rope.scaling.type", "linear")
                .f32("llama.rope.scaling.factor", *factor as f32);
        }
        RopeScaling::Yarn {
            factor,
            original_positions,
            ..
        } => {
            gguf.string("llama.rope.scaling.type", "yarn")
                .f32("llama.rope.scaling.factor", *factor as f32)
                .u32(
                    "llama.rope.scaling.original_context_length",
                    n(*original_positions),
                );
        }
        _ => {
            let plain = RopeConfig {
                scaling: RopeScaling::None,
                ..config.rope.clone()
            };
            let plain = Rope::new(&plain, 256);
            let scaled = Rope::new(&config.rope, 256);
            let divisors = plain.inv_freq().iter().zip(scaled.inv_freq());
            let bytes = divisors.flat_map(|(p, s)| (p / s).to_le_bytes()).collect();
            let shape = [config.rope.dim as u64 / 2];
            gguf.tensor("rope_freqs.weight", &shape, 0, bytes);
        }
    }
}

fn score(path: &std::path::Path) -> Vec<TokenLogprobs> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 97 % 512).collect();
    let rows = vec![scored_row(1, &tokens, 0)];
    let mut results = runner(path).execute(&Batch { rows }).unwrap();
    results.remove(0).scored
}

fn check(name: &str) {
    let dir = Scratch::new(&format!("convert-{name}"));
    let converted = dir.write("model.gguf", convert(name));
    let (expected, found) = (score(&fixture(name)), score(&converted));
    for (expected, found) in expected.iter().zip(&found) {
        let difference = (expected.chosen.logprob - found.chosen.logprob).abs();
        assert!(difference < 1e-4, "{name}: {expected:?}, {found:?}");
    }
}

#[test]
fn both_containers_give_the_same_answers() {
    for name in [
        "llama-mha",
        "llama31-gqa",
        "llama32-tied",
        "llama-linear",
        "llama-yarn",
        "llama-bias",
    ] {
        check(name);
    }
}
