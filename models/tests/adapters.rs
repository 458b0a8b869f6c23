//! Adapters that must be refused, each by the name of what is wrong.
#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{GgufWriter, Scratch, fixture, runner, scored_row, tiny_llama};
use kernels::WeightType;
use models::{
    Adapter, AdapterStack, Checkpoint, GgufMetadata, ModelRunner, adapter_to_gguf, convert,
};
use scheduler::{AdapterId, Batch, Executor};
use serde_json::{Map, Value, json};

fn adapters() -> PathBuf {
    fixture("").parent().unwrap().join("adapters")
}

/// An adapter of the fixtures that a test changes before it is written.
struct Edited {
    config: Value,
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Edited {
    fn new(name: &str) -> Self {
        let dir = adapters().join(name);
        let config = std::fs::read(dir.join("adapter_config.json")).unwrap();
        let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self {
            config: serde_json::from_slice(&config).unwrap(),
            header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
            data: bytes[8 + length..].to_vec(),
        }
    }

    fn write(&self, dir: &Scratch) {
        let header = Value::Object(self.header.clone()).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&self.data);
        dir.write("adapter_model.safetensors", bytes);
        dir.write("adapter_config.json", self.config.to_string());
    }

    fn rename(&mut self, from: &str, to: &str) {
        let entry = self.header.shift_remove(from).unwrap();
        self.header.insert(to.to_string(), entry);
    }
}

const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";

fn refusal(runner: &ModelRunner, name: &str, edit: impl Fn(&mut Edited)) -> String {
    let mut edited = Edited::new(name);
    edit(&mut edited);
    let dir = Scratch::new();
    edited.write(&dir);
    let loaded = Adapter::load(dir.path(), runner.model().adapter_target());
    loaded.unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_named() {
    let runner = runner(&fixture("llama31-gqa"));
    let check = |edit: &dyn Fn(&mut Edited), parts: &[&str]| {
        let message = refusal(&runner, "llama31-gqa-plain", edit);
        for part in parts {
            assert!(message.contains(part), "{message} lacks {part:?}");
        }
    };
    let set = |key: &'static str, value: Value| {
        move |edited: &mut Edited| edited.config[key] = value.clone()
    };
    check(
        &set("r", json!(5)),
        &[Q, "expected shape [5, 64], found [4, 64]"],
    );
    check(&set("r", json!(0)), &["rank 0"]);
    check(&set("peft_type", json!("LOHA")), &["`peft_type`", "LOHA"]);
    check(&set("use_qalora", json!(true)), &["`use_qalora`"]);
    check(
        &set("target_parameters", json!(["x"])),
        &["`target_parameters`"],
    );
    check(&set("some_new_key", json!(1)), &["`some_new_key`"]);
    check(
        &set("init_lora_weights", json!("pissa")),
        &["`init_lora_weights`", "pissa"],
    );
    check(&set("bias", json!("some")), &["`bias`"]);
    check(&set("use_dora", json!(true)), &["lora_magnitude_vector"]);
    check(
        &set("target_modules", json!(["v_proj"])),
        &[Q, "target_modules"],
    );
    check(&set("target_modules", json!("(")), &["`target_modules`"]);
    check(
        &set("exclude_modules", json!(["q_proj"])),
        &[Q, "has no place"],
    );
    check(
        &set("layers_to_transform", json!([1])),
        &[Q, "layers_to_transform"],
    );
    check(
        &set("rank_pattern", json!({"q_proj": 2})),
        &[Q, "expected shape [2, 64]"],
    );
}

#[test]
fn tensors_that_belong_nowhere_are_named() {
    let runner = runner(&fixture("llama31-gqa"));
    let check = |edit: &dyn Fn(&mut Edited), parts: &[&str]| {
        let message = refusal(&runner, "llama31-gqa-plain", edit);
        for part in parts {
            assert!(message.contains(part), "{message} lacks {part:?}");
        }
    };
    let rename = |to: &'static str| {
        move |edited: &mut Edited| edited.rename(&format!("{Q}.lora_A.weight"), to)
    };
    check(&rename("model.x"), &["`model.x`", "base_model.model."]);
    check(
        &rename("base_model.model.a.lora_A.weight"),
        &["no module `a`"],
    );
    check(
        &rename("base_model.model.x.lora_Z"),
        &["`base_model.model.x.lora_Z`"],
    );
    check(
        &rename("base_model.model.layers.9.self_attn.q_proj.lora_A.weight"),
        &["no module `layers.9.self_attn.q_proj`"],
    );
    check(
        &|edited| {
            let lone = Q.replace("q_proj", "k_proj");
            edited.rename(
                &format!("{Q}.lora_A.weight"),
                &format!("{lone}.lora_A.weight"),
            );
            edited.config["target_modules"] = json!(["q_proj", "k_proj", "v_proj"]);
        },
        &["k_proj.lora_A.weight` is there without its lora_B"],
    );
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    let runner = runner(&fixture("llama31-gqa"));
    for poison in [f32::NAN, f32::INFINITY] {
        let message = refusal(&runner, "llama31-gqa-plain", |edited| {
            let info = &edited.header[&format!("{Q}.lora_B.weight")];
            let at = info["data_offsets"][0].as_u64().unwrap() as usize;
            edited.data[at + 8..at + 12].copy_from_slice(&poison.to_le_bytes());
        });
        assert!(message.contains(&format!("{Q}.lora_B.weight")), "{message}");
        assert!(
            message.contains("value 2 is not a finite number"),
            "{message}"
        );
    }
}

