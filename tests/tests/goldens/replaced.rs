//! A model that is replaced by another of the same name: nothing that the one has computed is
//! taken for the other's.

use std::fs;
use std::path::{Path, PathBuf};

use scheduler::{Event, Executor, Request, RequestId};
use tempfile::TempDir;
use understudy::args::{Args, Command};
use understudy::load::{Loaded, load};
use understudy::settings::Settings;
use understudy::source::ModelSource;

use crate::expected::fixtures;
use crate::serve::greedy;

/// A directory that is gone with the test.
struct ModelDir(TempDir);

impl ModelDir {
    /// A model with a tokenizer.
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().expect("a temporary directory"));
        dir.copy("models/qwen3", "config.json");
        dir.copy("models/qwen3", "model.safetensors");
        dir.copy("tokenizers/gpt2", "tokenizer.json");
        dir
    }

    fn copy(&self, from: &str, file: &str) {
        fs::copy(fixtures().join(from).join(file), self.0.path().join(file)).expect("a fixture");
    }

    fn weights(&self) -> PathBuf {
        self.0.path().join("model.safetensors")
    }

    fn load(&self) -> Loaded {
        let line = ["understudy", "serve", "--served-model-name", "tuned"];
        let Ok(Command::Serve(args)) = Args::command_of(line) else {
            panic!("serve is a command");
        };
        let source = ModelSource {
            path: self.0.path().to_path_buf(),
            name: "tuned".to_owned(),
        };
        let settings = Settings::resolve(*args).expect("the usual settings");
        load(&settings, &source).expect("a model that loads")
    }
}

fn flip_a_bit(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).expect("weights");
    let i = at(bytes.len());
    bytes[i] ^= 1;
    fs::write(path, bytes).expect("a writable file");
}

/// Prompt tokens that are found in the cache.
fn n_cached(engine: &mut Loaded, id: u64, kv_root: u64) -> u32 {
    let prompt: Vec<u32> = (0..100).map(|i| (i * 7) % 200).collect();
    let request = Request {
        id: RequestId(id),
        kv_root,
        prompt_logprobs: None,
        scored_from: 0,
        ..greedy(&prompt, 4, 1)
    };
    engine.scheduler.submit(request).expect("room");
    let mut n_cached = None;
    while let Some(batch) = engine.scheduler.begin_step() {
        let sampled = engine.runner.execute(&batch).expect("a step");
        for event in engine.scheduler.end_step(sampled) {
            if let Event::Finished {
                n_cached_tokens, ..
            } = event
            {
                n_cached = Some(n_cached_tokens);
            }
        }
    }
    n_cached.expect("it ended")
}

#[test]
fn weights_replaced_under_the_same_name_hit_nothing() {
    let dir = ModelDir::new();
    let mut engine = dir.load();
    let first = engine.served.kv_root;
    assert_eq!(n_cached(&mut engine, 0, first), 0);
    assert_eq!(n_cached(&mut engine, 1, first), 96, "all full blocks");

    let same = dir.load().served;
    assert_eq!(
        same.kv_root, first,
        "the same weights are the same model, wherever they come from"
    );
    assert_eq!(same.fingerprint, engine.served.fingerprint);

    // One bit of one weight, wherever it is.
    let places: [fn(usize) -> usize; 3] = [|n| n - 2, |n| n / 2, |n| n / 3];
    for (i, place) in places.into_iter().enumerate() {
        flip_a_bit(&dir.weights(), place);
        let tuned = dir.load().served;
        assert_eq!(tuned.names, engine.served.names);
        assert_ne!(tuned.fingerprint, engine.served.fingerprint);
        let id = 10 + 2 * i as u64;
        assert_eq!(n_cached(&mut engine, id, tuned.kv_root), 0, "stale hits");
        assert_eq!(n_cached(&mut engine, id + 1, tuned.kv_root), 96);
    }
    // What the first has computed is still its own.
    assert_eq!(n_cached(&mut engine, 100, first), 96);
}
