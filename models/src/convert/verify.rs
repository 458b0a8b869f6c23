//! Whether the file that was written says what the checkpoint said.
//!
//! GGUF has no place for some of what a configuration can ask for; a file without it would load
//! and give other answers. So the configuration is read back and compared, part by part.

use crate::config::{NormWeight, RopeScaling};
use crate::{ModelConfig, Rope};

/// Names the first part of `config` that `found`, read back, lacks.
pub(super) fn difference(config: &ModelConfig, found: &ModelConfig) -> Option<String> {
    let parts: [(&str, String, String); 11] = [
        ("sizes", sizes(config), sizes(found)),
        (
            "embedding",
            debug(&config.embedding),
            debug(&found.embedding),
        ),
        ("norms", norms(config), norms(found)),
        ("block", debug(&config.block), debug(&found.block)),
        ("attention", attention(config), attention(found)),
        ("biases", biases(config), biases(found)),
        ("feed-forward block", mlp(config), mlp(found)),
        ("experts", experts(config), experts(found)),
        ("layers", debug(&config.layers), debug(&found.layers)),
        ("logits", debug(&config.logits), debug(&found.logits)),
        ("rope", dynamic(config), dynamic(found)),
    ];
    for (what, expected, found) in parts {
        if expected != found {
            return Some(format!("{what}: {expected} would become {found}"));
        }
    }
    rope(config, found)
}

fn debug(part: &impl std::fmt::Debug) -> String {
    format!("{part:?}")
}

/// Numbers that go through f32 keep their first digits.
fn rounded(x: f32) -> String {
    format!("{x:.5e}")
}

fn sizes(c: &ModelConfig) -> String {
    format!(
        "{:?}",
        [
            c.n_layers,
            c.hidden_size,
            c.intermediate_size,
            c.n_heads,
            c.n_kv_heads,
            c.head_dim,
            c.vocab_size,
            c.max_positions,
        ]
    )
}

/// One is added to norms that lack it on the way.
fn norms(c: &ModelConfig) -> String {
    let is_stored = c.norm.weight != NormWeight::Ones;
    let eps = rounded(c.norm.eps);
    format!(
        "{:?}, epsilon {eps}, stored {is_stored}, bias {}",
        c.norm.kind, c.norm.bias
    )
}

/// Rows are put in order for the style.
fn attention(c: &ModelConfig) -> String {
    let a = &c.attention;
    let caps = [a.softcap, a.alibi, a.clip].map(|x| x.map(rounded));
    format!(
        "scale {}, {caps:?}, sinks {}, {:?}, {:?}",
        rounded(a.scale),
        a.sinks,
        a.qk_norm,
        a.latent
    )
}

fn biases(c: &ModelConfig) -> String {
    format!(
        "{:?}",
        [c.attention.qkv_bias, c.attention.output_bias, c.logits.bias]
    )
}

fn mlp(c: &ModelConfig) -> String {
    let has_dense = c.layers.iter().any(|layer| !layer.experts);
    let bias = has_dense && c.mlp.bias;
    format!("{:?}, gated {}, bias {bias}", c.mlp.activation, c.mlp.gated)
}

fn experts(c: &ModelConfig) -> String {
    debug(&c.experts)
}

fn dynamic(c: &ModelConfig) -> String {
    let is_dynamic = |s: &RopeScaling| matches!(s, RopeScaling::Dynamic { .. });
    format!(
        "dynamic scaling {}",
        c.ropes.iter().any(|rope| is_dynamic(&rope.scaling))
    )
}

/// Scalings may be spelled in other ways, as long as they rotate alike, short and long.
fn rope(config: &ModelConfig, found: &ModelConfig) -> Option<String> {
    if config.ropes.len() != found.ropes.len() {
        let (n, m) = (config.ropes.len(), found.ropes.len());
        return Some(format!("rope: {n} rotary embeddings would become {m}"));
    }
    let lengths = [1, config.max_positions];
    for (i, (expected, found)) in config.ropes.iter().zip(&found.ropes).enumerate() {
        for length in lengths {
            let (a, b) = (Rope::new(expected, length), Rope::new(found, length));
            let pairs = a.inv_freq().iter().zip(b.inv_freq());
            let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs();
            let factors = (a.attention_factor() - b.attention_factor()).abs();
            if a.inv_freq().len() != b.inv_freq().len()
                || !pairs.into_iter().all(is_near)
                || factors > 1e-5
            {
                return Some(format!("rope {i}: {expected:?} would become {found:?}"));
            }
        }
    }
    None
}
