//! GGUF files: what is read, and what is refused.

mod common;

use common::{GgufWriter, Scratch, refusal, tiny_llama};
use kernels::{CpuOptions, Device, Numerics};
use models::{Checkpoint, Gguf, GgufValue, Model};

#[test]
fn a_file_is_read_whole() {
    let dir = Scratch::new();
    let path = dir.write("tiny.gguf", tiny_llama().bytes());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let config = checkpoint.config();
    assert_eq!(
        (config.n_layers, config.hidden_size, config.vocab_size),
        (1, 32, 50)
    );
    assert_eq!(
        (config.n_heads, config.n_kv_heads, config.head_dim),
        (4, 2, 8)
    );
    assert!(config.logits.tied && !config.attention.qkv_bias);
    assert_eq!(checkpoint.eos_tokens(), [7, 9]);
    let model = Model::load(
        &checkpoint,
        &Device::cpu(CpuOptions::default()),
        Numerics::F32,
        None,
    );
    assert!(model.unwrap().n_bytes() >= 4 * (50 * 32 + 2 * 32 * 32));
}

#[test]
fn every_kind_of_metadata_is_read() {
    let mut gguf = tiny_llama();
    gguf.raw("u8", 0, &[200])
        .raw("i8", 1, &[0xFF])
        .raw("u16", 2, &500_u16.to_le_bytes())
        .raw("i16", 3, &(-500_i16).to_le_bytes())
        .raw("i32", 5, &(-7_i32).to_le_bytes())
        .raw("f32", 6, &0.5_f32.to_le_bytes())
        .raw("bool", 7, &[1])
        .raw("u64", 10, &u64::MAX.to_le_bytes())
        .raw("i64", 11, &i64::MIN.to_le_bytes())
        .raw("f64", 12, &0.1_f64.to_le_bytes());
    // An array of two arrays of booleans.
    let mut nested = 9_u32.to_le_bytes().to_vec();
    nested.extend(2_u64.to_le_bytes());
    for _ in 0..2 {
        nested.extend(7_u32.to_le_bytes());
        nested.extend(1_u64.to_le_bytes());
        nested.push(0);
    }
    gguf.raw("array", 9, &nested);
    let dir = Scratch::new();
    let file = Gguf::open(&dir.write("tiny.gguf", gguf.bytes())).unwrap();
    let inner = GgufValue::Array(vec![GgufValue::Bool(false)]);
    let expected = [
        ("u8", GgufValue::Unsigned(200)),
        ("i8", GgufValue::Signed(-1)),
        ("u16", GgufValue::Unsigned(500)),
        ("i16", GgufValue::Signed(-500)),
        ("i32", GgufValue::Signed(-7)),
        ("f32", GgufValue::Float(0.5)),
        ("bool", GgufValue::Bool(true)),
        ("u64", GgufValue::Unsigned(u64::MAX)),
        ("i64", GgufValue::Signed(i64::MIN)),
        ("f64", GgufValue::Float(0.1)),
        ("array", GgufValue::Array(vec![inner.clone(), inner])),
    ];
    for (key, value) in expected {
        assert_eq!(file.get(key), Some(&value), "{key}");
    }
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let bytes = tiny_llama().bytes();
    let dir = Scratch::new();
    let header = bytes.len() - 4 * 9000;
    // Each byte of the header, then steps through the data.
    let lengths = (0..200)
        .chain((200..header).step_by(7))
        .chain((header..bytes.len()).step_by(997));
    for length in lengths.chain([bytes.len() - 1]) {
        let path = dir.write("cut.gguf", &bytes[..length]);
        let error = refusal(&path);
        assert!(error.contains("cut.gguf"), "{error}");
    }
    let error = refusal(&dir.write("cut.gguf", &bytes[..bytes.len() - 1]));
    assert!(
        error.contains("truncated") && error.contains("blk.0.ffn_down.weight"),
        "{error}"
    );
}

