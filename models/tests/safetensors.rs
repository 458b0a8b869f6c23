//! Safetensors: sharded and single, whole and damaged.
#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use std::path::Path;

use common::{Scratch, fixture, refusal};
use kernels::{CpuOptions, Device, Numerics};
use models::{Checkpoint, Model};
use serde_json::{Map, Value, json};

const MODEL: &str = "llama-mha";

fn weights() -> Vec<u8> {
    std::fs::read(fixture(MODEL).join("model.safetensors")).unwrap()
}

/// Splits a file into its header and its data.
fn parse(bytes: &[u8]) -> (Map<String, Value>, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (
        header.as_object().unwrap().clone(),
        bytes[8 + length..].to_vec(),
    )
}

fn build(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let header = Value::Object(header.clone()).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn directory() -> Scratch {
    let dir = Scratch::new();
    let config = std::fs::read(fixture(MODEL).join("config.json")).unwrap();
    dir.write("config.json", config);
    dir
}

fn load(dir: &Path) -> Result<Model, String> {
    let device = Device::cpu(CpuOptions::default());
    Checkpoint::open(dir)
        .and_then(|checkpoint| Model::load(&checkpoint, &device, Numerics::F32, None))
        .map_err(|error| error.to_string())
}

/// A copy of the weights with only the tensors that `keep` names.
fn part(bytes: &[u8], keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let (header, data) = parse(bytes);
    let (mut kept, mut kept_data) = (Map::new(), Vec::new());
    for (name, info) in header {
        if name == "__metadata__" || !keep(&name) {
            continue;
        }
        let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let begin = kept_data.len();
        kept_data.extend(&data[offset(0)..offset(1)]);
        let mut info = info.clone();
        info["data_offsets"] = json!([begin, kept_data.len()]);
        kept.insert(name, info);
    }
    build(&kept, &kept_data)
}

/// Two shards and their index.
fn sharded() -> Scratch {
    let dir = directory();
    let bytes = weights();
    let in_first = |name: &str| name.contains("layers.0.");
    dir.write("a.safetensors", part(&bytes, in_first));
    dir.write("b.safetensors", part(&bytes, |name| !in_first(name)));
    let map: Map<String, Value> = parse(&bytes)
        .0
        .keys()
        .filter(|name| *name != "__metadata__")
        .map(|name| {
            let file = if in_first(name) { "a" } else { "b" };
            (name.clone(), json!(format!("{file}.safetensors")))
        })
        .collect();
    let index = json!({"metadata": {}, "weight_map": map});
    dir.write("model.safetensors.index.json", index.to_string());
    dir
}

#[test]
fn shards_make_the_same_model_as_one_file() {
    let whole = Checkpoint::open(&fixture(MODEL)).unwrap();
    let dir = sharded();
    let split = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(whole.digest(), split.digest());
    load(dir.path()).unwrap();
}

#[test]
fn a_missing_shard_and_a_misplaced_tensor_are_named() {
    let dir = sharded();
    std::fs::remove_file(dir.path().join("a.safetensors")).unwrap();
    let error = refusal(dir.path());
    assert!(error.contains("a.safetensors: shard is missing"), "{error}");
    dir.write("a.safetensors", part(&weights(), |_| false));
    let error = refusal(dir.path());
    assert!(
        error.contains("a.safetensors: tensor `model.layers.0."),
        "{error}"
    );
    let index = json!({"weight_map": {"x": "../a.safetensors"}});
    dir.write("model.safetensors.index.json", index.to_string());
    let error = refusal(dir.path());
    assert!(error.contains("weight_map.x"), "{error}");
    dir.write("model.safetensors.index.json", "{}");
    let error = refusal(dir.path());
    assert!(error.contains("`weight_map` is missing"), "{error}");
}

#[test]
fn names_without_the_prefix_are_found() {
    let (header, data) = parse(&weights());
    let short = header
        .into_iter()
        .map(|(name, info)| (name.trim_start_matches("model.").to_string(), info))
        .collect();
    let dir = directory();
    dir.write("model.safetensors", build(&short, &data));
    load(dir.path()).unwrap();
}

#[test]
fn lying_headers_are_refused_with_the_tensor() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let (header, data) = parse(&weights());
    let dir = directory();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header[name]);
        dir.write("model.safetensors", build(&header, &data));
        refusal(dir.path())
    };
    let lies: [&dyn Fn(&mut Value); 4] = [
        &|info| info["shape"] = json!([160, 65]),
        &|info| info["dtype"] = json!("F32"),
        &|info| info["data_offsets"] = json!([0, u64::MAX]),
        &|info| info["shape"] = json!([u64::MAX, u64::MAX]),
    ];
    for lie in lies {
        let error = refused(lie);
        assert!(
            error.contains("model.safetensors") && error.contains(name),
            "{error}"
        );
    }
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let bytes = weights();
    let dir = directory();
    for length in (0..4000)
        .step_by(37)
        .chain((4000..bytes.len()).step_by(9973))
    {
        dir.write("model.safetensors", &bytes[..length]);
        let error = refusal(dir.path());
        assert!(error.contains("model.safetensors"), "{error}");
    }
    let mut long = u64::MAX.to_le_bytes().to_vec();
    long.extend(&bytes[8..]);
    dir.write("model.safetensors", long);
    let error = refusal(dir.path());
    assert!(
        error.contains("header claims 18446744073709551615"),
        "{error}"
    );
}

