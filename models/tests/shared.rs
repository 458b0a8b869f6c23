//! Matrices that models have in common are held once, and only what is the same is taken for it.

use std::path::{Path, PathBuf};

use kernels::{CpuOptions, Device, Numerics, WeightType};
use models::{Checkpoint, LoadOptions, Model, SharedWeights};

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../tests/fixtures/models").join(name)
}

fn total(model: &Model) -> u64 {
    model.matrices().iter().map(|(_, n_bytes)| n_bytes).sum()
}

#[test]
fn copies_cost_nothing_and_what_differs_costs_itself() {
    let device = Device::cpu(CpuOptions::default());
    let pool = SharedWeights::default();
    let load = |name: &str, dense| {
        let options = LoadOptions {
            numerics: Numerics::F32,
            dense,
            shared: Some(&pool),
        };
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        Model::load_with(&checkpoint, &device, options).unwrap()
    };
    let one = load("llama31-gqa", None);
    let alone = pool.n_bytes();
    assert!(alone > 0 && alone <= total(&one));
    assert_eq!(pool.missing_bytes(one.matrices()), 0);
    let two = load("llama31-gqa", None);
    assert_eq!((pool.n_bytes(), two.matrices()), (alone, one.matrices()));
    // Other bytes, and the same bytes in another type, are other matrices.
    let other = load("llama32-tied", None);
    let narrow = load("llama31-gqa", Some(WeightType::Q8_0));
    assert!(pool.n_bytes() > alone && one.matrices() != narrow.matrices());
    let matrices = (one.matrices().to_vec(), other.matrices().to_vec());
    drop((other, narrow, one));
    // What the second still has stays; what nobody has is gone.
    assert_eq!(pool.n_bytes(), alone);
    assert_eq!(pool.missing_bytes(&matrices.0), 0);
    assert!(pool.missing_bytes(&matrices.1) > 0);
    drop(two);
    assert_eq!(pool.n_bytes(), 0);
}
