//! Who is served when: flows, classes, the age bound, and rows that fail alone.

use scheduler::{
    Batch, Event, FinishReason, FlowId, Priority, Request, RequestId, SchedulerConfig,
};
use tests::drive;

use crate::machine::{CONFIG, Counting, alone, end_of, machine, request, sequence, tokens_of};

fn of_flow(flow: u64, request: Request) -> Request {
    Request {
        flow: FlowId(flow),
        ..request
    }
}

/// Rows of a request in the batches so far, by step.
fn rows_of(executor: &Counting, id: u64) -> Vec<usize> {
    let has_row = |batch: &Batch| {
        let mut rows = batch.rows.iter();
        rows.any(|row| row.sequence.request == RequestId(id))
    };
    let batches = executor.batches.iter().enumerate();
    batches
        .filter(|(_, batch)| has_row(batch))
        .map(|(step, _)| step)
        .collect()
}

#[test]
fn a_long_prompt_of_one_flow_does_not_hold_up_another() {
    for (fairness, first_step) in [(true, 1), (false, 5)] {
        let (mut scheduler, mut executor) = machine(SchedulerConfig {
            fairness,
            n_blocks: 64,
            ..CONFIG
        });
        scheduler.submit(of_flow(1, request(1, 0, 90, 1))).unwrap();
        drive::step(&mut scheduler, &mut executor).unwrap();
        scheduler.submit(of_flow(2, request(2, 1, 8, 1))).unwrap();
        drive::run(&mut scheduler, &mut executor);
        // The first takes six steps by itself; 16 tokens of it are computed before the second
        // comes, so that it is the second's turn, if flows have turns.
        assert_eq!(rows_of(&executor, 2)[0], first_step);
    }
}

#[test]
fn a_flow_of_two_is_served_among_the_fifty_of_another() {
    let served_by = |fairness| {
        let (mut scheduler, mut executor) = machine(SchedulerConfig {
            fairness,
            max_sequences: 4,
            ..CONFIG
        });
        for id in 0..50 {
            let one = of_flow(1, request(id, id as u32, 20, 6));
            scheduler.submit(one).unwrap();
        }
        for id in 50..52 {
            let one = of_flow(2, request(id, id as u32, 20, 6));
            scheduler.submit(one).unwrap();
        }
        drive::run(&mut scheduler, &mut executor);
        (rows_of(&executor, 50)[0], rows_of(&executor, 51)[0])
    };
    // The first has its turn at once; the second when 27 tokens of the other flow's are done.
    let (first, second) = served_by(true);
    assert!(first <= 2 && second <= 8, "steps {first} and {second}");
    let (first, second) = served_by(false);
    assert!(first >= 60 && second >= 60, "steps {first} and {second}");
}

#[test]
fn flows_that_always_have_work_get_alike_and_only_with_fairness() {
    let spread = |fairness| {
        let seeds = (8..2_008).step_by(10);
        let beyond = |seed: &u64| {
            let outcome = tests::duel::outcome(*seed, fairness).unwrap();
            let services = &outcome.services;
            let spread = services.iter().max().unwrap() - services.iter().min().unwrap();
            spread > outcome.bound
        };
        seeds.filter(beyond).count()
    };
    assert_eq!(spread(true), 0);
    assert!(spread(false) > 20, "{}", spread(false));
}

