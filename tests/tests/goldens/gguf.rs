//! The micro checkpoints again, out of GGUF files that `convert` wrote from them: queries and
//! keys in another order, norms with their one, experts in one tensor, and all that the
//! configuration says in metadata. In f32 nothing may be lost on the way.

use std::path::PathBuf;

use kernels::WeightType;
use models::{Checkpoint, Gguf, GgufMetadata, convert, quantize_gguf};
use tempfile::TempDir;

use crate::expected;
use crate::micro::{AMBIGUOUS, N_GREEDY, TOLERANCE, cases, largest_distance};
use crate::serve::{Machine, Server, greedy};

/// A file that is removed again.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for temporary files"))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("model.gguf")
    }
}

/// Converts a micro checkpoint in a type.
pub(crate) fn converted(model: &str, ty: WeightType, out: &Scratch) {
    let path = expected::fixtures().join("models").join(model);
    let checkpoint = Checkpoint::open(&path).expect("it opens");
    convert(&checkpoint, &out.file(), ty, &GgufMetadata::default(), 2).expect("it has a GGUF form");
}

fn check(model: &str) {
    check_cases(model, &[(0, usize::MAX, Machine::EXACT.max_model_len)]);
}

/// `parts`: first case, end, longest sequence served.
fn check_cases(model: &str, parts: &[(usize, usize, usize)]) {
    let out = Scratch::new();
    converted(model, WeightType::F32, &out);
    let cases = cases(model);
    for &(first, end, max_model_len) in parts {
        let machine = Machine {
            max_model_len,
            ..Machine::EXACT
        };
        let mut server = Server::start(&out.file(), machine);
        for case in &cases[first..end.min(cases.len())] {
            let outcome = server.serve_alone(&greedy(&case.ids, N_GREEDY, 20));
            let largest = largest_distance(case, &outcome, AMBIGUOUS);
            assert!(largest <= TOLERANCE, "{model}: {largest}");
        }
    }
}

macro_rules! gguf_models {
    ($($test:ident: $model:literal,)*) => {
        $(#[test] fn $test() { check($model); })*
    };
}

each_model!(gguf_models,);

/// Short and long factors are settled by the longest sequence served, as in the checkpoint.
#[test]
fn phi3_longrope() {
    check_cases("phi3-longrope", &[(0, 3, 64), (3, usize::MAX, 256)]);
}

/// What GGUF cannot say is refused by name, and leaves no file.
#[test]
fn models_without_a_gguf_form_are_refused() {
    for (model, reason) in [
        ("opt", "no GGUF form"),
        ("falcon-alibi", "cannot be said in GGUF"),
    ] {
        let out = Scratch::new();
        let path = expected::fixtures().join("models").join(model);
        let checkpoint = Checkpoint::open(&path).expect("it opens");
        let metadata = GgufMetadata::default();
        let error = convert(&checkpoint, &out.file(), WeightType::F32, &metadata, 1);
        let error = error.expect_err("it has no GGUF form").to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!out.file().exists());
    }
}

/// Bits of a model's log-probabilities lost by quantizing it, in the root mean square.
fn drift(model: &str, ty: WeightType) -> f64 {
    let (exact, out) = (Scratch::new(), Scratch::new());
    converted(model, WeightType::F32, &exact);
    let gguf = Gguf::open(&exact.file()).expect("it opens");
    quantize_gguf(&gguf, &out.file(), ty, false, 2).expect("it can be quantized");
    let mut server = Server::start(&out.file(), Machine::EXACT);
    let (mut sum, mut n) = (0.0, 0.0);
    for case in cases(model) {
        let outcome = server.serve_alone(&greedy(&case.ids, 1, 255));
        let first = outcome.tokens[0].logprobs.as_ref().expect("asked for");
        let after: Vec<_> = outcome.prompt.iter().chain([first]).collect();
        for (top, found) in case.top.iter().zip(&after[case.pos0..]) {
            for difference in top.differences(found).filter(|d| d.is_finite()) {
                sum += difference * difference;
                n += 1.0;
            }
        }
    }
    f64::sqrt(sum / n)
}

/// A quantized model is worse the fewer its bits, and none by more than it should. The weights
/// are harsh (see the fixtures), so the figures are far above those of real models.
#[test]
fn fewer_bits_drift_further() {
    let bounds = [
        (WeightType::Q8_0, 0.15),
        (WeightType::Q5_1, 1.0),
        (WeightType::Q5_0, 1.2),
        (WeightType::Q4_1, 1.8),
        (WeightType::Q4_0, 2.0),
    ];
    let mut last = 0.0;
    for (ty, bound) in bounds {
        let drift = drift("llama31-gqa", ty);
        assert!(
            drift > last && drift < bound,
            "{ty:?}: {drift} after {last}"
        );
        last = drift / 2.0;
    }
}
