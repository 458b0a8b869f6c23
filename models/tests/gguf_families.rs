//! One model in both containers: a GGUF file has other names, queries and keys in another order,
//! norms with their one added, and rope scaling worked out as divisors, and must give the same
//! answers.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use common::{GgufWriter, Scratch, fixture, runner, scored_row};
use kernels::NormKind;
use models::{Checkpoint, ModelConfig, Rope, RopeConfig, RopeScaling};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scheduler::{Batch, Executor, TokenLogprobs};

/// How a family is converted.
struct Family {
    architecture: &'static str,
    /// Rotated pairs are laid side by side.
    permuted: bool,
    /// Stored norms lack one.
    plus_one: bool,
    /// Matrices are stored transposed.
    transposed: bool,
    /// Heads' queries, keys and values lie together and are dealt out.
    grouped: bool,
    /// Replacements in names, before those that all families share.
    names: &'static [(&'static str, &'static str)],
    more: fn(&mut GgufWriter, &ModelConfig),
}

const PLAIN: Family = Family {
    architecture: "llama",
    permuted: false,
    plus_one: false,
    transposed: false,
    grouped: false,
    names: &[],
    more: |_, _| (),
};

/// Other names only.
const fn plain(architecture: &'static str) -> Family {
    Family {
        architecture,
        ..PLAIN
    }
}

const LLAMA: Family = Family {
    permuted: true,
    ..PLAIN
};

/// Norms before and after each block.
const SANDWICH: &[(&str, &str)] = &[
    ("post_attention_layernorm.", "post_attention_norm."),
    ("pre_feedforward_layernorm.", "ffn_norm."),
    ("post_feedforward_layernorm.", "post_ffw_norm."),
];

/// GGUF's name of a tensor.
fn rename(name: &str, family: &Family) -> String {
    const SHARED: &[(&str, &str)] = &[
        ("gpt_neox.", ""),
        ("transformer.", ""),
        ("model.", ""),
        ("embed_tokens.", "token_embd."),
        ("embed_in.", "token_embd."),
        ("word_embeddings_layernorm.", "token_embd_norm."),
        ("word_embeddings.", "token_embd."),
        ("wte.", "token_embd."),
        ("wpe.", "position_embd."),
        ("lm_head.", "output."),
        ("embed_out.", "output."),
        ("ln_f.", "output_norm."),
        ("final_layernorm.", "output_norm."),
        ("final_layer_norm.", "output_norm."),
        ("layers.", "blk."),
        ("input_layernorm.", "attn_norm."),
        ("ln_1.", "attn_norm."),
        ("post_attention_layernorm.", "ffn_norm."),
        ("ln_2.", "ffn_norm."),
        ("self_attn.q_proj.", "attn_q."),
        ("self_attn.k_proj.", "attn_k."),
        ("self_attn.v_proj.", "attn_v."),
        ("self_attn.q_norm.", "attn_q_norm."),
        ("self_attn.k_norm.", "attn_k_norm."),
        ("self_attn.qkv_proj.", "attn_qkv."),
        ("attn.c_attn.", "attn_qkv."),
        ("query_key_value.", "attn_qkv."),
        ("self_attention.", ""),
        ("attention.", ""),
        ("self_attn.o_proj.", "attn_output."),
        ("self_attn.dense.", "attn_output."),
        ("attn.c_proj.", "attn_output."),
        ("mlp.gate_up_proj.", "ffn_up."),
        ("mlp.gate_proj.", "ffn_gate."),
        ("mlp.up_proj.", "ffn_up."),
        ("mlp.down_proj.", "ffn_down."),
        ("mlp.c_fc.", "ffn_up."),
        ("mlp.c_proj.", "ffn_down."),
        ("mlp.fc1.", "ffn_up."),
        ("mlp.fc2.", "ffn_down."),
        ("mlp.dense_h_to_4h.", "ffn_up."),
        ("mlp.dense_4h_to_h.", "ffn_down."),
        ("dense.", "attn_output."),
    ];
    let name = match name.strip_prefix("h.") {
        Some(rest) => format!("blk.{rest}"),
        None => name.replace(".h.", ".blk."),
    };
    let name = name.replace("transformer.blk.", "blk.");
    let replace = |name: String, (from, to): &(&str, &str)| name.replace(from, to);
    let name = family.names.iter().chain(SHARED).fold(name, replace);
    match name.strip_prefix("norm.") {
        Some(rest) => format!("output_norm.{rest}"),
        None => name,
    }
}

