//! The scheduler under simulated machines and traffic, and its promises one by one.

mod ahead;
mod forced;
mod machine;
mod policy;

use std::sync::Arc;

use scheduler::{
    AdapterId, Batch, Event, Executor, FinishReason, Request, RequestId, SamplingParams,
    SchedulerConfig, SequenceId, SubmitError, TokenId,
};
use tests::simulation::Report;
use tests::{drive, oracle, simulation};

use machine::{CONFIG, MACHINE, N_VOCAB, alone, end_of, machine, request, sequence, tokens_of};

#[test]
fn simulation_of_two_thousand_seeds() {
    let mut total = Report::default();
    for seed in 0..2_000 {
        match simulation::run(seed) {
            Ok(report) => total.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    // A simulation that never gets into trouble proves nothing.
    assert!(total.n_preemptions > 1_000, "{total:?}");
    assert!(total.n_tokens_lost > 10_000, "{total:?}");
    assert!(total.n_hit_tokens > 10_000, "{total:?}");
    assert!(total.n_failed_steps > 500, "{total:?}");
    assert!(total.n_failed_rows > 500, "{total:?}");
    assert!(total.n_overdue > 1_000, "{total:?}");
    assert!(total.n_cancelled > 1_000, "{total:?}");
    assert!(total.n_scores > 10_000, "{total:?}");
    assert!(total.n_refused > 50, "{total:?}");
    assert!(total.n_vectors > 1_000, "{total:?}");
    assert!(total.n_blocks_dropped > 10_000, "{total:?}");
    assert!(total.n_forced > 10_000, "{total:?}");
    assert!(total.n_ahead > 10_000, "{total:?}");
    assert!(total.n_void > 1_000, "{total:?}");
    assert!(total.n_postponed > 500, "{total:?}");
}

#[test]
fn simulation_is_replayed_by_its_seed() {
    assert_eq!(simulation::run(7), simulation::run(7));
    assert_ne!(simulation::run(7), simulation::run(8));
}

#[test]
fn choices_share_the_prompt_and_differ() {
    for prefix_cache in [true, false] {
        let config = SchedulerConfig {
            prefix_cache,
            ..CONFIG
        };
        let (mut scheduler, mut executor) = machine(config);
        let request = Request {
            n: 3,
            ..request(1, 0, 22, 5)
        };
        scheduler.submit(request.clone()).unwrap();
        let events = drive::run(&mut scheduler, &mut executor);
        for index in 0..3 {
            let id = sequence(1, index);
            assert_eq!(tokens_of(&events, id), alone(&request, index));
            assert_eq!(end_of(&events, id), (FinishReason::Length, 0));
        }
        assert_ne!(alone(&request, 0), alone(&request, 1));
        // The prompt once, of the others the two tokens after its five full blocks, and four of
        // the five tokens that each of the three draws.
        assert_eq!(executor.n_tokens, 22 + 2 * 2 + 3 * 4);
    }
}

#[test]
fn another_choice_takes_over_when_the_first_is_cancelled() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    let request = Request {
        n: 2,
        prompt_logprobs: Some(0),
        scored_from: 0,
        ..request(1, 0, 40, 3)
    };
    scheduler.submit(request.clone()).unwrap();
    let mut events = drive::step(&mut scheduler, &mut executor).unwrap();
    let ended = scheduler.cancel_sequence(sequence(1, 0)).unwrap();
    assert_eq!(
        end_of(&[ended], sequence(1, 0)),
        (FinishReason::Cancelled, 0)
    );
    events.extend(drive::run(&mut scheduler, &mut executor));
    assert_eq!(tokens_of(&events, sequence(1, 1)), alone(&request, 1));
    let scored = |event: &Event| match event {
        Event::PromptScored { logprobs, .. } => logprobs.clone(),
        _ => Vec::new(),
    };
    let scores: Vec<_> = events.iter().flat_map(scored).collect();
    assert_eq!(scores, oracle::alone(&request, 1, MACHINE).scores);
}

#[test]
fn what_cannot_be_served_is_refused_with_numbers() {
    let (mut scheduler, _) = machine(CONFIG);
    let too_long = scheduler.submit(request(1, 0, 96, 1));
    let expected = SubmitError::TooLong {
        n_prompt: 96,
        n_new: 1,
        max_model_len: 96,
    };
    assert_eq!(too_long, Err(expected));
    assert_eq!(
        expected.to_string(),
        "the prompt has 96 tokens and 1 must follow at least, but a sequence holds at most 96"
    );
    assert_eq!(scheduler.submit(request(1, 0, 96, 0)), Ok(()));

    let (mut scheduler, mut executor) = machine(SchedulerConfig {
        n_blocks: 3,
        ..CONFIG
    });
    let never_fits = scheduler.submit(request(1, 0, 10, 4));
    let expected = SubmitError::NeverFits {
        n_needed: 4,
        n_blocks: 3,
        block_size: 4,
    };
    assert_eq!(never_fits, Err(expected));
    // One token less fits exactly: the last token drawn takes no slot.
    scheduler.submit(request(2, 0, 10, 3)).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    assert_eq!(tokens_of(&events, sequence(2, 0)).len(), 3);
    let again = scheduler.submit(request(2, 0, 10, 3));
    assert_eq!(again, Ok(()), "an id is free again after its request");
    let twice = scheduler.submit(request(2, 0, 10, 3));
    assert_eq!(twice, Err(SubmitError::DuplicateId(RequestId(2))));
}

#[test]
fn preemption_happens_and_loses_nothing() {
    let config = SchedulerConfig {
        n_blocks: 12,
        ..CONFIG
    };
    let (mut scheduler, mut executor) = machine(config);
    let requests: Vec<Request> = (0..3).map(|id| request(id, id as u32, 8, 30)).collect();
    for request in &requests {
        scheduler.submit(request.clone()).unwrap();
    }
    let events = drive::run(&mut scheduler, &mut executor);
    assert!(scheduler.stats().n_preemptions > 0);
    for request in &requests {
        let id = sequence(request.id.0, 0);
        assert_eq!(tokens_of(&events, id), alone(request, 0));
    }
    // The oldest is never the one to give way: it is in every batch until its end.
    let oldest = |batch: &Batch| batch.rows.iter().any(|row| row.sequence == sequence(0, 0));
    let n_batches = executor
        .batches
        .iter()
        .filter(|batch| oldest(batch))
        .count();
    assert_eq!(n_batches, 30);
}

#[test]
fn cached_tokens_are_counted_exactly() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    let mut serve = |request: Request| {
        let id = SequenceId {
            request: request.id,
            index: 0,
        };
        scheduler.submit(request).unwrap();
        let events = drive::run(&mut scheduler, &mut executor);
        end_of(&events, id).1
    };
    assert_eq!(serve(request(1, 0, 21, 1)), 0);
    assert_eq!(serve(request(2, 0, 21, 1)), 20);
    // The last position is always computed, even of a prompt that is cached whole.
    assert_eq!(serve(request(3, 0, 20, 1)), 16);
    assert_eq!(serve(request(4, 0, 19, 1)), 16);
    assert_eq!(serve(request(5, 0, 4, 1)), 0);
    assert_eq!(serve(request(6, 1, 21, 1)), 0);
    let scored = Request {
        prompt_logprobs: Some(1),
        scored_from: 0,
        ..request(7, 0, 21, 1)
    };
    assert_eq!(serve(scored), 0);
    let tuned = Request {
        adapter: Some(AdapterId(3)),
        kv_root: 2,
        ..request(8, 0, 21, 1)
    };
    assert_eq!(serve(tuned.clone()), 0);
    let again = Request {
        id: RequestId(9),
        ..tuned
    };
    assert_eq!(serve(again), 20);
    let stats = scheduler.stats();
    assert_eq!(stats.n_prefix_hit_tokens, 20 + 16 + 16 + 20);
    assert_eq!(stats.n_blocks_in_use, 0);
}