#[test]
fn a_pickle_and_an_empty_directory_are_refused() {
    let runner = runner(&fixture("llama31-gqa"));
    let dir = Scratch::new();
    let load = || Adapter::load(dir.path(), runner.model().adapter_target());
    let message = load().unwrap_err().to_string();
    assert!(
        message.contains("adapter_model.safetensors is not there"),
        "{message}"
    );
    dir.write("adapter_model.bin", "x");
    let message = load().unwrap_err().to_string();
    assert!(
        message.contains("adapter_model.bin") && message.contains("pickle"),
        "{message}"
    );
}

#[test]
fn stacks_are_of_one_model_and_known_by_content() {
    let (first, second) = (
        runner(&fixture("llama31-gqa")),
        runner(&fixture("llama31-gqa")),
    );
    let load = |runner: &ModelRunner, name: &str| {
        let path = adapters().join(name);
        Arc::new(Adapter::load(&path, runner.model().adapter_target()).unwrap())
    };
    let plain = load(&first, "llama31-gqa-plain");
    let other = load(&second, "llama31-gqa-plain");
    assert_eq!(plain.digest(), other.digest());
    assert_eq!(
        (plain.rank(), plain.targets()),
        (4, &["q_proj".into(), "v_proj".into()][..])
    );
    assert_ne!(plain.digest(), load(&first, "llama31-gqa-plain2").digest());
    let stack = |weight| AdapterStack::new(vec![(plain.clone(), weight)]).unwrap();
    assert_eq!(
        stack(1.0).digest(),
        AdapterStack::single(plain.clone()).digest()
    );
    assert_ne!(stack(1.0).kv_root(7), stack(0.5).kv_root(7));
    assert_ne!(stack(1.0).kv_root(7), stack(1.0).kv_root(8));
    assert!(AdapterStack::new(Vec::new()).is_err());
    assert!(AdapterStack::new(vec![(plain.clone(), f32::NAN)]).is_err());
    let mixed = vec![(plain.clone(), 1.0), (other.clone(), 1.0)];
    assert!(AdapterStack::new(mixed).is_err());
    // A stack of another model fails its row, and only that.
    let mut first = first;
    first
        .adapters()
        .insert(AdapterId(1), AdapterStack::single(other));
    let mut row = scored_row(1, &[1, 2, 3], 0);
    row.adapter = Some(AdapterId(1));
    let rows = vec![row, scored_row(2, &[1, 2, 3], 4)];
    let results = first.execute(&Batch { rows }).unwrap();
    assert!(
        results[0]
            .failed
            .as_ref()
            .unwrap()
            .contains("another model")
    );
    assert_eq!((results[1].scored.len(), &results[1].failed), (2, &None));
}

#[test]
fn tokens_can_be_trained_alone() {
    let mut runner = runner(&fixture("llama32-tied"));
    let config = runner.model().config().clone();
    let hidden = config.hidden_size;
    let dir = Scratch::new();
    let vectors: Vec<u8> = (0..2 * hidden)
        .flat_map(|i| ((i % 7) as f32 - 3.0).to_le_bytes())
        .collect();
    let name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
    let info = json!({"dtype": "F32", "shape": [2, hidden], "data_offsets": [0, vectors.len()]});
    let mut edited = Edited::new("llama31-gqa-plain");
    edited.header = Map::from_iter([(name.to_string(), info)]);
    edited.data = vectors;
    edited.config["trainable_token_indices"] = json!([5, 9]);
    edited.write(&dir);
    let adapter = Adapter::load(dir.path(), runner.model().adapter_target()).unwrap();
    assert_eq!(
        (adapter.rank(), adapter.targets()),
        (0, &["embed_tokens".to_string()][..])
    );
    let stack = AdapterStack::single(Arc::new(adapter));
    runner.adapters().insert(AdapterId(0), stack);
    let mut scores = |tokens: &[u32], adapter: Option<u32>| {
        let mut row = scored_row(1, tokens, 0);
        row.adapter = adapter.map(AdapterId);
        let rows = vec![row];
        runner.execute(&Batch { rows }).unwrap().remove(0).scored
    };
    // Another vector in, another logit out; the head is tied, so both change.
    assert_ne!(scores(&[5, 1, 2], None), scores(&[5, 1, 2], Some(0)));
    let (base, own) = (scores(&[3, 5], None), scores(&[3, 5], Some(0)));
    assert_ne!(base[0].chosen, own[0].chosen);
}

