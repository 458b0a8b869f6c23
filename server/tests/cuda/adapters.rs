//! Adapters for the parity tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::machine::fixtures;

/// Writes an adapter for the attention of another model with layers of the same sizes.
pub(crate) fn attention_only(from: &str, to: &Path) {
    let from = fixtures().join("adapters").join(from);
    let bytes = fs::read(from.join("adapter_model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let of_attention = all.iter().filter(|(name, _)| name.contains("self_attn"));
    let kept: BTreeMap<String, TensorView<'_>> = of_attention
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect();
    assert!(!kept.is_empty());
    let file = to.join("adapter_model.safetensors");
    safetensors::serialize_to_file(kept, None, &file).unwrap();
    let config = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["target_modules"] = serde_json::json!(["q_proj", "k_proj", "v_proj", "o_proj"]);
    fs::write(to.join("adapter_config.json"), config.to_string()).unwrap();
}
