//! Checkpoints whose linear layers are stored quantized. A writer in this test rounds a micro
//! checkpoint and packs it as the formats' definitions say; the same numbers are written plainly
//! as well, and both must give the same answers.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

#[path = "../common/mod.rs"]
mod common;
mod writers;

use std::path::{Path, PathBuf};

use common::{Scratch, fixture, refusal, runner, scored_row};
use kernels::{CpuOptions, Device, Numerics};
use models::{Checkpoint, Model};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scheduler::{Batch, Executor};
use serde_json::{Value, json};
use writers::{
    Layer, Tensors, Write, awq, floats, gptq, gptq_in, gptq_in_order, gptq_in_order_in, int8,
    packed,
};

/// Both are exact in f32; they are summed in the same order, but for blocks and single values.
const BOUND: f32 = 2e-4;

/// A method: what `config.json` says, how layers are rounded and written, and whether blocks
/// hold them exactly.
struct Method {
    config: Value,
    group: usize,
    bits: u32,
    symmetric: bool,
    write: Write,
    is_exact: bool,
}

fn is_linear(name: &str) -> bool {
    name.contains("_proj.weight")
}

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |tensor: &TensorView<'_>| {
        (
            tensor.dtype(),
            tensor.shape().to_vec(),
            tensor.data().to_vec(),
        )
    };
    let tensors = tensors.tensors().into_iter();
    tensors
        .map(|(name, tensor)| (name, owned(&tensor)))
        .collect()
}

fn wide(bytes: &[u8]) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs
        .iter()
        .map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32())
        .collect()
}

fn write(dir: &Scratch, base: &str, tensors: &Tensors, config: Option<Value>) -> PathBuf {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    dir.write("model.safetensors", file);
    let text = std::fs::read_to_string(fixture(base).join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    if let Some(config) = config {
        json["quantization_config"] = config;
    }
    dir.write("config.json", json.to_string());
    dir.path().to_path_buf()
}

fn assert_same_answers(a: &Path, b: &Path, what: &str) {
    let tokens: Vec<u32> = (0..40).map(|i| i * 97 % 512).collect();
    let score = |path: &Path| {
        let rows = vec![scored_row(1, &tokens, 0)];
        let mut results = runner(path).execute(&Batch { rows }).unwrap();
        results.remove(0).scored
    };
    let (expected, found) = (score(a), score(b));
    assert_eq!(expected.len(), 39);
    for (expected, found) in expected.iter().zip(&found) {
        let difference = (expected.chosen.logprob - found.chosen.logprob).abs();
        assert!(difference < BOUND, "{what}: {expected:?}, {found:?}");
    }
}

fn widened_bytes(path: &Path) -> usize {
    let device = Device::cpu(CpuOptions::default());
    let checkpoint = Checkpoint::open(path).unwrap();
    let model = Model::load(&checkpoint, &device, Numerics::Native, None).unwrap();
    model.widened_bytes()
}

fn check(what: &str, method: &Method) {
    let base = "llama31-gqa";
    let (mut plain, mut quantized) = (read(&fixture(base)), read(&fixture(base)));
    let names: Vec<String> = plain
        .keys()
        .filter(|name| is_linear(name))
        .cloned()
        .collect();
    assert_eq!(names.len(), 21);
    for name in names {
        let (_, shape, bytes) = quantized.remove(&name).unwrap();
        let group = method.group.min(shape[1]);
        let layer = Layer::round(
            &wide(&bytes),
            shape[1],
            group,
            method.bits,
            method.symmetric,
        );
        (method.write)(
            &mut quantized,
            name.strip_suffix(".weight").unwrap(),
            &layer,
        );
        let mut values = layer.values();
        if let Some((.., groups)) = quantized.get(&name.replace("weight", "g_idx")) {
            // The same codes, each with the scale and zero point of the group that is listed.
            let (groups, _) = groups.as_chunks::<4>();
            for (at, value) in values.iter_mut().enumerate() {
                let (out, i) = (at / layer.n_in, at % layer.n_in);
                let group = u32::from_le_bytes(groups[i]) as usize;
                let of = out * layer.n_groups() + group;
                let code = layer.stored(out, i) as i32 - layer.zeros[of];
                *value = code as f32 * layer.scales[of];
            }
        }
        plain.insert(name, (Dtype::F32, shape, floats(values)));
    }
    let (a, b) = (Scratch::new(), Scratch::new());
    let a_path = write(&a, base, &plain, None);
    let b_path = write(&b, base, &quantized, Some(method.config.clone()));
    assert_same_answers(&a_path, &b_path, what);
    assert_eq!(widened_bytes(&b_path) == 0, method.is_exact, "{what}");
}

#[test]
fn gptq_symmetric_and_not_and_in_an_order_of_its_own() {
    let config = |group: i64| json!({"quant_method": "gptq", "bits": 4, "group_size": group});
    for (what, group, symmetric, write, is_exact) in [
        ("gptq-sym", 32, true, gptq as Write, true),
        ("gptq-asym", 32, false, gptq, true),
        ("gptq-act", 32, false, gptq_in_order, false),
    ] {
        let method = Method {
            config: config(group),
            group: group as usize,
            bits: 4,
            symmetric,
            write,
            is_exact,
        };
        check(what, &method);
    }
    let whole = Method {
        config: config(-1),
        group: usize::MAX,
        bits: 4,
        symmetric: false,
        write: gptq,
        is_exact: true,
    };
    check("gptq-whole", &whole);
}

/// Other bits, groups and both forms of the format; blocks hold what has whole groups of 32 and
/// codes that reach no further than theirs.
#[test]
fn gptq_in_other_bits_groups_and_forms() {
    for (bits, group, symmetric, form, write, is_exact) in [
        (2, 32, false, "gptq", gptq_in::<2, 1> as Write, true),
        (2, 64, true, "gptq_v2", gptq_in::<2, 0>, true),
        (3, 32, false, "gptq", gptq_in::<3, 1>, true),
        (3, 64, true, "gptq_v2", gptq_in::<3, 0>, true),
        (4, 128, false, "gptq_v2", gptq_in::<4, 0>, true),
        (4, 16, true, "gptq", gptq_in::<4, 1>, false),
        (8, 32, true, "gptq", gptq_in::<8, 1>, true),
        (8, 64, false, "gptq_v2", gptq_in::<8, 0>, false),
        (3, 32, false, "gptq", gptq_in_order_in::<3, 1>, false),
        (8, 32, true, "gptq_v2", gptq_in_order_in::<8, 0>, false),
    ] {
        let what = format!("{bits} bits in groups of {group}, {form}, symmetric: {symmetric}");
        let method = Method {
            config: json!({"quant_method": "gptq", "bits": bits, "group_size": group,
                "checkpoint_format": form, "sym": symmetric, "desc_act": !is_exact}),
            group,
            bits,
            symmetric,
            write,
            is_exact,
        };
        check(&what, &method);
    }
}

#[test]
fn awq_in_the_order_of_its_kernels() {
    let method = Method {
        config: json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm",
            "zero_point": true}),
        group: 32,
        bits: 4,
        symmetric: false,
        write: awq,
        is_exact: true,
    };
    check("awq", &method);
}