/// The rows of a matrix or the values of a bias in another order.
fn reorder(data: &[u8], n_rows: usize, from: impl Fn(usize) -> usize) -> Vec<u8> {
    let row_bytes = data.len() / n_rows;
    let rows = (0..n_rows).flat_map(|row| &data[from(row) * row_bytes..][..row_bytes]);
    rows.copied().collect()
}

/// Puts the two values of each rotated pair side by side: row `(half, i)` of a head becomes row
/// `(i, half)`.
fn permuted(head_dim: usize, row: usize) -> usize {
    let (head, place) = (row / head_dim, row % head_dim);
    head * head_dim + place % 2 * (head_dim / 2) + place / 2
}

/// Where row `row` of all queries, all keys, all values is when they lie head by head.
fn grouped(config: &ModelConfig, row: usize) -> usize {
    let (dim, n_kv) = (config.head_dim, config.n_kv_heads);
    let shared = config.n_heads / n_kv;
    let (head, i) = (row / dim, row % dim);
    let (group, place) = match head.checked_sub(config.n_heads) {
        None => (head / shared, head % shared),
        Some(kv) => (kv % n_kv, shared + kv / n_kv),
    };
    (group * (shared + 2) + place) * dim + i
}

fn transpose(tensor: &TensorView<'_>) -> Vec<u8> {
    let [n_in, n_out] = tensor.shape() else {
        return tensor.data().to_vec();
    };
    let width = tensor.data().len() / n_in / n_out;
    let mut data = Vec::with_capacity(tensor.data().len());
    for column in 0..*n_out {
        for row in 0..*n_in {
            let at = (row * n_out + column) * width;
            data.extend(&tensor.data()[at..at + width]);
        }
    }
    data
}

/// A stored norm plus one, in f32.
fn plus_one(tensor: &TensorView<'_>) -> Vec<u8> {
    let (values, _) = tensor.data().as_chunks::<2>();
    let wide = |bits: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16);
    values
        .iter()
        .flat_map(|bits| (1.0 + wide(bits)).to_le_bytes())
        .collect()
}

fn convert(name: &str, family: &Family) -> Vec<u8> {
    let path = fixture(name);
    let config = Checkpoint::open(&path).unwrap().config().clone();
    let mut gguf = GgufWriter::default();
    write_config(&mut gguf, &config, family);
    let files = [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    for file in files
        .map(|file| path.join(file))
        .iter()
        .filter(|file| file.is_file())
    {
        let bytes = std::fs::read(file).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            if !name.ends_with(".attn.bias") {
                write_tensor(&mut gguf, &name, &tensor, &config, family);
            }
        }
    }
    gguf.bytes()
}

fn write_tensor(
    gguf: &mut GgufWriter,
    name: &str,
    tensor: &TensorView<'_>,
    config: &ModelConfig,
    family: &Family,
) {
    let mut ty = match tensor.dtype() {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::BF16 => 30,
        other => panic!("{other:?}"),
    };
    let mut shape: Vec<u64> = tensor.shape().iter().rev().map(|n| *n as u64).collect();
    let new_name = rename(name, family);
    let is_rotated = new_name.contains("attn_q.") || new_name.contains("attn_k.");
    let n_rows = tensor.shape()[0];
    let data = if family.permuted && is_rotated {
        reorder(tensor.data(), n_rows, |row| permuted(config.head_dim, row))
    } else if family.grouped && new_name.contains("attn_qkv.") {
        reorder(tensor.data(), n_rows, |row| grouped(config, row))
    } else if family.plus_one && name.contains("norm.") {
        ty = 0;
        plus_one(tensor)
    } else if family.transposed && new_name.starts_with("blk.") {
        shape.reverse();
        transpose(tensor)
    } else {
        tensor.data().to_vec()
    };
    gguf.tensor(&new_name, &shape, ty, data);
}

