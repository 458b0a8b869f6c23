//! config.json: both spellings, and what is refused.
#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use common::{Scratch, fixture, refusal};
use models::{Checkpoint, ModelConfig, Rope, RopeConfig, RopeScaling};
use serde_json::{Value, json};

/// A directory with a fixture's weights and a changed config.
struct Edited {
    dir: Scratch,
    config: Value,
}

impl Edited {
    fn new(model: &str) -> Self {
        let dir = Scratch::new();
        let from = fixture(model);
        let weights = std::fs::read(from.join("model.safetensors")).unwrap();
        dir.write("model.safetensors", weights);
        let text = std::fs::read_to_string(from.join("config.json")).unwrap();
        Self {
            dir,
            config: serde_json::from_str(&text).unwrap(),
        }
    }

    fn set(&mut self, field: &str, value: Value) -> &mut Self {
        self.config[field] = value;
        self
    }

    fn remove(&mut self, field: &str) -> &mut Self {
        self.config.as_object_mut().unwrap().remove(field).unwrap();
        self
    }

    fn config(&self) -> ModelConfig {
        self.dir.write("config.json", self.config.to_string());
        Checkpoint::open(self.dir.path()).unwrap().config().clone()
    }

    fn refusal(&self) -> String {
        self.dir.write("config.json", self.config.to_string());
        let error = refusal(self.dir.path());
        assert!(error.contains("config.json"), "{error}");
        error
    }
}

#[test]
fn both_spellings_mean_the_same() {
    let old = Edited::new("llama31-gqa");
    let mut new = Edited::new("llama31-gqa");
    let mut parameters = new.config["rope_scaling"].clone();
    parameters["rope_theta"] = new.config["rope_theta"].clone();
    new.remove("rope_scaling").remove("rope_theta");
    new.remove("torch_dtype").set("dtype", json!("bfloat16"));
    new.set("rope_parameters", parameters);
    let config = old.config();
    assert_eq!(config, new.config());
    assert_eq!(config.head_dim, 32);
    let expected = RopeConfig {
        theta: 500_000.0,
        dim: 32,
        scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 32,
        },
    };
    assert_eq!(config.ropes, [expected]);
}

#[test]
fn defaults_are_those_of_the_oldest_configs() {
    let config = Edited::new("llama-mha").config();
    assert_eq!(
        (config.n_heads, config.n_kv_heads, config.head_dim),
        (4, 4, 16)
    );
    assert_eq!(config.ropes[0].theta, 10_000.0);
    assert_eq!(config.ropes[0].scaling, RopeScaling::None);
    assert!(!config.logits.tied);
}

#[test]
fn each_needed_field_is_named_when_it_is_missing() {
    for field in [
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "vocab_size",
    ] {
        let mut edited = Edited::new("llama-mha");
        let error = edited.remove(field).refusal();
        assert!(
            error.contains(&format!("`{field}` is missing")),
            "{field}: {error}"
        );
        let error = edited.set(field, json!(["x"])).refusal();
        assert!(
            error.contains(&format!("`{field}`: expected")),
            "{field}: {error}"
        );
    }
}