#[test]
fn flipped_bits_never_panic() {
    let bytes = tiny_llama().bytes();
    let dir = Scratch::new();
    for position in 0..1200 {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        let path = dir.write("flipped.gguf", &flipped);
        // Some flips leave a file that is still right; none may do worse than an error.
        if let Err(error) = Checkpoint::open(&path) {
            assert!(error.to_string().contains("flipped.gguf"));
        }
    }
}

#[test]
fn each_needed_entry_is_named_when_it_is_missing() {
    let dir = Scratch::new();
    let whole = tiny_llama();
    for key in whole.keys() {
        let has_default = ["head_count_kv", "freq_base", "eos_token_id", "eot_token_id"];
        if has_default.iter().any(|name| key.ends_with(name)) {
            continue;
        }
        let mut gguf = whole.clone();
        gguf.remove(&key);
        let error = refusal(&dir.write("tiny.gguf", gguf.bytes()));
        assert!(
            error.contains("tiny.gguf") && error.contains(&key) && error.contains("missing"),
            "{key}: {error}"
        );
    }
}

#[test]
fn each_tensor_is_named_when_it_is_missing() {
    let dir = Scratch::new();
    let device = Device::cpu(CpuOptions::default());
    for name in tiny_llama().tensor_names() {
        let mut gguf = tiny_llama();
        gguf.remove(&name);
        let path = dir.write("tiny.gguf", gguf.bytes());
        let error = Checkpoint::open(&path)
            .and_then(|checkpoint| Model::load(&checkpoint, &device, Numerics::F32, None))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tiny.gguf") && error.contains(&name) && error.contains("missing"),
            "{name}: {error}"
        );
    }
}

/// What a changed file is refused with.
fn refused(change: impl FnOnce(&mut GgufWriter)) -> String {
    let mut gguf = tiny_llama();
    change(&mut gguf);
    let dir = Scratch::new();
    refusal(&dir.write("tiny.gguf", gguf.bytes()))
}

#[test]
fn unsupported_files_are_refused_by_name() {
    let error = refused(|gguf| {
        gguf.remove("general.architecture");
        gguf.string("general.architecture", "mamba");
    });
    assert!(
        error.contains("\"mamba\"") && error.contains("supported: llama"),
        "{error}"
    );
    let error = refused(|gguf| {
        gguf.tensor("odd.weight", &[256], 16, vec![0; 66]);
    });
    assert!(
        error.contains("odd.weight") && error.contains("IQ2_XXS"),
        "{error}"
    );
    let error = refused(|gguf| {
        gguf.tensor("odd.weight", &[256], 999, vec![0; 66]);
    });
    assert!(
        error.contains("odd.weight") && error.contains("number 999"),
        "{error}"
    );
    let error = refused(|gguf| {
        gguf.string("llama.rope.scaling.type", "longrope");
    });
    let list = "supported: none, linear, yarn";
    assert!(
        error.contains("\"longrope\"") && error.ends_with(list),
        "{error}"
    );
    let error = refused(|gguf| {
        gguf.u32("llama.expert_count", 8);
    });
    assert!(error.contains("llama.expert_used_count"), "{error}");
}

#[test]
fn absurd_claims_are_refused_before_memory_is_taken() {
    let mut huge_array = 0_u32.to_le_bytes().to_vec();
    huge_array.extend((u64::MAX / 2).to_le_bytes());
    let error = refused(|gguf| {
        gguf.raw("claims", 9, &huge_array);
    });
    assert!(error.contains("claims"), "{error}");
    let error = refused(|gguf| {
        gguf.tensor("big", &[1 << 40, 1 << 40], 0, Vec::new());
    });
    assert!(
        error.contains("`big`") && error.contains("too large"),
        "{error}"
    );
    let error = refused(|gguf| {
        gguf.remove("llama.attention.head_count_kv");
        gguf.u32("llama.attention.head_count_kv", 3);
    });
    assert!(error.contains("llama.attention.head_count_kv"), "{error}");
    let error = refused(|gguf| {
        gguf.u32("general.alignment", 0);
    });
    assert!(error.contains("general.alignment"), "{error}");
    let error = refused(|gguf| {
        gguf.u32("llama.block_count", 1);
    });
    assert!(
        error.contains("`llama.block_count` occurs twice"),
        "{error}"
    );
}