fn compressed(format: &str, weights: &Value) -> Value {
    json!({
        "quant_method": "compressed-tensors", "format": format, "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    })
}

#[test]
fn compressed_tensors_of_whole_numbers() {
    let weights = |symmetric: bool| {
        json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32,
            "symmetric": symmetric})
    };
    for (what, symmetric) in [("packed-sym", true), ("packed-asym", false)] {
        let method = Method {
            config: compressed("pack-quantized", &weights(symmetric)),
            group: 32,
            bits: 4,
            symmetric,
            write: packed,
            is_exact: true,
        };
        check(what, &method);
    }
    let weights = json!({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true});
    let method = Method {
        config: compressed("int-quantized", &weights),
        group: usize::MAX,
        bits: 8,
        symmetric: true,
        write: int8,
        is_exact: true,
    };
    check("int8", &method);
}

/// The values of all 256 codes of E4M3, from the definition.
fn e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let size = match exponent {
        0 => fraction / 64.0,
        15 if code & 7 == 7 => f32::NAN,
        e => (1.0 + fraction) * (e as f32 - 7.0).exp2(),
    };
    if code & 128 == 0 { size } else { -size }
}

/// A scale for each block of `side` by `side`, or for each row.
fn check_fp8(what: &str, config: Value, end: &str, side: Option<usize>) {
    let base = "llama31-gqa";
    let (mut plain, mut quantized) = (read(&fixture(base)), read(&fixture(base)));
    let finite: Vec<(u8, f32)> = (0..=255)
        .map(|c| (c, e4m3(c)))
        .filter(|(_, x)| x.is_finite())
        .collect();
    for name in plain
        .keys()
        .filter(|name| is_linear(name))
        .cloned()
        .collect::<Vec<_>>()
    {
        let (_, shape, bytes) = plain[&name].clone();
        let (n_out, n_in) = (shape[0], shape[1]);
        let [rows, columns] = side.map_or([1, n_in], |side| [side, side]);
        let n_columns = n_in.div_ceil(columns);
        let n_scales = n_out.div_ceil(rows) * n_columns;
        let scales: Vec<f32> = (0..n_scales)
            .map(|i| 1e-3 * (1.0 + (i % 7) as f32))
            .collect();
        let mut codes = Vec::new();
        let mut values = Vec::new();
        for (at, x) in wide(&bytes).into_iter().enumerate() {
            let scale = scales[at / n_in / rows * n_columns + at % n_in / columns];
            let distance = |value: f32| (x / scale - value).abs();
            let nearest = finite
                .iter()
                .min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
            let (code, value) = nearest.unwrap();
            codes.push(*code);
            values.push(value * scale);
        }
        plain.insert(name.clone(), (Dtype::F32, shape.clone(), floats(values)));
        quantized.insert(name.clone(), (Dtype::F8_E4M3, shape, codes));
        let shape = vec![n_out.div_ceil(rows), n_columns];
        let scale_name = name.replace("weight", end);
        quantized.insert(scale_name, (Dtype::F32, shape, floats(scales)));
    }
    let (a, b) = (Scratch::new(), Scratch::new());
    let a_path = write(&a, base, &plain, None);
    let b_path = write(&b, base, &quantized, Some(config));
    assert_same_answers(&a_path, &b_path, what);
    assert!(widened_bytes(&b_path) > 0);
}

