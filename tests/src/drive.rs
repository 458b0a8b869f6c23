//! The plainest engine: steps until there is nothing to do.

use std::collections::VecDeque;

use scheduler::{Batch, Event, Executor, Scheduler, Ticket};

/// Runs one step, checking all invariants around it. `None` when there is nothing to do.
///
/// # Panics
/// If an invariant is broken.
pub fn step(scheduler: &mut Scheduler, executor: &mut dyn Executor) -> Option<Vec<Event>> {
    let batch = scheduler.begin_step()?;
    check(scheduler);
    let events = match executor.execute(&batch) {
        Ok(sampled) => scheduler.end_step(sampled),
        Err(_) => scheduler.fail_step(),
    };
    check(scheduler);
    Some(events)
}

/// Runs all steps that there are to run, and gives all their events in order.
///
/// # Panics
/// If an invariant is broken.
pub fn run(scheduler: &mut Scheduler, executor: &mut dyn Executor) -> Vec<Event> {
    std::iter::from_fn(|| step(scheduler, executor))
        .flatten()
        .collect()
}

/// As [`run`], with the next step begun before one ends wherever that can be.
///
/// # Panics
/// If an invariant is broken.
pub fn run_ahead(scheduler: &mut Scheduler, executor: &mut dyn Executor) -> Vec<Event> {
    let mut flying: VecDeque<(Batch, Ticket)> = VecDeque::new();
    let mut events = Vec::new();
    loop {
        if flying.is_empty() {
            let Some(batch) = scheduler.begin_step() else {
                return events;
            };
            start(batch, executor, &mut flying);
        }
        if flying.len() == 1
            && let Some(batch) = scheduler.begin_ahead_within(usize::MAX)
        {
            start(batch, executor, &mut flying);
        }
        check(scheduler);
        let (batch, ticket) = flying.pop_front().expect("one is in flight");
        events.extend(match executor.finish(ticket, &batch) {
            Ok(sampled) => scheduler.end_step(sampled),
            Err(_) => scheduler.fail_step(),
        });
        check(scheduler);
    }
}

fn start(batch: Batch, executor: &mut dyn Executor, flying: &mut VecDeque<(Batch, Ticket)>) {
    let ticket = executor.start(&batch).expect("it is told of as it ends");
    flying.push_back((batch, ticket));
}

fn check(scheduler: &Scheduler) {
    if let Err(broken) = scheduler.check() {
        panic!("{broken}");
    }
}
