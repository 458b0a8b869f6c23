//! Merging checkpoints: against values of numpy (`tests/fixtures/goldens/merge.py`), and what is
//! refused.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Scratch, fixture};
use kernels::{CpuOptions, Device, Numerics, WeightType};
use models::{
    Checkpoint, MergeError, MergeMethod, MergeOptions, MergeSource, Model, merge, merge_checkpoints,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

fn source(dir: &Path, weight: f64) -> MergeSource {
    MergeSource {
        name: dir.file_name().unwrap().to_string_lossy().into_owned(),
        dir: dir.to_path_buf(),
        weight,
    }
}

/// A mean of some directories.
fn mean_of(dirs: &[&Path]) -> MergeOptions {
    MergeOptions {
        method: MergeMethod::Linear,
        sources: dirs.iter().map(|dir| source(dir, 1.0)).collect(),
        base: None,
        dense: Some(WeightType::F32),
        max_shard_bytes: u64::MAX,
    }
}

/// Type, shape and bytes of all tensors of a directory.
fn tensors(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let files = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let weights = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let mut all = BTreeMap::new();
    for path in weights {
        let bytes = std::fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(all.insert(name, tensor).is_none());
        }
    }
    all
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    let (words, _) = bytes.as_chunks::<4>();
    words
        .iter()
        .map(|x| f64::from(f32::from_le_bytes(*x)))
        .collect()
}

fn method(case: &Value) -> MergeMethod {
    let number = |key: &str| case[key].as_f64().unwrap();
    let seed = || case["seed"].as_u64().unwrap();
    match case["method"].as_str().unwrap() {
        "linear" => MergeMethod::Linear,
        "slerp" => MergeMethod::Slerp,
        "task-arithmetic" => MergeMethod::TaskArithmetic {
            scale: number("scale"),
        },
        "ties" => MergeMethod::Ties {
            density: number("density"),
            scale: number("scale"),
        },
        "dare" => MergeMethod::Dare {
            density: number("density"),
            scale: number("scale"),
            seed: seed(),
        },
        "dare-ties" => MergeMethod::DareTies {
            density: number("density"),
            scale: number("scale"),
            seed: seed(),
        },
        other => panic!("{other}"),
    }
}