fn write_config(gguf: &mut GgufWriter, config: &ModelConfig, family: &Family) {
    let n = |x: usize| x as u32;
    let key = |name: &str| format!("{}.{name}", family.architecture);
    let eps = match config.norm.kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    gguf.string("general.architecture", family.architecture)
        .u32(&key("block_count"), n(config.n_layers))
        .u32(&key("context_length"), n(config.max_positions))
        .u32(&key("embedding_length"), n(config.hidden_size))
        .u32(&key("feed_forward_length"), n(config.intermediate_size))
        .u32(&key("attention.head_count"), n(config.n_heads))
        .u32(&key("attention.head_count_kv"), n(config.n_kv_heads))
        .u32(&key("attention.key_length"), n(config.head_dim))
        .f32(&key(eps), config.norm.eps);
    if let Some(window) = config.layers.iter().find_map(|layer| layer.window) {
        gguf.u32(&key("attention.sliding_window"), n(window));
    }
    (family.more)(gguf, config);
    let Some(rope) = config.ropes.first() else {
        return;
    };
    gguf.u32(&key("rope.dimension_count"), n(rope.dim))
        .f32(&key("rope.freq_base"), rope.theta as f32);
    match &rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            gguf.string(&key("rope.scaling.type"), "linear")
                .f32(&key("rope.scaling.factor"), *factor as f32);
        }
        RopeScaling::Yarn {
            factor,
            original_positions,
            ..
        } => {
            gguf.string(&key("rope.scaling.type"), "yarn")
                .f32(&key("rope.scaling.factor"), *factor as f32)
                .u32(
                    &key("rope.scaling.original_context_length"),
                    n(*original_positions),
                );
        }
        _ => {
            let plain = RopeConfig {
                scaling: RopeScaling::None,
                ..rope.clone()
            };
            let plain = Rope::new(&plain, 256);
            let scaled = Rope::new(rope, 256);
            let divisors = plain.inv_freq().iter().zip(scaled.inv_freq());
            let bytes = divisors.flat_map(|(p, s)| (p / s).to_le_bytes()).collect();
            gguf.tensor("rope_freqs.weight", &[rope.dim as u64 / 2], 0, bytes);
        }
    }
}

fn score(path: &std::path::Path) -> Vec<TokenLogprobs> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 97 % 512).collect();
    let rows = vec![scored_row(1, &tokens, 0)];
    let mut results = runner(path).execute(&Batch { rows }).unwrap();
    results.remove(0).scored
}

fn check(name: &str, family: &Family) {
    check_within(name, family, 1e-4);
}

fn check_within(name: &str, family: &Family, bound: f32) {
    let dir = Scratch::new();
    let converted = dir.write("model.gguf", convert(name, family));
    let (expected, found) = (score(&fixture(name)), score(&converted));
    assert_eq!(expected.len(), found.len());
    for (expected, found) in expected.iter().zip(&found) {
        let difference = (expected.chosen.logprob - found.chosen.logprob).abs();
        assert!(difference < bound, "{name}: {expected:?}, {found:?}");
    }
}

#[test]
fn the_llama_family() {
    for name in [
        "llama-mha",
        "llama31-gqa",
        "llama32-tied",
        "llama-linear",
        "llama-yarn",
        "llama-bias",
        "mistral-sw",
    ] {
        check(name, &LLAMA);
    }
}

