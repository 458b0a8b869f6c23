//! What a runner answers, and what it refuses: every break of the contract is an error, and the
//! runner goes on after it.

#![expect(clippy::unwrap_used, reason = "what cannot fail may panic in a test")]

mod common;

use std::sync::Arc;

use common::{MAX_BATCHED_TOKENS, MAX_MODEL_LEN, N_BLOCKS, fixture, runner, scored_row};
use models::ModelRunner;
use scheduler::{
    AdapterId, Batch, BatchRow, BlockId, Executor, SampleSpec, Sampled, SamplingParams,
};

const TOKENS: [u32; 9] = [5, 17, 400, 3, 3, 88, 511, 0, 42];

fn spec(params: SamplingParams) -> SampleSpec {
    SampleSpec {
        params: Arc::new(params),
        n_generated: 0,
        history: Vec::new(),
        n_prompt: 0,
        banned: Arc::new([]),
        allowed: None,
        is_awaited: false,
    }
}

fn run(runner: &mut ModelRunner, rows: Vec<BatchRow>) -> Vec<Sampled> {
    runner.execute(&Batch { rows }).unwrap()
}

#[test]
fn answers_are_in_the_order_of_rows() {
    let mut runner = runner(&fixture("llama-mha"));
    let mut drawn = scored_row(3, &TOKENS[..4], 10);
    drawn.scoring = None;
    drawn.sample = Some(spec(SamplingParams {
        temperature: 0.0,
        logprobs: Some(2),
        ..SamplingParams::default()
    }));
    let mut silent = scored_row(1, &TOKENS[..2], 20);
    silent.scoring = None;
    let rows = vec![scored_row(7, &TOKENS, 0), drawn, silent];
    let results = run(&mut runner, rows);
    let ids: Vec<u64> = results.iter().map(|r| r.sequence.request.0).collect();
    assert_eq!(ids, [7, 3, 1]);
    let counts: Vec<usize> = results.iter().map(|r| r.scored.len()).collect();
    assert_eq!(counts, [8, 0, 0]);
    for (scored, target) in results[0].scored.iter().zip(&TOKENS[1..]) {
        assert_eq!(scored.chosen.token, *target);
        assert_eq!(scored.top.len(), 5);
    }
    // The same four tokens begin both rows: the draw is the best alternative scored there.
    let token = results[1].token.as_ref().unwrap();
    assert_eq!(token.token, results[0].scored[3].top[0].token);
    assert_eq!(
        token.logprobs.as_ref().unwrap().top,
        results[0].scored[3].top[..2]
    );
    assert_eq!((&results[0].token, &results[2].token), (&None, &None));
}

#[test]
fn an_empty_batch_is_no_work() {
    assert_eq!(run(&mut runner(&fixture("llama-mha")), Vec::new()), []);
}

#[test]
fn breaks_of_the_contract_are_errors_and_the_runner_goes_on() {
    let mut runner = runner(&fixture("llama-mha"));
    let good = scored_row(1, &TOKENS, 0);
    let expected = run(&mut runner, vec![good.clone()]);
    let mut refused = |change: &dyn Fn(&mut BatchRow), part: &str| {
        let mut row = good.clone();
        change(&mut row);
        let error = runner
            .execute(&Batch {
                rows: vec![good.clone(), row],
            })
            .unwrap_err();
        assert!(error.0.contains(part), "{error} lacks {part:?}");
    };
    refused(&|row| row.tokens.clear(), "without tokens");
    refused(&|row| row.tokens[2] = 512, "token 512");
    refused(
        &|row| row.blocks[1] = BlockId(N_BLOCKS as u32),
        "does not exist",
    );
    refused(&|row| row.blocks.truncate(2), "do not fit 2 blocks");
    refused(&|row| row.start = MAX_MODEL_LEN as u32, "planned for 64");
    refused(
        &|row| row.scoring.as_mut().unwrap().first = 2,
        "beyond the row",
    );
    refused(
        &|row| row.scoring.as_mut().unwrap().targets[0] = 9999,
        "9999",
    );
    refused(
        &|row| {
            row.scoring = None;
            row.tokens = vec![1; MAX_BATCHED_TOKENS];
            row.blocks = (0..16).map(BlockId).collect();
        },
        "planned for 40",
    );
    assert_eq!(run(&mut runner, vec![good]), expected);
}

#[test]
fn a_row_of_an_unknown_adapter_fails_alone() {
    let mut runner = runner(&fixture("llama-mha"));
    let good = scored_row(1, &TOKENS, 0);
    let expected = run(&mut runner, vec![good.clone()]);
    let mut lost = scored_row(2, &TOKENS, 8);
    lost.adapter = Some(AdapterId(3));
    let results = run(&mut runner, vec![lost.clone(), good]);
    assert_eq!(
        results[0].failed.as_deref(),
        Some("adapter 3 is not loaded")
    );
    assert!(results[0].scored.is_empty() && results[0].token.is_none());
    assert_eq!(results[1..], expected);
    assert!(run(&mut runner, vec![lost])[0].failed.is_some());
}
