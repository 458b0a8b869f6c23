//! Files that tests make.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};

use kernels::{CpuOptions, Device, KvType, Numerics, WeightType};
use models::{Checkpoint, Model, ModelRunner, RunnerOptions};
use scheduler::{BatchRow, BlockId, PromptScoring, RequestId, SequenceId};
use tempfile::TempDir;

/// A directory that is removed again.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for temporary files"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("room for a small file");
        path
    }
}

/// A checkpoint of the goldens.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models")
        .join(name)
}

/// The error of a checkpoint that must not open.
pub(crate) fn refusal(path: &Path) -> String {
    match models::Checkpoint::open(path) {
        Ok(_) => panic!("{} must be refused", path.display()),
        Err(error) => error.to_string(),
    }
}

/// Sizes of the runner below.
pub(crate) const N_BLOCKS: usize = 32;
pub(crate) const BLOCK_SIZE: usize = 4;
pub(crate) const MAX_BATCHED_TOKENS: usize = 40;
pub(crate) const MAX_MODEL_LEN: usize = 64;

/// A checkpoint with room for a few short sequences, in f32.
pub(crate) fn runner(path: &Path) -> ModelRunner {
    runner_in(path, None)
}

/// The same, its unquantized weights stored in a type.
pub(crate) fn runner_in(path: &Path, dense: Option<WeightType>) -> ModelRunner {
    let device = Device::cpu(CpuOptions::default());
    let checkpoint = Checkpoint::open(path).expect("it opens");
    let model = Model::load(&checkpoint, &device, Numerics::F32, dense).expect("it loads");
    let options = RunnerOptions {
        n_blocks: N_BLOCKS,
        block_size: BLOCK_SIZE,
        kv_type: KvType::F32,
        max_batched_tokens: MAX_BATCHED_TOKENS,
        max_model_len: MAX_MODEL_LEN,
    };
    ModelRunner::new(model, options).expect("little memory is needed")
}

/// A row of the first tokens of sequence `request`, each scored against the next.
pub(crate) fn scored_row(request: u64, tokens: &[u32], first_block: u32) -> BatchRow {
    let n_blocks = tokens.len().div_ceil(BLOCK_SIZE) as u32;
    BatchRow {
        sequence: SequenceId {
            request: RequestId(request),
            index: 0,
        },
        tokens: tokens.to_vec(),
        pending: None,
        start: 0,
        first_block: 0,
        blocks: (first_block..first_block + n_blocks).map(BlockId).collect(),
        adapter: None,
        sample: None,
        scoring: Some(PromptScoring {
            first: 0,
            targets: tokens[1..].to_vec(),
            n_top: 5,
        }),
        pooling: None,
    }
}

/// Writes GGUF files, right ones and wrong ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct GgufWriter {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

impl GgufWriter {
    /// An entry of any type: its number, then its bytes.
    pub(crate) fn raw(&mut self, key: &str, ty: u32, value: &[u8]) -> &mut Self {
        let mut bytes = ty.to_le_bytes().to_vec();
        bytes.extend(value);
        self.entries.push((key.to_string(), bytes));
        self
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, &string(value))
    }

    /// `shape`: innermost first, as in the file.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        shape: &[u64],
        ty: u32,
        bytes: Vec<u8>,
    ) -> &mut Self {
        self.tensors
            .push((name.to_string(), shape.to_vec(), ty, bytes));
        self
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.retain(|(name, _)| name != key);
        self.tensors.retain(|(name, ..)| name != key);
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.iter().map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn tensor_names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, ..)| name.clone()).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            out.extend(string(key));
            out.extend(value);
        }
        let mut offset = 0_u64;
        for (name, shape, ty, bytes) in &self.tensors {
            out.extend(string(name));
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
            out.extend(ty.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (bytes.len() as u64).next_multiple_of(32);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn values(n: u64) -> Vec<u8> {
    (0..n)
        .flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 400.0).to_le_bytes())
        .collect()
}

/// A file of the Llama family with one layer, 4 heads of 8 values that share 2 key-value heads.
pub(crate) fn tiny_llama() -> GgufWriter {
    let mut gguf = GgufWriter::default();
    gguf.string("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 128)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 64)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("llama.rope.freq_base", 10_000.0)
        .u32("tokenizer.ggml.eos_token_id", 7)
        .u32("tokenizer.ggml.eot_token_id", 9);
    let mut tensor = |name: &str, shape: &[u64]| {
        gguf.tensor(name, shape, 0, values(shape.iter().product()));
    };
    tensor("token_embd.weight", &[32, 50]);
    tensor("output_norm.weight", &[32]);
    tensor("blk.0.attn_norm.weight", &[32]);
    tensor("blk.0.attn_q.weight", &[32, 32]);
    tensor("blk.0.attn_k.weight", &[32, 16]);
    tensor("blk.0.attn_v.weight", &[32, 16]);
    tensor("blk.0.attn_output.weight", &[32, 32]);
    tensor("blk.0.ffn_norm.weight", &[32]);
    tensor("blk.0.ffn_gate.weight", &[32, 64]);
    tensor("blk.0.ffn_up.weight", &[32, 64]);
    tensor("blk.0.ffn_down.weight", &[64, 32]);
    gguf
}
