//! Storage formats against golden values and against another implementation.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use common::{DENSE, QUANTIZED, Rng, assert_same, devices};
use kernels::{Buffer, Linear, Numerics, WeightType, dequantize};

fn floats(base64: &serde_json::Value) -> Vec<f32> {
    let base64 = base64.as_str().expect("a string");
    let bytes = STANDARD.decode(base64).expect("base64");
    let (floats, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    floats.iter().map(|&x| f32::from_le_bytes(x)).collect()
}

#[test]
fn dequantizing_gives_the_golden_values() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/goldens/quant.json"
    );
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let types = [WeightType::F16, WeightType::BF16];
    for ty in types.into_iter().chain(QUANTIZED) {
        let golden = &golden["types"][format!("{ty:?}")];
        let blocks = STANDARD
            .decode(golden["blocks_base64"].as_str().unwrap())
            .unwrap();
        let expected = floats(&golden["dequantized_f32_le_base64"]);
        let mut out = vec![0.0; expected.len()];
        dequantize(ty, &blocks, &mut out);
        for (i, (out, expected)) in out.iter().zip(&expected).enumerate() {
            assert!(
                (out - expected).abs() <= 1e-6 * expected.abs(),
                "{ty:?}: value {i} is {out}, expected {expected}"
            );
        }
    }
}

#[test]
fn dequantizing_agrees_with_candle() {
    let pairs = [
        (WeightType::Q4_0, GgmlDType::Q4_0),
        (WeightType::Q4_1, GgmlDType::Q4_1),
        (WeightType::Q5_0, GgmlDType::Q5_0),
        (WeightType::Q5_1, GgmlDType::Q5_1),
        (WeightType::Q8_0, GgmlDType::Q8_0),
        (WeightType::Q2_K, GgmlDType::Q2K),
        (WeightType::Q3_K, GgmlDType::Q3K),
        (WeightType::Q4_K, GgmlDType::Q4K),
        (WeightType::Q5_K, GgmlDType::Q5K),
        (WeightType::Q6_K, GgmlDType::Q6K),
    ];
    let device = candle_core::Device::Cpu;
    for (ty, dtype) in pairs {
        let source = Rng(77).weights(ty, 40, 1024);
        let tensor = qtensor_from_ggml(dtype, &source.bytes, vec![40, 1024], &device).unwrap();
        let expected: Vec<f32> = tensor
            .dequantize(&device)
            .and_then(|tensor| tensor.flatten_all())
            .and_then(|tensor| tensor.to_vec1())
            .unwrap();
        let mut out = vec![0.0; expected.len()];
        dequantize(ty, &source.bytes, &mut out);
        for (i, (out, expected)) in out.iter().zip(&expected).enumerate() {
            assert!(
                (out - expected).abs() <= 1e-6 * expected.abs(),
                "{ty:?}: value {i} is {out}, expected {expected}"
            );
        }
    }
}

#[test]
fn embedding_gives_back_what_was_packed() {
    let (n_out, n_in) = (37, 512);
    let tokens = [36, 0, 16, 15, 5, 36];
    for ty in DENSE.into_iter().chain(QUANTIZED) {
        let source = Rng(8).weights(ty, n_out, n_in);
        let mut table = vec![0.0; n_out * n_in];
        dequantize(ty, &source.bytes, &mut table);
        let expected: Vec<f32> = tokens
            .iter()
            .flat_map(|&token| &table[token as usize * n_in..][..n_in])
            .copied()
            .collect();
        for device in devices() {
            for numerics in [Numerics::Native, Numerics::F32] {
                let packed = Linear::pack(&device, &source, numerics).unwrap();
                let mut out = Buffer::zeros(&device, expected.len());
                device.embed_into(&packed, &tokens, &mut out);
                let what = format!("{ty:?} {numerics:?}");
                assert_same(&out.read(0..out.len()), &expected, &what);
            }
        }
    }
}

#[test]
#[should_panic(expected = "a token is not in the table")]
fn a_token_outside_the_table_is_a_bug() {
    let device = devices().remove(0);
    let source = Rng(8).weights(WeightType::F32, 10, 8);
    let table = Linear::pack(&device, &source, Numerics::F32).unwrap();
    device.embed_into(&table, &[10], &mut Buffer::zeros(&device, 8));
}