fn check_cases(which: &str, dirs: &[PathBuf], base: &Path, n_cases: usize) {
    let path = fixture("../goldens/merge.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden[which].as_array().unwrap();
    assert_eq!(cases.len(), n_cases);
    for case in cases {
        let method = method(case);
        let weights = case["weights"].as_array().unwrap();
        let weighted = dirs.iter().zip(weights);
        let scratch = Scratch::new();
        let out = scratch.path().join("merged");
        let options = MergeOptions {
            method,
            sources: weighted
                .map(|(dir, w)| source(dir, w.as_f64().unwrap()))
                .collect(),
            base: method.needs_base().then(|| source(base, 1.0)),
            ..mean_of(&[])
        };
        merge_checkpoints(&options, &out).unwrap();
        let merged = tensors(&out);
        let expected = case["tensors"].as_object().unwrap();
        assert_eq!(merged.len(), expected.len());
        for (name, expected) in expected {
            let (dtype, shape, bytes) = &merged[name];
            assert_eq!(*dtype, Dtype::F32);
            assert_eq!(json!(shape), expected["shape"]);
            compare(&floats(bytes), expected, &format!("{method:?} {name}"));
        }
    }
}

/// Both sum in f64 and round to f32 once; sums of sizes say how far rounding may go.
fn compare(values: &[f64], expected: &Value, what: &str) {
    let number = |key: &str| expected[key].as_f64().unwrap();
    let ramp = values.iter().enumerate().map(|(i, x)| x * (i % 97) as f64);
    let sizes: f64 = values.iter().map(|x| x.abs()).sum();
    for (key, found) in [
        ("sum", values.iter().sum()),
        ("sizes", sizes),
        ("squares", values.iter().map(|x| x * x).sum()),
        ("ramp", ramp.sum::<f64>() / 97.0),
    ] {
        let expected = number(key) / if key == "ramp" { 97.0 } else { 1.0 };
        let bound = 1e-7 * (sizes + expected.abs());
        assert!(
            (found - expected).abs() <= bound,
            "{what}: {key} is {found}, not {expected}"
        );
    }
    for (i, expected) in expected["values"].as_array().unwrap().iter().enumerate() {
        let (found, expected) = (
            values[(i * 7919 + 13) % values.len()],
            expected.as_f64().unwrap(),
        );
        let bound = 2e-7 * expected.abs() + 1e-9;
        assert!(
            (found - expected).abs() <= bound,
            "{what}: {found}, not {expected}"
        );
    }
}

#[test]
fn checkpoints_merge_as_numpy_merges_them() {
    let base = fixture("llama31-gqa");
    check_cases(
        "checkpoints",
        &[base.clone(), fixture("llama-yarn")],
        &base,
        3,
    );
}

#[test]
fn adapted_bases_merge_as_numpy_merges_them() {
    let base = fixture("llama31-gqa");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let device = Device::cpu(CpuOptions::default());
    let model = Model::load(&checkpoint, &device, Numerics::F32, None).unwrap();
    let scratch = Scratch::new();
    let dirs: Vec<PathBuf> = ["plain", "plain2"]
        .map(|kind| {
            let dir = scratch.path().join(kind);
            std::fs::create_dir(&dir).unwrap();
            std::fs::copy(base.join("config.json"), dir.join("config.json")).unwrap();
            let adapter = fixture("../adapters").join(format!("llama31-gqa-{kind}"));
            let adapters = [(adapter.as_path(), 1.0)];
            let ty = Some(WeightType::F32);
            merge(&checkpoint, model.adapter_target(), &adapters, ty, &dir).unwrap();
            dir
        })
        .to_vec();
    check_cases("adapters", &dirs, &base, 7);
}

/// Whatever the method, what is merged with itself, or with nothing, is what it was.
#[test]
fn nothing_changes_where_there_is_nothing_to_merge() {
    let (base, other) = (fixture("llama31-gqa"), fixture("llama-yarn"));
    let expected = tensors(&other);
    let (scale, density, seed) = (1.0, 1.0, 3);
    for (method, sources) in [
        (MergeMethod::Linear, 2),
        (MergeMethod::Slerp, 2),
        (MergeMethod::TaskArithmetic { scale }, 1),
        (MergeMethod::Ties { density, scale }, 2),
        (
            MergeMethod::Dare {
                density,
                scale,
                seed,
            },
            1,
        ),
        (
            MergeMethod::DareTies {
                density,
                scale,
                seed,
            },
            2,
        ),
    ] {
        let scratch = Scratch::new();
        let out = scratch.path().join("merged");
        let options = MergeOptions {
            method,
            sources: vec![source(&other, 1.0); sources],
            base: method.needs_base().then(|| source(&base, 1.0)),
            dense: None,
            max_shard_bytes: u64::MAX,
        };
        merge_checkpoints(&options, &out).unwrap();
        assert!(tensors(&out) == expected, "{method:?}");
    }
}

#[test]
fn a_merge_is_a_checkpoint_in_as_many_files_as_asked_for() {
    let (a, b) = (fixture("llama31-gqa"), fixture("llama-yarn"));
    let scratch = Scratch::new();
    let (whole, cut) = (scratch.path().join("whole"), scratch.path().join("cut"));
    let options = mean_of(&[&a, &b]);
    let in_one = merge_checkpoints(&options, &whole).unwrap();
    let small = MergeOptions {
        max_shard_bytes: 200_000,
        ..options.clone()
    };
    let in_many = merge_checkpoints(&small, &cut).unwrap();
    assert_eq!((in_one.n_files, in_one.n_bytes), (1, in_many.n_bytes));
    assert!(in_many.n_files > 3);
    assert!(tensors(&whole) == tensors(&cut));
    let digest = |dir: &Path| Checkpoint::open(dir).unwrap().digest();
    assert_eq!(digest(&whole), digest(&cut));
    // Rounding once to bf16 is rounding what was rounded to f32, but for rare ties.
    let dir = scratch.path().join("short");
    let short = MergeOptions {
        dense: Some(WeightType::BF16),
        ..options
    };
    merge_checkpoints(&short, &dir).unwrap();
    for (name, (dtype, _, bytes)) in tensors(&dir) {
        assert_eq!(dtype, Dtype::BF16);
        let wide = floats(&tensors(&whole)[&name].2);
        for (short, wide) in bytes.as_chunks::<2>().0.iter().zip(wide) {
            let short = half::bf16::from_le_bytes(*short).to_f64();
            assert!((short - wide).abs() <= wide.abs() / 256.0, "{name}");
        }
    }
}

#[test]
fn the_card_names_what_was_merged() {
    let scratch = Scratch::new();
    let out = scratch.path().join("merged");
    let options = MergeOptions {
        method: MergeMethod::Ties {
            density: 0.4,
            scale: 0.5,
        },
        sources: vec![source(&fixture("llama-yarn"), 0.75)],
        base: Some(source(&fixture("llama31-gqa"), 1.0)),
        dense: None,
        max_shard_bytes: u64::MAX,
    };
    let merged = merge_checkpoints(&options, &out).unwrap();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for part in [
        "base_model:\n- \"llama31-gqa\"\n- \"llama-yarn\"\n",
        "method `ties` (scale 0.5, density 0.4)",
        "| llama31-gqa | base | model.safetensors | `",
        "| llama-yarn | 0.75 | model.safetensors | `",
    ] {
        assert!(card.contains(part), "{part} in {card}");
    }
    // SHA-256 of the file, as `sha256sum` prints it.
    let bytes = std::fs::read(fixture("llama-yarn").join("model.safetensors")).unwrap();
    let digest: String = {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(&bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert!(card.contains(&digest));
    // They have other rope scaling: said, not hidden.
    assert!(
        merged
            .notes
            .iter()
            .any(|note| note.contains("`rope_scaling`")),
        "{merged:?}"
    );
    assert!(card.contains("`rope_scaling`"));
    assert!(out.join("tokenizer.json").is_file());
}

/// A fixture with one thing changed.
fn edited(
    scratch: &Scratch,
    name: &str,
    edit: impl FnOnce(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
) -> PathBuf {
    let dir = scratch.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    let base = fixture("llama31-gqa");
    std::fs::copy(base.join("config.json"), dir.join("config.json")).unwrap();
    let mut all = tensors(&base);
    edit(&mut all);
    let views = all.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    dir
}

#[test]
fn the_first_tensor_that_differs_is_named() {
    let scratch = Scratch::new();
    let base = fixture("llama31-gqa");
    let down = "model.layers.1.mlp.down_proj.weight";
    let turned = edited(&scratch, "turned", |all| {
        all.get_mut(down).unwrap().1.reverse();
        // Later by name.
        all.remove("model.norm.weight");
    });
    let lacking = edited(&scratch, "lacking", |all| {
        all.remove("model.norm.weight");
    });
    let integers = edited(&scratch, "integers", |all| {
        all.get_mut("model.norm.weight").unwrap().0 = Dtype::I16;
    });
    for (dir, tensor, difference) in [
        (&turned, down, "has shape [160, 64], not [64, 160]"),
        (&lacking, "model.norm.weight", "is in the latter only"),
        (&integers, "model.norm.weight", "is of type I16, not BF16"),
        (&fixture("qwen3"), "lm_head.weight", "is in the latter only"),
    ] {
        let out = scratch.path().join("merged");
        let error = merge_checkpoints(&mean_of(&[&base, dir]), &out).unwrap_err();
        let message = error.to_string();
        match error {
            MergeError::Differs {
                tensor: found,
                difference: how,
                ..
            } => {
                assert_eq!(found, tensor);
                assert_eq!(how, difference);
            }
            other => panic!("{other}"),
        }
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            message.contains(&name) && message.contains("llama31-gqa"),
            "{message}"
        );
        assert!(!out.exists());
    }
}

/// Why a merge is refused, which leaves nothing behind.
fn refused(scratch: &Scratch, options: &MergeOptions) -> String {
    let out = scratch.path().join("merged");
    let error = merge_checkpoints(options, &out).unwrap_err().to_string();
    assert!(!out.exists());
    error
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let scratch = Scratch::new();
    let base = fixture("llama31-gqa");
    let refused = |options: &MergeOptions| refused(&scratch, options);
    // The same tensors, but another model.
    let error = refused(&mean_of(&[&base, &fixture("mistral-sw")]));
    assert!(
        error.contains(r#"`model_type` is "mistral", not "llama""#),
        "{error}"
    );
    let quantized = edited(&scratch, "quantized", |_| ());
    let config = json!({"model_type": "llama", "quantization_config": {"quant_method": "awq"}});
    std::fs::write(quantized.join("config.json"), config.to_string()).unwrap();
    let error = refused(&mean_of(&[&base, &quantized]));
    assert!(
        error.contains("awq") && error.contains("config.json"),
        "{error}"
    );
    let file = base.join("model.safetensors");
    assert!(refused(&mean_of(&[&base, &file])).contains("Hugging Face layout"));
    // What is there already stays.
    let taken = scratch.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(merge_checkpoints(&mean_of(&[&base, &base]), &taken).is_err());
    assert!(taken.exists());
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let scratch = Scratch::new();
    let (base, other) = (fixture("llama31-gqa"), fixture("llama-yarn"));
    let plain = mean_of(&[&base, &other]);
    let with = |method| MergeOptions {
        method,
        ..plain.clone()
    };
    let based = MergeOptions {
        base: Some(source(&base, 1.0)),
        ..plain.clone()
    };
    let ties = |density| MergeOptions {
        method: MergeMethod::Ties {
            density,
            scale: 1.0,
        },
        ..based.clone()
    };
    let mut heavy = plain.clone();
    heavy.sources[1].weight = -1.0;
    for (options, part) in [
        (
            with(MergeMethod::TaskArithmetic { scale: 1.0 }),
            "none is given",
        ),
        (based.clone(), "no use for the base llama31-gqa"),
        (mean_of(&[&base]), "at least two"),
        (ties(0.0), "density of 0"),
        (ties(1.5), "density of 1.5"),
        (heavy, "sum is 0"),
        (
            MergeOptions {
                dense: Some(WeightType::Q8_0),
                ..plain.clone()
            },
            "Q8_0",
        ),
        (
            MergeOptions {
                method: MergeMethod::Slerp,
                ..mean_of(&[&base, &other, &base])
            },
            "exactly two",
        ),
    ] {
        let error = refused(&scratch, &options);
        assert!(error.contains(part), "{part} in {error}");
    }
}
