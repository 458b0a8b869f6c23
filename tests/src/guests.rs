//! Batch work takes only what the others leave: traffic is served in the very same steps whether
//! batch work is there or not. (What batch work may take is cached blocks, so the cache is off,
//! and the seat of the elder, so the age bound is out of reach.)

use scheduler::{BatchRow, Executor, Priority, Request, RequestId, Scheduler, SequenceId};

use crate::fake::{FakeConfig, FakeExecutor};
use crate::forcing::Follower;
use crate::record::ensure;
use crate::rng::Rng;
use crate::simulation::{Report, StepLine};
use crate::traffic::{self, Traffic};

/// A row as far as the schedule goes.
type Place = (SequenceId, u32, usize);

pub(crate) fn run(seed: u64, watch: &mut dyn FnMut(&StepLine)) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    let mut traffic = traffic::draw(&mut rng);
    traffic.config.prefix_cache = false;
    traffic.config.age_bound_steps = 1_000_000_000;
    for (_, request) in &mut traffic.arrivals {
        // Choices share blocks among themselves, which a cache does for them.
        request.n = 1;
        let is_guest = rng.chance(500);
        if is_guest {
            request.priority = Priority::Batch;
        } else if request.priority == Priority::Batch {
            request.priority = Priority::Normal;
        }
    }
    let mut report = Report::default();
    let with = serve(&traffic, |_| true, watch, &mut report)?;
    let is_regular = |request: &Request| request.priority != Priority::Batch;
    let without = serve(&traffic, is_regular, &mut |_| (), &mut report)?;
    for (tick, (with, without)) in with.iter().zip(&without).enumerate() {
        ensure!(
            with == without,
            "tick {tick}: {with:?} beside batch work, {without:?} without"
        );
    }
    let rest = with.iter().skip(without.len()).flatten().next();
    ensure!(rest.is_none(), "batch work delays {rest:?}");
    Ok(report)
}

/// The regular rows of every tick.
fn serve(
    traffic: &Traffic,
    takes_part: impl Fn(&Request) -> bool,
    watch: &mut dyn FnMut(&StepLine),
    report: &mut Report,
) -> Result<Vec<Vec<Place>>, String> {
    let config = traffic.config;
    let mut scheduler = Scheduler::new(config).map_err(|error| error.to_string())?;
    let mut executor = FakeExecutor::new(FakeConfig {
        block_size: config.block_size,
        n_blocks: config.n_blocks,
        n_vocab: traffic.n_vocab,
        window: config.window,
    });
    let mut arrivals = traffic
        .arrivals
        .iter()
        .filter(|(_, r)| takes_part(r))
        .peekable();
    let mut follower = Follower::new(traffic.forcing);
    let mut ticks: Vec<Vec<Place>> = Vec::new();
    while arrivals.peek().is_some() || !scheduler.is_idle() {
        let tick = ticks.len() as u64;
        ensure!(tick < 100_000, "not done after {tick} ticks");
        while let Some((_, request)) = arrivals.next_if(|(at, _)| *at <= tick) {
            report.n_requests += 1;
            follower.open(request);
            report.n_refused += u64::from(scheduler.submit(request.clone()).is_err());
        }
        let Some(batch) = scheduler.begin_step() else {
            ticks.push(Vec::new());
            continue;
        };
        let sampled = executor
            .execute(&batch)
            .map_err(|error| error.to_string())?;
        let events = scheduler.end_step(sampled);
        let n_events = follower.force(events, &mut scheduler).len();
        scheduler.check()?;
        let is_regular = |row: &&BatchRow| !is_guest(traffic, row.sequence.request);
        let regular = batch.rows.iter().filter(is_regular);
        ticks.push(
            regular
                .map(|r| (r.sequence, r.start, r.tokens.len()))
                .collect(),
        );
        report.n_steps += 1;
        report.n_tokens += batch.n_tokens() as u64;
        watch(&StepLine {
            step: tick,
            n_rows: batch.rows.len(),
            n_tokens: batch.n_tokens(),
            n_events,
            failed: false,
            flows: Vec::new(),
            stats: scheduler.stats(),
        });
    }
    report.n_preemptions += scheduler.stats().n_preemptions;
    report.n_tokens_lost += scheduler.stats().n_tokens_lost;
    report.n_forced += scheduler.stats().n_tokens_forced;
    Ok(ticks)
}

/// Ids are places in the order of arrival.
fn is_guest(traffic: &Traffic, id: RequestId) -> bool {
    traffic.arrivals[id.0 as usize].1.priority == Priority::Batch
}
