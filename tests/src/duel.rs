//! Flows against each other: whoever always has work gets its share, whatever the others send.
//!
//! The bound, after theorem 4.4 of Sheng et al. (OSDI 2024). Let `f` and `g` always have work
//! waiting. While `f` was charged more than `g`, no sequence of `f` is admitted and none gets a
//! chunk before `g` has had its turn. So `f` is ahead of `g` by no more than what its sequences
//! that run already come to cost: at most `n_rows` and the one whose turn made the difference,
//! each at most `2 L` (`L` tokens computed, fewer than `L` drawn). With
//! `U = 2 L (n_rows + 1) + n_budget`, services differ by at most `U` in either direction, and
//! over any interval the services received differ by at most `2 U`, and by the head start `H` of
//! `g` besides where it comes in the interval. The seat of the elder adds
//! nothing as long as it is given more rarely than it takes `g` to catch up.
//!
//! A flow that comes and goes gets no more than one that stays, by the same bound.

use std::collections::{BTreeMap, VecDeque};

use scheduler::{
    Batch, Executor, FlowId, Request, RequestId, Scheduler, SchedulerConfig, Ticket, TokenId,
};

use crate::fake::{FakeConfig, FakeExecutor};
use crate::record::ensure;
use crate::rng::Rng;
use crate::simulation::{Report, StepLine};

/// More waiting requests than a step can admit, so that a flow never runs out of work.
const N_BACKLOG: usize = 6;
const N_STEPS: u64 = 400;

/// One flow's habits.
#[derive(Clone, Debug)]
struct Contender {
    flow: FlowId,
    n_prompt: usize,
    max_new_tokens: u32,
    /// It sends nothing before this step.
    joins: u64,
    /// It pauses for as many steps after each burst.
    pause: u64,
    /// Its requests that wait as a step begins, while it sends.
    backlog: usize,
    n_waiting: usize,
    /// Tokens computed and drawn for it so far.
    service: u64,
    /// All services as it joined.
    at_join: Vec<u64>,
}

#[derive(Debug)]
struct Duel {
    config: SchedulerConfig,
    contenders: Vec<Contender>,
    scheduler: Scheduler,
    executor: FakeExecutor,
    /// Batches that were started, the oldest first.
    flying: VecDeque<(Batch, Ticket)>,
    /// Whether steps are begun while others are in flight.
    overlaps: bool,
    /// Which contender a request is of, and whether it waits to be run for the first time.
    requests: BTreeMap<RequestId, (usize, bool)>,
    rng: Rng,
    next_id: u64,
    report: Report,
}

/// What a duel came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Service of each flow that always had work, from the step at which the last joined.
    pub services: Vec<u64>,
    /// The bound on their differences.
    pub bound: u64,
}

/// Runs the duel of a seed.
pub(crate) fn run(seed: u64, watch: &mut dyn FnMut(&StepLine)) -> Result<Report, String> {
    let mut duel = Duel::draw(Rng::new(seed), true)?;
    for step in 0..N_STEPS {
        duel.step(step, watch)?;
        duel.check(step)
            .map_err(|broken| format!("step {step}: {broken}"))?;
    }
    Ok(duel.report)
}

/// Runs the duel of a seed to its end, fair or not, and compares nothing.
///
/// # Errors
/// The scheduler's books are wrong.
pub fn outcome(seed: u64, fairness: bool) -> Result<Outcome, String> {
    let mut duel = Duel::draw(Rng::new(seed), fairness)?;
    for step in 0..N_STEPS {
        duel.step(step, &mut |_| ())?;
    }
    let last = duel.contenders.iter().max_by_key(|c| c.joins);
    let at_join = last.map(|last| last.at_join.clone()).unwrap_or_default();
    let stays = duel
        .contenders
        .iter()
        .zip(at_join)
        .filter(|(c, _)| c.stays());
    Ok(Outcome {
        services: stays.map(|(c, before)| c.service - before).collect(),
        bound: duel.bound(),
    })
}

impl Duel {
    fn draw(mut rng: Rng, fairness: bool) -> Result<Self, String> {
        let longest = rng.range(6, 16);
        let block_size = rng.range(1, 4);
        let max_sequences = rng.range(1, 3);
        let n_least = longest.div_ceil(block_size);
        let config = SchedulerConfig {
            block_size,
            n_blocks: rng.range(n_least, n_least * 4),
            max_batched_tokens: rng.range(max_sequences, 12),
            max_sequences,
            max_model_len: longest,
            window: None,
            prefix_cache: false,
            fairness,
            head_start: *rng.pick(&[0, 0, 10, 100]),
            age_bound_steps: 100 * longest,
        };
        let n = rng.range(2, 4);
        let contenders = (0..n)
            .map(|i| Contender::draw(&mut rng, i, longest))
            .collect();
        Ok(Self {
            scheduler: Scheduler::new(config).map_err(|error| error.to_string())?,
            executor: FakeExecutor::new(FakeConfig {
                block_size,
                n_blocks: config.n_blocks,
                n_vocab: 4,
                window: config.window,
            })
            .with_two_in_flight(),
            flying: VecDeque::new(),
            overlaps: rng.chance(500),
            config,
            contenders,
            requests: BTreeMap::new(),
            rng,
            next_id: 0,
            report: Report::default(),
        })
    }

