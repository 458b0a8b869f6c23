//! Latent attention in the form that llama.cpp's converter writes today: keys and values of the
//! narrow vector in two tensors, keys turned round, and lengths of heads said twice.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use common::{Scratch, fixture, runner, scored_row};
use kernels::WeightType;
use models::{Checkpoint, GgufMetadata, convert};
use scheduler::{Batch, Executor, TokenLogprobs};

fn number(metadata: &HashMap<String, Value>, key: &str) -> usize {
    metadata[key].to_u32().unwrap() as usize
}

/// The file again, with `attn_kv_b` in its two parts.
fn part(from: &Path, to: &Path) {
    let mut file = BufReader::new(File::open(from).unwrap());
    let content = Content::read(&mut file).unwrap();
    let mut metadata = content.metadata.clone();
    let n_heads = number(&metadata, "deepseek2.attention.head_count");
    let rank = number(&metadata, "deepseek2.attention.kv_lora_rank");
    let rope = number(&metadata, "deepseek2.rope.dimension_count");
    let head = number(&metadata, "deepseek2.attention.key_length");
    let value = number(&metadata, "deepseek2.attention.value_length");
    for (key, n) in [
        ("head_count_kv", 1),
        ("key_length", rank + rope),
        ("value_length", rank),
        ("key_length_mla", head),
        ("value_length_mla", value),
    ] {
        let key = format!("deepseek2.attention.{key}");
        metadata.insert(key, Value::U32(n as u32));
    }
    let exact = |tensor: &Tensor| QTensor::quantize(tensor, GgmlDType::F32).unwrap();
    let mut tensors = Vec::new();
    let mut n_parted = 0;
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap();
        let Some(layer) = name.strip_suffix("attn_kv_b.weight") else {
            tensors.push((name.clone(), tensor));
            continue;
        };
        let whole = tensor.dequantize(&Device::Cpu).unwrap();
        let whole = whole.reshape((n_heads, head - rope + value, rank)).unwrap();
        let keys = whole.narrow(1, 0, head - rope).unwrap();
        let keys = keys.transpose(1, 2).unwrap().contiguous().unwrap();
        let values = whole.narrow(1, head - rope, value).unwrap();
        let values = values.contiguous().unwrap();
        tensors.push((format!("{layer}attn_k_b.weight"), exact(&keys)));
        tensors.push((format!("{layer}attn_v_b.weight"), exact(&values)));
        n_parted += 1;
    }
    assert_eq!(n_parted, number(&metadata, "deepseek2.block_count"));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    write(&mut File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

fn score(path: &Path) -> Vec<TokenLogprobs> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 97 % 512).collect();
    let rows = vec![scored_row(1, &tokens, 0)];
    let mut results = runner(path).execute(&Batch { rows }).unwrap();
    results.remove(0).scored
}

#[test]
fn parted_keys_and_values_are_those_of_the_whole() {
    let scratch = Scratch::new();
    let (whole, parted) = (
        scratch.path().join("whole.gguf"),
        scratch.path().join("parted.gguf"),
    );
    let checkpoint = Checkpoint::open(&fixture("deepseek-v3")).unwrap();
    let metadata = GgufMetadata::default();
    convert(&checkpoint, &whole, WeightType::F32, &metadata, 2).unwrap();
    part(&whole, &parted);
    let (expected, found) = (score(&whole), score(&parted));
    assert_eq!(expected.len(), 39);
    for (expected, found) in expected.iter().zip(&found) {
        let difference = (expected.chosen.logprob - found.chosen.logprob).abs();
        assert!(difference < 1e-5, "{expected:?}, {found:?}");
    }
}