#[test]
fn relatives_that_are_permuted_as_llama_is() {
    check(
        "smollm3",
        &Family {
            architecture: "smollm3",
            ..LLAMA
        },
    );
    let more = |gguf: &mut GgufWriter, config: &ModelConfig| {
        gguf.f32("granite.attention.scale", config.attention.scale)
            .f32("granite.embedding_scale", config.embedding.scale)
            .f32("granite.residual_scale", config.block.residual_scale)
            .f32("granite.logit_scale", 1.0 / config.logits.scale);
    };
    check(
        "granite",
        &Family {
            architecture: "granite",
            more,
            ..LLAMA
        },
    );
    let more = |gguf: &mut GgufWriter, config: &ModelConfig| {
        gguf.f32("olmo.attention.clamp_kqv", config.attention.clip.unwrap());
    };
    check(
        "olmo",
        &Family {
            architecture: "olmo",
            more,
            ..LLAMA
        },
    );
}

#[test]
fn relatives_that_are_not_permuted() {
    check("qwen2", &plain("qwen2"));
    check("qwen2-tied", &plain("qwen2"));
    check("qwen3", &plain("qwen3"));
    check("phi3", &plain("phi3"));
    check("stablelm", &plain("stablelm"));
    check("starcoder2", &plain("starcoder2"));
    check("phi", &plain("phi2"));
    check(
        "olmo2",
        &Family {
            architecture: "olmo2",
            names: SANDWICH,
            ..PLAIN
        },
    );
    let more = |gguf: &mut GgufWriter, config: &ModelConfig| {
        gguf.f32("command-r.logit_scale", config.logits.scale);
    };
    check(
        "cohere",
        &Family {
            architecture: "command-r",
            more,
            ..PLAIN
        },
    );
    let names = &[
        ("post_self_attn_layernorm.", "post_attention_norm."),
        ("post_mlp_layernorm.", "post_ffw_norm."),
    ];
    check(
        "glm4",
        &Family {
            architecture: "glm4",
            names,
            ..PLAIN
        },
    );
}

#[test]
fn gemmas() {
    let gemma = Family {
        architecture: "gemma",
        plus_one: true,
        ..PLAIN
    };
    check("gemma", &gemma);
    let more = |gguf: &mut GgufWriter, config: &ModelConfig| {
        gguf.f32("gemma2.attention.scale", config.attention.scale)
            .f32(
                "gemma2.attn_logit_softcapping",
                config.attention.softcap.unwrap(),
            )
            .f32(
                "gemma2.final_logit_softcapping",
                config.logits.softcap.unwrap(),
            );
    };
    let gemma2 = Family {
        architecture: "gemma2",
        names: SANDWICH,
        more,
        ..gemma
    };
    check("gemma2", &gemma2);
    let more = |gguf: &mut GgufWriter, config: &ModelConfig| {
        gguf.f32("gemma3.attention.scale", config.attention.scale)
            .u32("gemma3.attention.sliding_window_pattern", 3)
            .f32("gemma3.rope.freq_base_swa", config.ropes[1].theta as f32);
    };
    check(
        "gemma3",
        &Family {
            architecture: "gemma3",
            more,
            ..gemma2
        },
    );
}

#[test]
fn older_families() {
    let grouped = Family {
        grouped: true,
        ..PLAIN
    };
    check("gpt-bigcode", &plain("starcoder"));
    let gpt2 = Family {
        architecture: "gpt2",
        transposed: true,
        ..PLAIN
    };
    check("gpt2", &gpt2);
    check("gpt2-hub", &gpt2);
    check(
        "bloom",
        &Family {
            architecture: "bloom",
            ..grouped
        },
    );
    check(
        "gpt-neox",
        &Family {
            architecture: "gptneox",
            ..grouped
        },
    );
    check(
        "falcon-mqa",
        &Family {
            architecture: "falcon",
            ..grouped
        },
    );
    let names = &[("ln_attn.", "attn_norm_2."), ("ln_mlp.", "attn_norm.")];
    check(
        "falcon-new",
        &Family {
            architecture: "falcon",
            names,
            ..grouped
        },
    );
    let more = |gguf: &mut GgufWriter, _: &ModelConfig| {
        gguf.raw("gptneox.use_parallel_residual", 7, &[0]);
    };
    // This checkpoint approximates its activation, which a GGUF file cannot say.
    check_within(
        "gpt-neox-seq",
        &Family {
            architecture: "gptneox",
            more,
            ..grouped
        },
        2e-3,
    );
}
