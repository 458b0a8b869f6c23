//! Storage formats against golden values and against another implementation.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use common::{DENSE, QUANTIZED, Rng, assert_same, devices};
use kernels::{Buffer, Linear, Numerics, WeightType, dequantize, encode_block, quantize};

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

/// The same formats there.
const PAIRS: [(WeightType, GgmlDType); 10] = [
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

#[test]
fn dequantizing_agrees_with_candle() {
    let device = candle_core::Device::Cpu;
    for (ty, dtype) in PAIRS {
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

/// Rounding to nearest with a search for scales must not lose more than another implementation of
/// the same formats does, by more than a little.
#[test]
fn quantizing_loses_no_more_than_candle() {
    let mut rng = Rng(11);
    let values: Vec<f32> = (0..256 * 64)
        .map(|i| {
            // Groups of unlike sizes, a few of them off centre, and some zeros.
            let size = [1.0, 0.01, 3.0, 0.2][i / 16 % 4];
            if i / 256 == 7 {
                0.0
            } else {
                rng.value() * size + size * 0.3
            }
        })
        .collect();
    let loss = |back: &[f32]| -> f64 {
        let squares = values.iter().zip(back);
        squares.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let device = candle_core::Device::Cpu;
    let tensor = candle_core::Tensor::from_slice(&values, (64, 256), &device).unwrap();
    for (ty, theirs) in PAIRS {
        let mut bytes = vec![0; values.len() / ty.block_elements() * ty.block_bytes()];
        quantize(ty, &values, &mut bytes);
        let mut back = vec![0.0; values.len()];
        dequantize(ty, &bytes, &mut back);
        let theirs = candle_core::quantized::QTensor::quantize(&tensor, theirs).unwrap();
        let theirs = theirs.dequantize(&device).unwrap();
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        let (ours, theirs) = (loss(&back), loss(&theirs));
        assert!(ours <= 1.1 * theirs, "{ty:?}: {ours} against {theirs}");
    }
    // Candle has no such format; every step of its table is met by four bits.
    let ty = WeightType::IQ4_NL;
    let mut bytes = vec![0; values.len() / 32 * 18];
    quantize(ty, &values, &mut bytes);
    let mut back = vec![0.0; values.len()];
    dequantize(ty, &bytes, &mut back);
    let all: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!(loss(&back) < 0.01 * all);
}

/// What a format can say exactly comes back exactly.
#[test]
fn quantizing_dequantized_values_changes_nothing() {
    let mut rng = Rng(12);
    for ty in [WeightType::Q4_0, WeightType::Q5_0, WeightType::Q8_0] {
        let largest = [7, 15, 127][[18, 22, 34]
            .iter()
            .position(|n| *n == ty.block_bytes())
            .unwrap()];
        let mut codes = [0_i8; 32];
        for code in &mut codes {
            *code = (rng.value() * 3.0).clamp(-7.0, 7.0) as i8;
        }
        codes[5] = if ty == WeightType::Q8_0 {
            127
        } else {
            -largest as i8 - 1
        };
        let mut bytes = vec![0; ty.block_bytes()];
        encode_block(ty, half::f16::from_f32(0.25), &codes, &mut bytes);
        let mut values = vec![0.0; 32];
        dequantize(ty, &bytes, &mut values);
        let expected: Vec<f32> = codes.iter().map(|code| 0.25 * f32::from(*code)).collect();
        assert_eq!(values, expected);
        let mut again = vec![0; bytes.len()];
        quantize(ty, &values, &mut again);
        let mut back = vec![0.0; 32];
        dequantize(ty, &again, &mut back);
        assert_eq!(back, values, "{ty:?}");
    }
}
