//! Pacing and fairness together, in the time of a machine that is computed and not measured.

use std::time::Duration;

use scheduler::{Event, FlowId, Request, RequestId, Sampled, Scheduler, SchedulerConfig};

use super::{Load, Pace};

/// Seconds: about those of a model of 135 million parameters on two cores.
const STEP: f64 = 4.7e-3;
const SINGLE: f64 = 0.4e-3;
const CHUNKED: f64 = 0.38e-3;

struct Machine {
    scheduler: Scheduler,
    pace: Pace,
    /// Seconds since the start.
    now: f64,
    /// When each token came, by request.
    tokens: Vec<Vec<f64>>,
}

impl Machine {
    fn new(fairness: bool, head_start: usize) -> Self {
        let scheduler = Scheduler::new(SchedulerConfig {
            block_size: 16,
            n_blocks: 4096,
            max_batched_tokens: 512,
            max_sequences: 64,
            max_model_len: 8192,
            window: None,
            prefix_cache: true,
            fairness,
            head_start,
            age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
        });
        Self {
            scheduler: scheduler.unwrap(),
            pace: Pace::new(Some(2.0)),
            now: 0.0,
            tokens: Vec::new(),
        }
    }

    /// Whose number is its place in `tokens`.
    fn submit(&mut self, flow: u64, n_prompt: usize, max_new_tokens: u32) -> usize {
        let id = self.tokens.len();
        let first = 10 * id as u32;
        self.tokens.push(Vec::new());
        let prompt = (first..first + n_prompt as u32).collect();
        let request = Request {
            flow: FlowId(flow),
            ..Request::new(RequestId(id as u64), prompt, max_new_tokens)
        };
        self.scheduler.submit(request).unwrap();
        id
    }

    fn step(&mut self) -> bool {
        let budget = self.pace.budget(self.scheduler.crowd());
        let Some(batch) = self.scheduler.begin_step_within(budget) else {
            return false;
        };
        let load = Load::of(&batch);
        let took = STEP + SINGLE * load.n_singles as f64 + CHUNKED * load.n_chunked as f64;
        self.now += took;
        self.pace.note(load, Duration::from_secs_f64(took));
        let drawn = batch.rows.iter().map(|row| Sampled::drawn(row, 1));
        for event in self.scheduler.end_step(drawn.collect()) {
            if let Event::Token { sequence, .. } = event {
                self.tokens[sequence.request.0 as usize].push(self.now);
            }
        }
        true
    }

    fn run_until(&mut self, end: f64) {
        while self.now < end && self.step() {}
        self.now = self.now.max(end);
    }

    fn run(&mut self) {
        while self.step() {}
    }
}

/// The longer of the times to the first token of a flow's two requests, beside `n_others` of
/// another flow that came half a second before, at the worst moment of a step.
fn longest_wait(machine: &mut Machine, n_others: usize) -> f64 {
    let moments = (0..12).map(|moment| 0.5 + 0.03 * f64::from(moment));
    moments
        .map(|ahead| wait(machine, n_others, ahead))
        .fold(0.0, f64::max)
}

/// The same when the others came `ahead` seconds before.
fn wait(machine: &mut Machine, n_others: usize, ahead: f64) -> f64 {
    for _ in 0..n_others {
        machine.submit(1, 128, 32);
    }
    let came = machine.now + ahead;
    machine.run_until(came);
    let ids = [machine.submit(2, 128, 32), machine.submit(2, 128, 32)];
    machine.run();
    let waits = ids.map(|id| machine.tokens[id][0] - came);
    waits[0].max(waits[1])
}

#[test]
fn a_flow_of_two_waits_at_most_twice_as_long_beside_fifty_of_another() {
    // Measured once the pace is known.
    let mut fair = Machine::new(true, SchedulerConfig::HEAD_START);
    longest_wait(&mut fair, 50);
    let alone = longest_wait(&mut fair, 0);
    for n_others in [5, 20, 50, 200] {
        let beside = longest_wait(&mut fair, n_others);
        assert!(beside < 2.0 * alone, "{n_others}: {beside} and {alone} s");
    }
    let mut unfair = Machine::new(false, SchedulerConfig::HEAD_START);
    longest_wait(&mut unfair, 50);
    let beside = longest_wait(&mut unfair, 50);
    assert!(beside > 20.0 * alone, "without fairness {beside} s");
    let mut strict = Machine::new(true, 0);
    longest_wait(&mut strict, 50);
    let beside = longest_wait(&mut strict, 50);
    assert!(beside > 2.0 * alone, "without a head start {beside} s");
}

#[test]
fn a_stream_with_one_token_more_is_a_stream_alone() {
    let mut machine = Machine::new(true, 0);
    let (one, two) = (machine.submit(1, 1, 4), machine.submit(1, 2, 4));
    assert_eq!((one, two), (0, 1));
    let batch = machine.scheduler.begin_step_within(usize::MAX).unwrap();
    let load = Load::of(&batch);
    let rows: Vec<usize> = batch.rows.iter().map(|row| row.tokens.len()).collect();
    assert_eq!(rows, [1, 2]);
    assert_eq!((load.n_singles, load.n_chunked), (3, 0));
}

#[test]
fn streams_do_not_stutter_by_a_long_prompt_of_another_flow() {
    let mut machine = Machine::new(true, SchedulerConfig::HEAD_START);
    let streams: Vec<usize> = (0..8).map(|_| machine.submit(1, 64, 4000)).collect();
    machine.run_until(3.0);
    let (quiet, sent) = (machine.now - 1.0, machine.now);
    let long = machine.submit(2, 6000, 1);
    while machine.tokens[long].is_empty() {
        machine.step();
    }
    let gap = |from: f64, to: f64| {
        let times = streams.iter().map(|id| &machine.tokens[*id]);
        let gaps = times.flat_map(|times| times.windows(2));
        let within = gaps.filter(|pair| pair[1] > from && pair[1] <= to);
        within.map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    };
    let (before, beside) = (gap(quiet, sent), gap(sent, machine.now));
    assert!(beside < 3.0 * before, "{beside} and {before} s");
    assert!(beside > 1.5 * before, "the prompt gets its share");
}