#[test]
fn higher_classes_go_first_and_batch_work_gives_way() {
    let (mut scheduler, mut executor) = machine(SchedulerConfig {
        max_sequences: 2,
        ..CONFIG
    });
    let of_class = |id, priority| Request {
        priority,
        ..request(id, id as u32, 8, 6)
    };
    scheduler.submit(of_class(1, Priority::Batch)).unwrap();
    scheduler.submit(of_class(2, Priority::Batch)).unwrap();
    let mut events = drive::step(&mut scheduler, &mut executor).unwrap();
    scheduler.submit(of_class(3, Priority::Low)).unwrap();
    scheduler.submit(of_class(4, Priority::Normal)).unwrap();
    scheduler.submit(of_class(5, Priority::High)).unwrap();
    events.extend(drive::run(&mut scheduler, &mut executor));
    // High and normal work take the two rows at once, low work the first that is free again,
    // and batch work what is left then: one of the two had to give way for each.
    assert_eq!(rows_of(&executor, 5)[0], 1);
    assert_eq!(rows_of(&executor, 4)[0], 1);
    assert_eq!(rows_of(&executor, 3)[0], 7);
    assert_eq!(rows_of(&executor, 1), [0, 7, 8, 9, 10, 11]);
    assert_eq!(scheduler.stats().n_preemptions, 2);
    for id in 1..=5 {
        let request = of_class(id, Priority::Normal);
        assert_eq!(tokens_of(&events, sequence(id, 0)), alone(&request, 0));
    }
}

#[test]
fn nobody_waits_longer_than_the_age_bound() {
    let (mut scheduler, mut executor) = machine(SchedulerConfig {
        max_sequences: 1,
        age_bound_steps: 40,
        ..CONFIG
    });
    let low = Request {
        priority: Priority::Batch,
        ..request(0, 0, 8, 5)
    };
    scheduler.submit(low).unwrap();
    for id in 1..60 {
        let high = Request {
            priority: Priority::High,
            ..request(id, id as u32, 8, 4)
        };
        scheduler.submit(high).unwrap();
    }
    drive::run(&mut scheduler, &mut executor);
    let expected: Vec<usize> = (39..44).collect();
    assert_eq!(rows_of(&executor, 0), expected, "once begun, it goes on");
    assert!(scheduler.stats().n_overdue > 1);
}

#[test]
fn a_row_that_fails_alone_touches_nobody_else() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    let requests = [request(1, 0, 12, 4), request(2, 1, 12, 4)];
    for request in &requests {
        scheduler.submit(request.clone()).unwrap();
    }
    executor.fake.fail_row_next(sequence(1, 0));
    let events = drive::run(&mut scheduler, &mut executor);
    let failure = Event::Finished {
        sequence: sequence(1, 0),
        reason: FinishReason::Failed,
        n_cached_tokens: 0,
        failure: Some("the fake was told to fail this row".to_owned()),
    };
    assert!(events.contains(&failure), "{events:?}");
    assert_eq!(tokens_of(&events, sequence(2, 0)), alone(&requests[1], 0));
    let stats = scheduler.stats();
    assert_eq!((stats.n_failed_rows, stats.n_failed_steps), (1, 0));
    // Three full blocks of the second's prompt and output, and nothing of the first.
    assert_eq!(stats.n_blocks_cached, 3);
    let again = request(3, 0, 12, 4);
    scheduler.submit(again).unwrap();
    let events = drive::run(&mut scheduler, &mut executor);
    assert_eq!(end_of(&events, sequence(3, 0)), (FinishReason::Length, 0));
}

#[test]
fn what_waits_and_runs_is_counted_in_tokens() {
    let (mut scheduler, mut executor) = machine(SchedulerConfig {
        max_sequences: 1,
        ..CONFIG
    });
    scheduler.submit(request(1, 0, 10, 4)).unwrap();
    let choices = Request {
        n: 3,
        ..request(2, 1, 7, 4)
    };
    scheduler.submit(choices).unwrap();
    assert_eq!(scheduler.stats().n_tokens_waiting, 10 + 3 * 7);
    drive::step(&mut scheduler, &mut executor).unwrap();
    assert_eq!(scheduler.stats().n_tokens_waiting, 3 * 7);
    assert_eq!(scheduler.stats().n_tokens_running, 11);
    scheduler.cancel_sequence(sequence(2, 2));
    assert_eq!(scheduler.stats().n_tokens_waiting, 2 * 7);
    drive::run(&mut scheduler, &mut executor);
    assert_eq!(scheduler.stats().n_tokens_waiting, 0);
    assert_eq!(scheduler.stats().n_tokens_running, 0);
}