/// A GGUF adapter of `attn_q` of the tiny Llama.
fn gguf_adapter() -> GgufWriter {
    let mut gguf = GgufWriter::default();
    let bytes = |n: usize| {
        (0..n)
            .flat_map(|i| ((i % 5) as f32 / 4.0).to_le_bytes())
            .collect()
    };
    gguf.string("general.architecture", "llama")
        .string("general.type", "adapter")
        .string("adapter.type", "lora")
        .f32("adapter.lora.alpha", 4.0)
        .tensor("blk.0.attn_q.weight.lora_a", &[32, 2], 0, bytes(64))
        .tensor("blk.0.attn_q.weight.lora_b", &[2, 32], 0, bytes(64));
    gguf
}

#[test]
fn adapters_in_gguf() {
    let dir = Scratch::new();
    let mut runner = runner(&dir.write("model.gguf", tiny_llama().bytes()));
    let load = |runner: &ModelRunner, gguf: &GgufWriter| {
        let path = dir.write("adapter.gguf", gguf.bytes());
        Adapter::load(&path, runner.model().adapter_target()).map_err(|error| error.to_string())
    };
    let adapter = load(&runner, &gguf_adapter()).unwrap();
    assert_eq!(
        (adapter.rank(), adapter.targets()),
        (2, &["attn_q".to_string()][..])
    );
    let stack = AdapterStack::single(Arc::new(adapter));
    runner.adapters().insert(AdapterId(0), stack);
    let base = scored_row(1, &[1, 2, 3, 4], 0);
    let mut own = scored_row(2, &[1, 2, 3, 4], 4);
    own.adapter = Some(AdapterId(0));
    let rows = vec![base, own];
    let results = runner.execute(&Batch { rows }).unwrap();
    assert_ne!(results[0].scored, results[1].scored);
    for (key, part) in [
        ("general.type", "`general.type` is missing"),
        ("adapter.lora.alpha", "`adapter.lora.alpha` is missing"),
        ("blk.0.attn_q.weight.lora_b", "without its lora_B"),
    ] {
        let mut gguf = gguf_adapter();
        gguf.remove(key);
        let message = load(&runner, &gguf).unwrap_err();
        assert!(message.contains(part), "{message} lacks {part:?}");
    }
    let mut gguf = gguf_adapter();
    gguf.string("adapter.prompt_prefix", "x");
    assert!(
        load(&runner, &gguf)
            .unwrap_err()
            .contains("`adapter.prompt_prefix`")
    );
    let mut gguf = gguf_adapter();
    gguf.tensor("blk.0.attn_norm.weight", &[32], 0, vec![0; 128]);
    assert!(load(&runner, &gguf).unwrap_err().contains("attn_norm"));
}

#[test]
fn an_adapter_means_the_same_in_both_containers() {
    let dir = Scratch::new();
    let checkpoint = Checkpoint::open(&fixture("llama31-gqa")).unwrap();
    let model = dir.path().join("model.gguf");
    let metadata = GgufMetadata::default();
    convert(&checkpoint, &model, WeightType::F32, &metadata, 1).unwrap();
    let mut runner = runner(&model);
    let target = runner.model().adapter_target().clone();
    let mut load = |id: u32, path: &std::path::Path| {
        let stack = AdapterStack::single(Arc::new(Adapter::load(path, &target).unwrap()));
        runner.adapters().insert(AdapterId(id), stack);
        let mut row = scored_row(u64::from(id), &[1, 2, 3, 4, 5], 0);
        row.adapter = Some(AdapterId(id));
        let results = runner.execute(&Batch { rows: vec![row] }).unwrap();
        let scored = results[0].scored.iter();
        scored
            .map(|token| token.chosen.logprob)
            .collect::<Vec<f32>>()
    };
    // Where modules have scales of their own, their quotients are in the matrices, and rounded.
    for (name, bound) in [
        ("llama31-gqa-plain", 0.0),
        ("llama31-gqa-rslora", 1e-5),
        ("llama31-gqa-layers", 0.0),
    ] {
        let peft = adapters().join(name);
        let gguf = dir.path().join(format!("{name}.gguf"));
        adapter_to_gguf(&peft, &target, &gguf).unwrap();
        let (expected, found) = (load(1, &peft), load(2, &gguf));
        assert_eq!((expected.len(), found.len()), (4, 4));
        for (expected, found) in expected.iter().zip(&found) {
            assert!(
                (expected - found).abs() <= bound,
                "{name}: {expected} {found}"
            );
        }
    }
    for (name, part) in [
        ("llama31-gqa-dora", "lora_magnitude_vector"),
        ("llama31-gqa-save-embed", "only low-rank matrices"),
    ] {
        let gguf = dir.path().join("refused.gguf");
        let error = adapter_to_gguf(&adapters().join(name), &target, &gguf).unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
        assert!(!gguf.exists());
    }
}