#[test]
fn needed_fields_of_rope_scaling_are_named() {
    for field in ["factor", "low_freq_factor", "high_freq_factor"] {
        let mut edited = Edited::new("llama31-gqa");
        let scaling = edited.config["rope_scaling"].as_object_mut().unwrap();
        scaling.remove(field).unwrap();
        let error = edited.refusal();
        assert!(
            error.contains(&format!("`rope_scaling.{field}` is missing")),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = |field: &str, value: Value| {
        let mut edited = Edited::new("mistral-nemo");
        edited.set(field, value).refusal()
    };
    let error = refused("model_type", json!("mamba"));
    assert!(error.contains("unknown architecture \"mamba\""), "{error}");
    // All that the list of documented families has.
    let list = "supported: llama, mistral, mixtral, qwen2, qwen3, qwen2_moe, qwen3_moe, gemma, \
                gemma2, gemma3_text, smollm3, phi, phi3, olmo, olmo2, olmo3, granite, starcoder2, \
                stablelm, gpt_neox, gpt2, gpt_bigcode, opt, bloom, falcon, cohere, glm4, gpt_oss, \
                deepseek_v3";
    assert!(error.ends_with(list), "{error}");
    let error = refused("sliding_window", json!(0));
    assert!(error.contains("sliding_window"), "{error}");
    let error = refused(
        "layer_types",
        json!(["chunked_attention", "full_attention", "full_attention"]),
    );
    assert!(
        error.contains("layer_types") && error.contains("chunked_attention"),
        "{error}"
    );
    let error = refused("hidden_act", json!("mish"));
    assert!(
        error.contains("hidden_act") && error.contains("mish"),
        "{error}"
    );
    let error = refused("quantization_config", json!({"quant_method": "quip"}));
    assert!(error.contains("quip") && error.contains("gptq"), "{error}");
    let error = refused("rope_scaling", json!({"rope_type": "mrope", "factor": 2}));
    let list = "supported: default, linear, dynamic, yarn, longrope, llama3";
    assert!(
        error.contains("\"mrope\"") && error.ends_with(list),
        "{error}"
    );
    let error = refused("rope_scaling", json!({"type": "ntk-by-parts", "factor": 2}));
    assert!(
        error.contains("\"ntk-by-parts\"") && error.ends_with(list),
        "{error}"
    );
    let error = refused("rope_scaling", json!({"rope_type": "linear", "factor": 0}));
    assert!(error.contains("factor"), "{error}");
}

#[test]
fn a_window_as_long_as_the_context_is_none() {
    let mut edited = Edited::new("mistral-nemo");
    let config = edited.config();
    assert_eq!(edited.set("sliding_window", json!(256)).config(), config);
}

#[test]
fn absurd_sizes_are_errors() {
    for (field, value) in [
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1_000_000)),
        ("hidden_size", json!(65)),
        ("hidden_size", json!(-64)),
        ("vocab_size", json!(1_u64 << 40)),
        ("head_dim", json!(15)),
        ("rms_norm_eps", json!(-1.0)),
        ("max_position_embeddings", json!(1_u64 << 60)),
    ] {
        let mut edited = Edited::new("llama-mha");
        let error = edited.set(field, value.clone()).refusal();
        let near = ["head_dim", "num_attention_heads", field];
        assert!(
            near.iter().any(|name| error.contains(name)),
            "{field} = {value}: {error}"
        );
    }
}

#[test]
fn end_tokens_come_from_the_generation_config_first() {
    let mut edited = Edited::new("llama-mha");
    edited.set("eos_token_id", json!([3, 4]));
    edited.config();
    let eos =
        |edited: &Edited| Checkpoint::open(edited.dir.path()).map(|c| c.eos_tokens().to_vec());
    assert_eq!(eos(&edited).unwrap(), [3, 4]);
    edited
        .dir
        .write("generation_config.json", r#"{"eos_token_id": 9}"#);
    assert_eq!(eos(&edited).unwrap(), [9]);
    edited.dir.write("generation_config.json", "{}");
    assert_eq!(eos(&edited).unwrap(), [3, 4]);
    edited
        .dir
        .write("generation_config.json", r#"{"eos_token_id": "x"}"#);
    let error = eos(&edited).unwrap_err().to_string();
    assert!(
        error.contains("generation_config.json") && error.contains("eos_token_id"),
        "{error}"
    );
}

fn frequencies(scaling: RopeScaling, max_model_len: usize) -> Vec<f32> {
    let config = RopeConfig {
        theta: 10_000.0,
        dim: 16,
        scaling,
    };
    Rope::new(&config, max_model_len).inv_freq().to_vec()
}

#[test]
fn dynamic_scaling_is_fixed_by_the_longest_served_length() {
    let plain = frequencies(RopeScaling::None, 64);
    let dynamic = || RopeScaling::Dynamic {
        factor: 2.0,
        original_positions: 64,
    };
    assert_eq!(frequencies(dynamic(), 64), plain);
    assert_eq!(frequencies(dynamic(), 10), plain);
    let longer = frequencies(dynamic(), 128);
    // base * (2 * 2 - 1)^(16 / 14)
    let base = 10_000.0 * 3.0_f64.powf(16.0 / 14.0);
    for (i, freq) in longer.iter().enumerate() {
        let exact = base.powf(-(i as f64) / 8.0);
        assert!((f64::from(*freq) / exact - 1.0).abs() < 1e-6);
    }
}

#[test]
fn linear_scaling_and_divisors_divide() {
    let plain = frequencies(RopeScaling::None, 64);
    let quarter: Vec<f32> = plain.iter().map(|f| f / 4.0).collect();
    assert_eq!(
        frequencies(RopeScaling::Linear { factor: 4.0 }, 64),
        quarter
    );
    assert_eq!(
        frequencies(RopeScaling::Divisors(vec![4.0; 8]), 64),
        quarter
    );
}