#[test]
fn generated_tokens_are_found_by_the_next_turn() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 10, 9)).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    let mut turn = request(1, 0, 10, 1).prompt.to_vec();
    turn.extend(tokens_of(&events, sequence(1, 0)));
    turn.extend([1, 2, 3]);
    let next = Request {
        prompt: turn.into(),
        ..request(2, 0, 1, 1)
    };
    scheduler.submit(next).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    // 18 positions were computed before, the token drawn last was not.
    assert_eq!(end_of(&events, sequence(2, 0)).1, 16);
}

#[test]
fn a_failing_step_fails_its_rows_and_caches_nothing() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 12, 4)).unwrap();
    executor.fake.fail_next();
    let events = drive::run(&mut scheduler, &mut executor);
    assert_eq!(events.len(), 1);
    assert_eq!(end_of(&events, sequence(1, 0)), (FinishReason::Failed, 0));
    assert_eq!(scheduler.stats().n_failed_steps, 1);
    assert_eq!(scheduler.stats().n_blocks_cached, 0);
    scheduler.submit(request(2, 0, 12, 4)).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    assert_eq!(end_of(&events, sequence(2, 0)), (FinishReason::Length, 0));
}

#[test]
fn a_cancel_in_flight_takes_effect_as_the_step_ends() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 6, 10)).unwrap();
    scheduler.submit(request(2, 1, 6, 10)).unwrap();
    let batch = scheduler.begin_step().unwrap();
    assert_eq!(scheduler.cancel(RequestId(1)), []);
    scheduler.check().unwrap();
    let events = scheduler.end_step(executor.execute(&batch).unwrap());
    assert_eq!(
        end_of(&events, sequence(1, 0)),
        (FinishReason::Cancelled, 0)
    );
    assert!(tokens_of(&events, sequence(1, 0)).is_empty());
    assert_eq!(tokens_of(&events, sequence(2, 0)).len(), 1);
    assert_eq!(scheduler.cancel(RequestId(1)), []);
    let events = scheduler.cancel(RequestId(2));
    assert_eq!(
        end_of(&events, sequence(2, 0)),
        (FinishReason::Cancelled, 0)
    );
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.stats().n_blocks_in_use, 0);
}

