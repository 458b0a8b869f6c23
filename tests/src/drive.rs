//! The plainest engine: steps until there is nothing to do.

use scheduler::{Event, Executor, Scheduler};

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

fn check(scheduler: &Scheduler) {
    if let Err(broken) = scheduler.check() {
        panic!("{broken}");
    }
}
