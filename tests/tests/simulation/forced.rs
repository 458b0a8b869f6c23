//! Tokens that follow without a draw.

use std::sync::Arc;

use scheduler::{Event, FinishReason, Priority, Request, SamplingParams, TokenId};

use crate::machine::{CONFIG, end_of, machine, request, sequence, tokens_of};
use tests::drive;

const FORCED: [TokenId; 20] = [7; 20];

#[test]
fn forced_tokens_are_computed_in_one_row_with_one_draw() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 6, 30)).unwrap();
    assert_eq!(scheduler.force(sequence(1, 0), &FORCED), [], "it waits");
    drive::step(&mut scheduler, &mut executor).unwrap();
    let events = scheduler.force(sequence(1, 0), &FORCED[..5]);
    assert_eq!(tokens_of(&events, sequence(1, 0)), FORCED[..5]);
    let crowd = scheduler.crowd();
    assert_eq!((crowd.n_streaming, crowd.n_prompting), (1, 0));
    drive::step(&mut scheduler, &mut executor).unwrap();
    let row = &executor.batches[1].rows[0];
    assert_eq!((row.start, row.tokens.len()), (6, 6));
    assert_eq!(row.sample.as_ref().unwrap().n_generated, 6);
    assert_eq!(scheduler.stats().n_tokens_forced, 5);
}

#[test]
fn forced_tokens_end_where_drawn_ones_would() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    let stopping = Request {
        stop_tokens: [9].into(),
        min_new_tokens: 4,
        ..request(1, 0, 6, 30)
    };
    let logprobs = SamplingParams {
        logprobs: Some(0),
        ..SamplingParams::default()
    };
    let scored = Request {
        sampling: Arc::new(logprobs),
        ..request(3, 2, 6, 30)
    };
    for request in [stopping, request(2, 1, 6, 4), scored] {
        scheduler.submit(request).unwrap();
    }
    while scheduler.crowd().n_streaming < 3 {
        drive::step(&mut scheduler, &mut executor).unwrap();
    }
    let ids = [1, 2, 3].map(|id| sequence(id, 0));
    // A stop token that may not come yet is left to the next draw, which will not draw it.
    let early = scheduler.force(ids[0], &[7, 9, 7]);
    assert_eq!(tokens_of(&early, ids[0]), [7]);
    assert_eq!(scheduler.force(ids[0], &[9]), []);
    let ended = scheduler.force(ids[0], &[7, 7, 9, 7]);
    assert_eq!(tokens_of(&ended, ids[0]), [7, 7, 9]);
    assert_eq!(end_of(&ended, ids[0]).0, FinishReason::Stop);
    let long = scheduler.force(ids[1], &FORCED);
    assert!(tokens_of(&long, ids[1]).len() < 4);
    assert_eq!(end_of(&long, ids[1]).0, FinishReason::Length);
    assert_eq!(scheduler.force(ids[2], &FORCED), [], "it reports them");
    for id in &ids[..2] {
        assert_eq!(scheduler.force(*id, &FORCED), [], "it has ended");
    }
    scheduler.check().unwrap();
    let rest = drive::run(&mut scheduler, &mut executor);
    let ends = |event: &Event| matches!(event, Event::Finished { .. });
    assert_eq!(rest.iter().filter(|event| ends(event)).count(), 1);
}

#[test]
fn forced_tokens_leave_one_to_each_stream_and_half_to_prompts() {
    let (mut scheduler, mut executor) = machine(CONFIG);
    scheduler.submit(request(1, 0, 6, 60)).unwrap();
    scheduler.submit(request(2, 1, 6, 60)).unwrap();
    drive::step(&mut scheduler, &mut executor).unwrap();
    scheduler.force(sequence(1, 0), &FORCED);
    scheduler.submit(request(3, 2, 40, 1)).unwrap();
    drive::step(&mut scheduler, &mut executor).unwrap();
    let batch = executor.batches.last().unwrap();
    let shares: Vec<_> = batch
        .rows
        .iter()
        .map(|row| (row.sequence.request.0, row.tokens.len()))
        .collect();
    // Of sixteen, one goes to each stream.
    assert_eq!(shares, [(2, 1), (1, 1 + 7), (3, 7)]);
    assert!(batch.rows[1].sample.is_none(), "more is to be computed");
    // The rest of them, 21 with the one before, is a stream's still.
    assert_eq!(scheduler.crowd().n_streaming, 2);
}

#[test]
fn forced_tokens_of_a_lower_class_keep_nothing_from_prompts_of_a_higher() {
    for (stream, prompt, shares) in [
        (Priority::Low, Priority::High, [(1, 1), (2, 15)]),
        (Priority::Normal, Priority::High, [(1, 1), (2, 15)]),
        (Priority::Normal, Priority::Normal, [(1, 1 + 7), (2, 8)]),
        // What is of a higher class goes first.
        (Priority::High, Priority::Normal, [(1, 16), (2, 0)]),
    ] {
        let (mut scheduler, mut executor) = machine(CONFIG);
        let of_class = |priority, request| Request {
            priority,
            ..request
        };
        let streaming = of_class(stream, request(1, 0, 6, 60));
        scheduler.submit(streaming).unwrap();
        drive::step(&mut scheduler, &mut executor).unwrap();
        scheduler.force(sequence(1, 0), &FORCED);
        let prompting = of_class(prompt, request(2, 1, 40, 1));
        scheduler.submit(prompting).unwrap();
        drive::step(&mut scheduler, &mut executor).unwrap();
        let rows = &executor.batches.last().unwrap().rows;
        for (id, n_tokens) in shares {
            let row = rows.iter().find(|row| row.sequence == sequence(id, 0));
            let n_planned = row.map_or(0, |row| row.tokens.len());
            assert_eq!(n_planned, n_tokens, "{stream:?} and {prompt:?}: {id}");
        }
    }
}
