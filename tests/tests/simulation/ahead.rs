//! Steps that are begun while another is in flight.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use scheduler::{
    Batch, BlockId, Executor, FinishReason, Request, SamplingParams, Scheduler, SchedulerConfig,
};
use tests::drive;

use crate::machine::{CONFIG, Counting, alone, end_of, overlapping, request, sequence, tokens_of};

/// A machine with these requests, of which none waits any more, and the batch in flight.
fn in_flight(requests: &[Request]) -> (Scheduler, Counting, Batch) {
    let (mut scheduler, executor) = overlapping(CONFIG);
    for request in requests {
        scheduler.submit(request.clone()).expect("a sound request");
    }
    let batch = scheduler.begin_step().expect("there is work");
    (scheduler, executor, batch)
}

#[test]
fn tokens_come_from_the_batch_before_and_are_those_of_serial_steps() {
    let (mut scheduler, mut executor) = overlapping(CONFIG);
    let requests = [(1, 0, 5, 20), (2, 3, 21, 12), (3, 9, 2, 30)]
        .map(|(id, stem, n_prompt, n_new)| request(id, stem, n_prompt, n_new));
    for request in &requests {
        scheduler.submit(request.clone()).unwrap();
    }
    let events = drive::run_ahead(&mut scheduler, &mut executor);
    for request in &requests {
        let id = sequence(request.id.0, 0);
        assert_eq!(tokens_of(&events, id), alone(request, 0));
    }
    let stats = scheduler.stats();
    // All but those behind a step that somebody waits for.
    assert!(stats.n_steps_ahead > 25, "{stats:?}");
    let batches = executor.batches.iter();
    let n_pending = batches
        .flat_map(|batch| &batch.rows)
        .filter(|row| row.pending.is_some());
    assert!(n_pending.count() > 50);
    assert_eq!(stats.n_rows_void, 0, "all ends were foreseen");
}

#[test]
fn a_stop_makes_a_row_void_and_its_blocks_are_kept_until_its_step_ends() {
    let base = request(1, 0, 5, 20);
    let answer = alone(&base, 0);
    let stopping = Request {
        stop_tokens: [answer[3]].into(),
        ..base
    };
    let n_drawn = 1 + answer.iter().position(|t| *t == answer[3]).unwrap();
    let (mut scheduler, mut executor, mut batch) = in_flight(&[stopping]);
    let mut ticket = executor.start(&batch).unwrap();
    for step in 1..=n_drawn {
        let next = scheduler.begin_ahead_within(usize::MAX).unwrap();
        assert_eq!(next.rows[0].pending, Some(0));
        let after = executor.start(&next).unwrap();
        let sampled = executor.finish(ticket, &batch).unwrap();
        let events = scheduler.end_step(sampled);
        scheduler.check().unwrap();
        let ended = step == n_drawn;
        assert_eq!(events.len(), if ended { 2 } else { 1 }, "{events:?}");
        if ended {
            assert_eq!(end_of(&events, sequence(1, 0)).0, FinishReason::Stop);
        }
        (batch, ticket) = (next, after);
    }
    let stats = scheduler.stats();
    assert_eq!((stats.n_running, stats.n_rows_void), (0, 1));
    assert_eq!(stats.n_blocks_in_use, batch.rows[0].blocks.len());
    assert!(!scheduler.is_idle() && scheduler.begin_ahead_within(usize::MAX).is_none());
    let sampled = executor.finish(ticket, &batch).unwrap();
    assert!(sampled[0].token.is_some());
    assert_eq!(scheduler.end_step(sampled), []);
    assert_eq!(scheduler.stats().n_blocks_in_use, 0);
    scheduler.check().unwrap();
    assert!(scheduler.is_idle());
}

#[test]
fn a_failed_step_fails_its_rows_only() {
    let (mut scheduler, mut executor, batch) =
        in_flight(&[request(1, 0, 5, 20), request(2, 3, 30, 20)]);
    let ticket = executor.start(&batch).unwrap();
    // The prompt of the second goes on, and the first draws.
    let next = scheduler.begin_ahead_within(usize::MAX).unwrap();
    let after = executor.start(&next).unwrap();
    assert_eq!(next.rows.len(), 2);
    executor.fake.fail_row_next(sequence(1, 0));
    let sampled = executor.finish(ticket, &batch).unwrap();
    let events = scheduler.end_step(sampled);
    assert_eq!(end_of(&events, sequence(1, 0)).0, FinishReason::Failed);
    scheduler.check().unwrap();
    let sampled = executor.finish(after, &next).unwrap();
    assert_eq!(scheduler.end_step(sampled), []);
    let events = drive::run_ahead(&mut scheduler, &mut executor);
    let second = request(2, 3, 30, 20);
    assert_eq!(tokens_of(&events, sequence(2, 0)), alone(&second, 0));
}

