//! Quantizing on load gives what loading a quantized file gives.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use common::{Scratch, fixture, runner_in, scored_row};
use kernels::{CpuOptions, Device, Numerics, WeightType};
use models::{Checkpoint, GgufMetadata, Model, convert};
use scheduler::{Batch, Executor, TokenLogprobs};

fn score(path: &std::path::Path, dense: Option<WeightType>) -> Vec<TokenLogprobs> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 97 % 512).collect();
    let rows = vec![scored_row(1, &tokens, 0)];
    let mut results = runner_in(path, dense).execute(&Batch { rows }).unwrap();
    results.remove(0).scored
}

fn largest_difference(a: &[TokenLogprobs], b: &[TokenLogprobs]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    let differences = pairs.map(|(a, b)| (a.chosen.logprob - b.chosen.logprob).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn it_is_the_same_as_quantizing_a_file() {
    for model in ["llama31-gqa", "qwen2-tied", "gemma3", "qwen2-moe"] {
        for ty in [WeightType::Q8_0, WeightType::Q4_K] {
            let path = fixture(model);
            let dir = Scratch::new();
            let file = dir.path().join("model.gguf");
            let checkpoint = Checkpoint::open(&path).unwrap();
            convert(&checkpoint, &file, ty, &GgufMetadata::default(), 2).unwrap();
            let (on_load, of_file) = (score(&path, Some(ty)), score(&file, None));
            let same = largest_difference(&on_load, &of_file);
            assert!(same < 2e-4, "{model} as {ty:?}: {same}");
            // And it is not the unquantized model.
            let moved = largest_difference(&on_load, &score(&path, None));
            assert!(moved > 1e-3, "{model} as {ty:?}: {moved}");
        }
    }
}

#[test]
fn what_is_quantized_already_is_not_quantized_again() {
    let dir = Scratch::new();
    let file = dir.path().join("model.gguf");
    let checkpoint = Checkpoint::open(&fixture("llama31-gqa")).unwrap();
    let metadata = GgufMetadata::default();
    convert(&checkpoint, &file, WeightType::Q8_0, &metadata, 2).unwrap();
    let device = Device::cpu(CpuOptions::default());
    let quantized = Checkpoint::open(&file).unwrap();
    let error = Model::load(
        &quantized,
        &device,
        Numerics::Native,
        Some(WeightType::Q4_0),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("Q8_0 already"), "{error}");
}