#[test]
fn flipped_bits_never_panic() {
    let bytes = weights();
    let dir = directory();
    for position in (0..3000).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        dir.write("model.safetensors", &flipped);
        if let Err(error) = Checkpoint::open(dir.path()) {
            assert!(error.to_string().contains("model.safetensors"));
        }
    }
}

#[test]
fn missing_tensors_and_wrong_shapes_are_named() {
    let dir = directory();
    let name = "model.layers.2.self_attn.k_proj.weight";
    dir.write("model.safetensors", part(&weights(), |other| other != name));
    let error = load(dir.path()).unwrap_err();
    assert!(
        error.contains("model.safetensors") && error.contains(name) && error.contains("missing"),
        "{error}"
    );
    let (mut header, data) = parse(&weights());
    header[name]["shape"] = json!([32, 128]);
    dir.write("model.safetensors", build(&header, &data));
    let error = load(dir.path()).unwrap_err();
    assert!(
        error.contains(name) && error.contains("expected shape [64, 64], found [32, 128]"),
        "{error}"
    );
}

#[test]
fn other_dtypes_are_refused_by_name() {
    let (mut header, data) = parse(&weights());
    let name = "model.layers.0.mlp.up_proj.weight";
    header[name]["dtype"] = json!("I16");
    let dir = directory();
    dir.write("model.safetensors", build(&header, &data));
    let error = load(dir.path()).unwrap_err();
    assert!(error.contains(name) && error.contains("I16"), "{error}");
}

#[test]
fn biases_without_a_place_are_refused() {
    let (mut header, mut data) = parse(&weights());
    let name = "model.layers.0.self_attn.q_proj.bias";
    let begin = data.len();
    data.resize(begin + 128, 0);
    let info = json!({"dtype": "F16", "shape": [64], "data_offsets": [begin, begin + 128]});
    header.insert(name.to_string(), info);
    let dir = directory();
    dir.write("model.safetensors", build(&header, &data));
    let error = load(dir.path()).unwrap_err();
    assert!(
        error.contains(name) && error.contains("no place"),
        "{error}"
    );
}

#[test]
fn pickles_and_empty_directories_are_refused() {
    let dir = directory();
    let error = refusal(dir.path());
    assert!(error.contains("no weights"), "{error}");
    dir.write("pytorch_model.bin", "x");
    let error = refusal(dir.path());
    assert!(
        error.contains("pytorch_model.bin") && error.contains("pickle"),
        "{error}"
    );
    let error = refusal(&dir.path().join("nowhere"));
    assert!(
        error.contains("nowhere") && error.contains("cannot be read"),
        "{error}"
    );
}

#[test]
fn a_digest_knows_weights_by_content() {
    let original = Checkpoint::open(&fixture(MODEL)).unwrap().digest();
    let dir = directory();
    dir.write("model.safetensors", weights());
    assert_eq!(Checkpoint::open(dir.path()).unwrap().digest(), original);
    // Any single bit makes another model of it, also in the middle of a large tensor.
    let n_bytes = weights().len();
    for i in [
        n_bytes - 1,
        n_bytes / 2,
        n_bytes / 3 + 1,
        n_bytes / 5 * 4 + 3,
    ] {
        let mut changed = weights();
        changed[i] ^= 1;
        dir.write("model.safetensors", changed);
        let digest = Checkpoint::open(dir.path()).unwrap().digest();
        assert_ne!(digest, original, "byte {i}");
    }
}

#[test]
fn a_directory_of_gguf_files_is_not_a_model() {
    let dir = Scratch::new();
    dir.write("b.gguf", b"");
    dir.write("a.GGUF", b"");
    let error = load(dir.path()).unwrap_err();
    assert!(
        error.ends_with("holds GGUF files: name one of them: a.GGUF, b.gguf"),
        "{error}"
    );
}