#[test]
fn a_long_prompt_does_not_hold_up_tokens() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 6, 8)).unwrap();
    drive::step(&mut scheduler, &mut executor).unwrap();
    scheduler.submit(request(2, 1, 80, 1)).unwrap();
    for _ in 0..5 {
        let events = drive::step(&mut scheduler, &mut executor).unwrap();
        assert_eq!(tokens_of(&events, sequence(1, 0)).len(), 1);
    }
    let batch = executor.batches.last().unwrap();
    assert_eq!(
        batch.n_tokens(),
        16,
        "the rest of the budget goes to the prompt"
    );
}

#[test]
fn stop_tokens_wait_for_the_minimum() {
    let everything: Arc<[TokenId]> = (0..N_VOCAB - 1).collect();
    let request = Request {
        stop_tokens: everything,
        min_new_tokens: 3,
        ..request(1, 0, 6, 10)
    };
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    let tokens = tokens_of(&events, sequence(1, 0));
    // Only the last token of the vocabulary does not stop.
    assert_eq!(tokens[..3], [N_VOCAB - 1; 3]);
    assert_eq!(end_of(&events, sequence(1, 0)).0, FinishReason::Stop);
}

#[test]
fn history_travels_with_penalties() {
    let request = Request {
        sampling: Arc::new(SamplingParams {
            frequency_penalty: 1.0,
            ..SamplingParams::default()
        }),
        ..request(1, 0, 6, 3)
    };
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request.clone()).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    let mut history = request.prompt.to_vec();
    history.extend(&tokens_of(&events, sequence(1, 0))[..2]);
    let last = executor.batches.last().unwrap();
    let spec = last.rows[0].sample.as_ref().unwrap();
    assert_eq!(spec.history, history);
    assert_eq!((spec.n_prompt, spec.n_generated), (6, 2));
}

#[test]
fn a_request_without_new_tokens_is_only_scored() {
    let request = Request {
        prompt_logprobs: Some(2),
        scored_from: 0,
        ..request(1, 0, 20, 0)
    };
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request.clone()).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    assert!(tokens_of(&events, sequence(1, 0)).is_empty());
    assert_eq!(end_of(&events, sequence(1, 0)).0, FinishReason::Length);
    let n_scores: usize = events
        .iter()
        .map(|event| match event {
            Event::PromptScored { logprobs, .. } => logprobs.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(n_scores, 19);
}

#[test]
fn a_window_bounds_what_a_long_sequence_holds() {
    let config = SchedulerConfig {
        max_model_len: 4_000,
        max_batched_tokens: 8,
        window: Some(10),
        ..CONFIG
    };
    let (mut scheduler, mut executor) = machine(config);
    let long = request(1, 0, 3_000, 900);
    scheduler.submit(long.clone()).unwrap();
    let (mut events, mut most) = (Vec::new(), 0);
    while let Some(more) = drive::step(&mut scheduler, &mut executor) {
        events.extend(more);
        most = most.max(scheduler.stats().n_blocks_in_use);
    }
    // Ten positions seen and eight computed touch six blocks of four; the context fills 975.
    assert!(most <= 6, "{most} blocks for a window of ten");
    let machine = oracle::Machine {
        max_model_len: 4_000,
        window: Some(10),
        ..MACHINE
    };
    let expected = oracle::alone(&long, 0, machine).tokens;
    let expected: Vec<TokenId> = expected.iter().map(|token| token.token).collect();
    assert_eq!(tokens_of(&events, sequence(1, 0)), expected);
}

#[test]
fn a_hit_behind_a_window_needs_its_whole_beginning() {
    let config = SchedulerConfig {
        window: Some(6),
        ..CONFIG
    };
    let (mut scheduler, mut executor) = machine(config);
    scheduler.submit(request(1, 0, 40, 1)).unwrap();
    drive::run(&mut scheduler, &mut executor);
    scheduler.submit(request(2, 0, 44, 1)).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    // Ten blocks hold the first forty tokens; the table takes only those that are seen.
    assert_eq!(end_of(&events, sequence(2, 0)), (FinishReason::Length, 40));
    let row = &executor.batches.last().unwrap().rows[0];
    assert_eq!((row.start, row.first_block, row.blocks.len()), (40, 8, 3));
    // Others overwrite the beginning first.
    for id in 3..6 {
        scheduler.submit(request(id, id as u32, 32, 1)).unwrap();
        drive::run(&mut scheduler, &mut executor);
    }
    scheduler.submit(request(6, 0, 44, 1)).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    assert_eq!(end_of(&events, sequence(6, 0)), (FinishReason::Length, 0));
}