    fn bound(&self) -> u64 {
        let n_rows = self.config.max_sequences as u64;
        let longest = self.config.max_model_len as u64;
        let n_budget = self.config.max_batched_tokens as u64;
        2 * (2 * longest * (n_rows + 1) + n_budget) + self.config.head_start as u64
    }

    fn step(&mut self, step: u64, watch: &mut dyn FnMut(&StepLine)) -> Result<(), String> {
        self.send(step);
        if self.flying.is_empty() {
            let Some(batch) = self.scheduler.begin_step() else {
                return Ok(());
            };
            self.start(batch)?;
        }
        if self.overlaps
            && let Some(batch) = self.scheduler.begin_ahead_within(usize::MAX)
        {
            self.start(batch)?;
        }
        let (batch, ticket) = self.flying.pop_front().ok_or("nothing is in flight")?;
        let mut flows: BTreeMap<FlowId, usize> = BTreeMap::new();
        for row in &batch.rows {
            let (i, _) = self.requests[&row.sequence.request];
            *flows.entry(self.contenders[i].flow).or_default() += row.tokens.len();
        }
        let sampled = self.executor.finish(ticket, &batch);
        let sampled = sampled.map_err(|error| error.to_string())?;
        let n_events = self.scheduler.end_step(sampled).len();
        self.scheduler.check()?;
        self.report.n_steps += 1;
        watch(&StepLine {
            step,
            n_rows: batch.rows.len(),
            n_tokens: batch.n_tokens(),
            n_events,
            failed: false,
            flows: flows.into_iter().collect(),
            stats: self.scheduler.stats(),
        });
        Ok(())
    }

    /// Starts a batch, whose tokens are service from here on.
    fn start(&mut self, batch: Batch) -> Result<(), String> {
        for row in &batch.rows {
            let (i, waits) = self
                .requests
                .get_mut(&row.sequence.request)
                .ok_or("an unknown request")?;
            let contender = &mut self.contenders[*i];
            contender.n_waiting -= usize::from(std::mem::take(waits));
            contender.service += (row.tokens.len() + usize::from(row.sample.is_some())) as u64;
        }
        self.report.n_tokens += batch.n_tokens() as u64;
        let ticket = self.executor.start(&batch);
        let ticket = ticket.map_err(|error| error.to_string())?;
        self.flying.push_back((batch, ticket));
        Ok(())
    }

    fn send(&mut self, step: u64) {
        let services: Vec<u64> = self.contenders.iter().map(|c| c.service).collect();
        for i in 0..self.contenders.len() {
            let contender = &mut self.contenders[i];
            if contender.joins == step {
                contender.at_join.clone_from(&services);
            }
            if !contender.is_sending(step) {
                continue;
            }
            while self.contenders[i].n_waiting < self.contenders[i].backlog {
                self.contenders[i].n_waiting += 1;
                let request = self.contenders[i].request(self.next_id, &mut self.rng);
                self.requests.insert(request.id, (i, true));
                self.next_id += 1;
                self.report.n_requests += 1;
                self.scheduler.submit(request).expect("it fits alone");
            }
        }
    }

    fn check(&self, step: u64) -> Result<(), String> {
        let here = |c: &&Contender| c.joins <= step;
        for one in self.contenders.iter().filter(here) {
            for (j, other) in self.contenders.iter().enumerate().filter(|(_, c)| here(c)) {
                // Nobody gets more than one who always has work, since both are there.
                if !other.stays() || one.flow == other.flow {
                    continue;
                }
                let i = (one.flow.0 - 1) as usize;
                let since = if one.joins > other.joins { one } else { other };
                let got = one.service - since.at_join[i];
                let others = other.service - since.at_join[j];
                ensure!(
                    got <= others + self.bound(),
                    "{} was served {got} and {} {others}, the bound is {}",
                    one.flow,
                    other.flow,
                    self.bound()
                );
            }
        }
        Ok(())
    }
}

impl Contender {
    fn draw(rng: &mut Rng, i: usize, longest: usize) -> Self {
        let n_prompt = rng.range(1, longest - 1);
        Self {
            flow: FlowId(i as u64 + 1),
            n_prompt,
            max_new_tokens: rng.range(1, longest - n_prompt) as u32,
            joins: if i == 0 { 0 } else { *rng.pick(&[0, 0, 150]) },
            // Somebody stays, or there is nothing to compare.
            pause: if i == 0 {
                0
            } else {
                *rng.pick(&[0, 0, 1, 5, 40])
            },
            backlog: if i == 0 {
                N_BACKLOG
            } else {
                *rng.pick(&[N_BACKLOG, N_BACKLOG, 1])
            },
            n_waiting: 0,
            service: 0,
            at_join: Vec::new(),
        }
    }

    /// Whether it always has work waiting once it has joined.
    fn stays(&self) -> bool {
        self.pause == 0 && self.backlog == N_BACKLOG
    }

    fn is_sending(&self, step: u64) -> bool {
        let in_pause = self.pause > 0 && (step / self.pause) % 2 == 1;
        step >= self.joins && !in_pause
    }

    fn request(&self, id: u64, rng: &mut Rng) -> Request {
        let prompt = (0..self.n_prompt).map(|_| rng.range(0, 3) as TokenId);
        Request {
            flow: self.flow,
            ..Request::new(RequestId(id), prompt.collect(), self.max_new_tokens)
        }
    }
}
