//! One server in simulated time: the real scheduler and the real pacing of its steps; only the
//! executor is a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::Result;
use load::{Outcome, Session, Usage};
use scheduler::{Batch, Event, Request, RequestId, Scheduler, SchedulerConfig};
use understudy::engine::pace::{Load, Pace};

use super::cost::Cost;
use super::shape::Shape;
use crate::steps::made_up;

/// A server and the requests that it has.
#[derive(Debug)]
pub(crate) struct Replica {
    scheduler: Scheduler,
    pace: Pace,
    cost: Cost,
    /// When its last step ended.
    pub(crate) now: f64,
    /// Requests that come during the next step, in the order of their times.
    coming: VecDeque<(f64, Request)>,
    running: BTreeMap<RequestId, Outcome>,
    /// Seconds that steps took, and how many there were.
    pub(crate) busy: f64,
    pub(crate) n_steps: usize,
}

impl Replica {
    pub(crate) fn new(config: SchedulerConfig, stretch: Option<f64>, cost: Cost) -> Result<Self> {
        Ok(Self {
            scheduler: Scheduler::new(config)?,
            pace: Pace::new(stretch),
            cost,
            now: 0.0,
            coming: VecDeque::new(),
            running: BTreeMap::new(),
            busy: 0.0,
            n_steps: 0,
        })
    }

    /// The first turn of a session arrives at `at`, which is not before any that came already.
    pub(crate) fn submit(&mut self, number: usize, session: &Session, at: f64) {
        let turn = &session.turns[0];
        let prompt: Arc<[u32]> = load::tokens(&turn.pieces).into();
        let id = RequestId(number as u64);
        let outcome = Outcome {
            session: number,
            turn: 0,
            model: session.model.clone(),
            intended: at,
            sent: at,
            tokens_at: Vec::new(),
            finished: 0.0,
            ended: 0.0,
            is_stream: true,
            usage: Usage {
                n_prompt: prompt.len() as u64,
                ..Usage::default()
            },
            failure: None,
            text: String::new(),
        };
        self.running.insert(id, outcome);
        let n_output = u32::try_from(turn.n_output).unwrap_or(u32::MAX);
        self.coming
            .push_back((at, Request::new(id, prompt, n_output)));
    }

    /// Requests that it has, running or waiting.
    pub(crate) fn n_requests(&self) -> usize {
        self.running.len()
    }

    /// Takes steps until `time`, or until something ends if `time` is infinite; what ended. A step
    /// that has begun is finished: arrivals during it wait for its end, as in the server.
    pub(crate) fn advance(&mut self, time: f64) -> Result<Vec<Outcome>> {
        let mut ended = Vec::new();
        while self.now < time {
            while self.coming.front().is_some_and(|(at, _)| *at <= self.now) {
                if let Some((_, request)) = self.coming.pop_front() {
                    self.scheduler.submit(request)?;
                }
            }
            let budget = self.pace.budget(self.scheduler.crowd());
            match self.scheduler.begin_step_within(budget) {
                Some(batch) => ended.extend(self.step(&batch)),
                None => match self.coming.front() {
                    Some((at, _)) if *at <= time => self.now = *at,
                    // It idles until somebody comes.
                    _ if time.is_finite() => self.now = time,
                    _ => return Ok(ended),
                },
            }
            if time.is_infinite() && !ended.is_empty() {
                break;
            }
        }
        Ok(ended)
    }

    fn step(&mut self, batch: &Batch) -> Vec<Outcome> {
        let took = self.cost.seconds(&Shape::of(batch));
        self.now += took;
        self.busy += took;
        self.n_steps += 1;
        self.pace
            .note(Load::of(batch), std::time::Duration::from_secs_f64(took));
        let events = self.scheduler.end_step(made_up(batch));
        let mut ended = Vec::new();
        for event in events {
            match event {
                Event::Token { sequence, .. } => {
                    if let Some(outcome) = self.running.get_mut(&sequence.request) {
                        outcome.tokens_at.push(self.now);
                        outcome.usage.n_output += 1;
                    }
                }
                Event::Finished {
                    sequence,
                    n_cached_tokens,
                    ..
                } => {
                    if let Some(mut outcome) = self.running.remove(&sequence.request) {
                        outcome.usage.n_cached = u64::from(n_cached_tokens);
                        outcome.finished = self.now;
                        outcome.ended = self.now;
                        ended.push(outcome);
                    }
                }
                Event::PromptScored { .. } | Event::Pooled { .. } => {}
            }
        }
        ended
    }
}
