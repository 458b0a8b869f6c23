//! Comparing a model with itself quantized.

mod common;

use common::{MAX_BATCHED_TOKENS, fixture, runner, runner_in, scored_row};
use kernels::WeightType;
use models::Reference;
use scheduler::{Batch, Executor};

fn windows() -> Vec<Vec<u32>> {
    let window = |first: u32| (0..MAX_BATCHED_TOKENS as u32).map(move |i| (first + i * 97) % 512);
    (0..4).map(|first| window(first * 31).collect()).collect()
}

#[test]
fn a_model_is_no_distance_from_itself_and_further_with_fewer_bits() {
    let path = fixture("llama31-gqa");
    let reference = Reference::new(&mut runner(&path), windows()).unwrap();
    let same = reference.compare(&mut runner(&path)).unwrap();
    assert_eq!(same.n_predictions, 4 * (MAX_BATCHED_TOKENS - 1));
    assert!(
        same.kl_mean.abs() < 1e-7 && same.kl_largest < 1e-6,
        "{same:?}"
    );
    assert_eq!(same.same_best, 1.0);
    assert!((same.perplexity / same.reference_perplexity - 1.0).abs() < 1e-6);
    let mut last = same.kl_mean.max(1e-9);
    for ty in [WeightType::Q8_0, WeightType::Q5_0, WeightType::Q4_0] {
        let found = reference.compare(&mut runner_in(&path, Some(ty))).unwrap();
        assert!(found.kl_mean > 2.0 * last, "{ty:?}: {found:?} after {last}");
        assert!(found.kl_largest > found.kl_mean && found.same_best < 1.0);
        last = found.kl_mean;
    }
}

/// The same surprise comes of the scores that requests get.
#[test]
fn perplexity_is_that_of_scored_prompts() {
    let path = fixture("qwen2-tied");
    let reference = Reference::new(&mut runner(&path), windows()).unwrap();
    let found = reference.compare(&mut runner(&path)).unwrap();
    let mut server = runner(&path);
    let (mut sum, mut n) = (0.0, 0);
    for window in windows() {
        let rows = vec![scored_row(1, &window, 0)];
        let scored = server.execute(&Batch { rows }).unwrap().remove(0).scored;
        sum -= scored
            .iter()
            .map(|s| f64::from(s.chosen.logprob))
            .sum::<f64>();
        n += scored.len();
    }
    let expected = (sum / f64::from(n as u32)).exp();
    assert!((found.perplexity / expected - 1.0).abs() < 1e-5);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let path = fixture("llama31-gqa");
    let reference = Reference::new(&mut runner(&path), windows()).unwrap();
    let error = reference
        .compare(&mut runner(&fixture("codellama")))
        .unwrap_err();
    assert!(error.to_string().contains("vocabulary"), "{error}");
    let long = vec![vec![1; MAX_BATCHED_TOKENS + 1]];
    let error = Reference::new(&mut runner(&path), long).unwrap_err();
    assert!(error.to_string().contains("planned for"), "{error}");
}