#[test]
fn floats_of_eight_bits() {
    let config = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 32]});
    check_fp8("fp8-blocks", config, "weight_scale_inv", Some(32));
    let weights = json!({"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true});
    check_fp8(
        "fp8-rows",
        compressed("float-quantized", &weights),
        "weight_scale",
        None,
    );
}

#[test]
fn experts_in_mxfp4() {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let base = "gpt-oss";
    let (mut plain, mut quantized) = (read(&fixture(base)), read(&fixture(base)));
    let names: Vec<String> = plain
        .keys()
        .filter(|name| name.contains("experts.") && name.ends_with("_proj"))
        .cloned()
        .collect();
    assert_eq!(names.len(), 8);
    for name in names {
        let (_, shape, bytes) = quantized.remove(&name).unwrap();
        let [n_experts, n_in, n_out] = shape[..] else {
            panic!("{shape:?}")
        };
        let stored = wide(&bytes);
        let mut values = vec![0.0; stored.len()];
        let (mut blocks, mut scales) = (Vec::new(), Vec::new());
        for row in 0..n_experts * n_out {
            let at = |i: usize| (row / n_out * n_in + i) * n_out + row % n_out;
            for first in (0..n_in).step_by(32) {
                let largest = (first..first + 32)
                    .map(|i| stored[at(i)].abs())
                    .fold(0.0, f32::max);
                let exponent = (largest / 6.0).log2().ceil() as i32;
                scales.push((exponent + 127) as u8);
                let scale = (exponent as f32).exp2();
                let codes: Vec<u8> = (first..first + 32)
                    .map(|i| {
                        let x = stored[at(i)] / scale;
                        let distance = |code: &u8| (VALUES[usize::from(*code)] - x.abs()).abs();
                        let code = (0..8).min_by(|a, b| distance(a).total_cmp(&distance(b)));
                        let code = code.unwrap();
                        let value = VALUES[usize::from(code)] * scale;
                        values[at(i)] = if x < 0.0 { -value } else { value };
                        code | if x < 0.0 { 8 } else { 0 }
                    })
                    .collect();
                blocks.extend(codes.chunks(2).map(|pair| pair[0] | pair[1] << 4));
            }
        }
        plain.insert(name.clone(), (Dtype::F32, shape, floats(values)));
        let shape = vec![n_experts, n_out, n_in / 32];
        let with_bytes = [shape.clone(), vec![16]].concat();
        quantized.insert(format!("{name}_blocks"), (Dtype::U8, with_bytes, blocks));
        quantized.insert(format!("{name}_scales"), (Dtype::U8, shape, scales));
    }
    let (a, b) = (Scratch::new(), Scratch::new());
    let a_path = write(&a, base, &plain, None);
    let b_path = write(&b, base, &quantized, Some(json!({"quant_method": "mxfp4"})));
    assert_same_answers(&a_path, &b_path, "mxfp4");
    assert_eq!(widened_bytes(&b_path), 0);
}

#[test]
fn unknown_methods_are_refused_with_the_list_of_known_ones() {
    let refused = |config: Value| {
        let dir = Scratch::new();
        refusal(&write(
            &dir,
            "llama31-gqa",
            &read(&fixture("llama31-gqa")),
            Some(config),
        ))
    };
    let error = refused(json!({"quant_method": "bitsandbytes"}));
    assert!(
        error.contains("\"bitsandbytes\"")
            && error.contains("gptq, awq, compressed-tensors, fp8, mxfp4"),
        "{error}"
    );
    let error = refused(json!({"quant_method": "gptq", "bits": 5, "group_size": 32}));
    assert!(
        error.contains("bits") && error.contains("[2, 3, 4, 8]"),
        "{error}"
    );
    let error = refused(json!({"quant_method": "awq", "bits": 4, "version": "gemv"}));
    assert!(error.contains("gemv") && error.contains("gemm"), "{error}");
    let weights = json!({"num_bits": 4, "type": "float", "strategy": "tensor_group"});
    let error = refused(compressed("nvfp4-pack-quantized", &weights));
    assert!(error.contains("nvfp4-pack-quantized"), "{error}");
}