#[test]
fn a_token_that_needs_the_host_is_computed_again_behind_nothing() {
    let (mut scheduler, mut executor, batch) = in_flight(&[request(1, 0, 5, 20)]);
    let ticket = executor.start(&batch).unwrap();
    let next = scheduler.begin_ahead_within(usize::MAX).unwrap();
    let after = executor.start(&next).unwrap();
    executor.fake.postpone_row_next(sequence(1, 0));
    let sampled = executor.finish(ticket, &batch).unwrap();
    assert!(sampled[0].postponed);
    assert_eq!(scheduler.end_step(sampled), []);
    scheduler.check().unwrap();
    let sampled = executor.finish(after, &next).unwrap();
    assert_eq!(scheduler.end_step(sampled), []);
    let n_ahead = scheduler.stats().n_steps_ahead;
    let events = drive::run_ahead(&mut scheduler, &mut executor);
    let all = alone(&request(1, 0, 5, 20), 0);
    assert_eq!(tokens_of(&events, sequence(1, 0)), all);
    assert_eq!(scheduler.stats().n_steps_ahead, n_ahead, "it is waited for");
}

#[test]
fn what_depends_on_a_token_waits_for_it() {
    let penalized = SamplingParams {
        presence_penalty: 0.5,
        ..SamplingParams::default()
    };
    let base = || request(1, 0, 5, 20);
    for dependent in [
        Request {
            is_steered: true,
            ..base()
        },
        Request {
            sampling: Arc::new(penalized),
            ..base()
        },
        Request { n: 2, ..base() },
    ] {
        let (mut scheduler, ..) = in_flight(&[dependent, request(2, 3, 4, 20)]);
        assert!(scheduler.begin_ahead_within(usize::MAX).is_none());
    }
}

#[test]
fn whoever_can_be_admitted_is_not_passed_by() {
    let (mut scheduler, mut executor, batch) = in_flight(&[request(1, 0, 5, 20)]);
    scheduler.submit(request(2, 3, 4, 20)).unwrap();
    assert!(scheduler.begin_ahead_within(usize::MAX).is_none());
    let ticket = executor.start(&batch).unwrap();
    scheduler.end_step(executor.finish(ticket, &batch).unwrap());
    assert_eq!(scheduler.begin_step().unwrap().rows.len(), 2);
    // Who has no room in any case does not hold up anybody.
    let config = SchedulerConfig {
        max_sequences: 1,
        ..CONFIG
    };
    let (mut scheduler, _) = overlapping(config);
    scheduler.submit(request(1, 0, 5, 20)).unwrap();
    scheduler.submit(request(2, 3, 4, 20)).unwrap();
    scheduler.begin_step().unwrap();
    assert!(scheduler.begin_ahead_within(usize::MAX).is_some());
}

/// The fake would not let these pass.
#[test]
fn planted_faults_are_found() {
    let plant = |fault: fn(&mut Batch)| {
        let (mut scheduler, mut executor, batch) =
            in_flight(&[request(1, 0, 5, 20), request(2, 3, 6, 20)]);
        executor.start(&batch).unwrap();
        let mut next = scheduler.begin_ahead_within(usize::MAX).unwrap();
        fault(&mut next);
        let started = catch_unwind(AssertUnwindSafe(|| executor.start(&next).map(drop)));
        let panic = started
            .err()
            .map(|panic| panic.downcast::<String>().unwrap());
        panic.map(|text| *text).unwrap_or_default()
    };
    assert_eq!(plant(|_| ()), "");
    let told = plant(|next| next.rows[0].pending = Some(1));
    assert!(told.contains("its token is of row Some(1)"), "{told}");
    let told = plant(|next| next.rows[0].pending = None);
    assert!(told.contains("its token is of row None"), "{told}");
    // As if the blocks of the other had been freed and taken.
    let told = plant(|next| {
        let of_other: Vec<BlockId> = next.rows[1].blocks.clone();
        next.rows[0].blocks = of_other;
        next.rows.truncate(1);
    });
    assert!(told.contains("holds in flight"), "{told}");
    // A sequence that goes on where it was not.
    let told = plant(|next| next.rows[0].start += 1);
    assert!(told.contains("it goes on elsewhere"), "{told}");
}
