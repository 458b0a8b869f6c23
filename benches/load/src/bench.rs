//! `understudy bench`: the loads that the flags describe, one after the other.

use std::sync::Arc;
use std::time::Duration;

use crate::args::{BenchArgs, Gaps};
use crate::arrivals::Arrivals;
use crate::body::{Form, PromptAs};
use crate::connection::Connections;
use crate::drive::drive;
use crate::error::LoadError;
use crate::outcome::Outcome;
use crate::probe;
use crate::progress::Progress;
use crate::prompt::TokensOfWords;
use crate::rng::Rng;
use crate::summary::Summary;
use crate::target::Target;
use crate::trace::{self, Recorded};
use crate::workload::{Mix, Session};

/// One load and what came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    pub summary: Summary,
    /// Without those that only warmed up.
    pub outcomes: Vec<Outcome>,
}

/// A server and work for it, ready to be sent.
#[derive(Debug)]
pub struct Bench {
    connections: Arc<Connections>,
    form: Form,
    mix: Mix,
    trace: Vec<Recorded>,
    args: BenchArgs,
}

impl Bench {
    /// Reads the flags, asks the server for its model and how it counts words.
    pub async fn new(args: BenchArgs) -> Result<Self, LoadError> {
        args.check().map_err(LoadError::Options)?;
        let timeout = Duration::from_secs_f64(args.timeout);
        let target = Target::new(&args.base_url, args.api_key.clone(), timeout)?;
        let connections = Arc::new(Connections::new(target));
        let mut models = args.model.clone();
        if models.is_empty() {
            models.push(probe::first_model(&connections).await?);
        }
        let work = &args.work;
        let mut form = Form {
            endpoint: args.endpoint,
            prompt_as: args.prompt_as(),
            is_stream: args.is_stream(),
            ignore_eos: !work.stop_at_eos,
            temperature: work.temperature,
            extra: work.extra_body.clone().unwrap_or_default(),
            count: TokensOfWords {
                around: 0.0,
                per_word: 1.0,
            },
        };
        if form.prompt_as == PromptAs::Text {
            form.count = probe::count_words(&connections, &form, &models[0]).await?;
        }
        let mix = Mix {
            prompt: work.prompt_tokens,
            output: work.output_tokens,
            n_shared: work.shared_prefix,
            n_groups: work.prefix_groups,
            turns: work.turns,
            think_time: Duration::from_secs_f64(work.think_time),
            models,
            zipf: work.zipf,
            structured: work.structured,
        };
        let trace = match &args.when.trace {
            Some(path) => trace::read(path, args.when.trace_speed)?,
            None => Vec::new(),
        };
        Ok(Self {
            connections,
            form,
            mix,
            trace,
            args,
        })
    }

    /// The loads of a sweep, or the only one.
    #[must_use]
    pub fn loads(&self) -> Vec<Arrivals> {
        let when = &self.args.when;
        if !self.trace.is_empty() {
            let times = self.trace.iter().map(|recorded| recorded.at);
            return vec![Arrivals::Trace(times.collect())];
        }
        if when.rate.is_empty() {
            let clients: &[usize] = match when.concurrency.as_slice() {
                [] => &[1],
                clients => clients,
            };
            let load = |&n_clients: &usize| Arrivals::Closed { n_clients };
            return clients.iter().map(load).collect();
        }
        let load = |&rate: &f64| match when.gaps {
            Gaps::Constant => Arrivals::Constant { rate },
            Gaps::Poisson | Gaps::Gamma => Arrivals::Gamma {
                rate,
                shape: when.burstiness,
            },
        };
        when.rate.iter().map(load).collect()
    }

    /// The sessions of the load number `load_idx`, those that warm up included. Each load has a seed
    /// of its own, so that the server's cache does not know its prompts from the one before.
    #[must_use]
    pub fn sessions(&self, arrivals: &Arrivals, load_idx: usize) -> Vec<Session> {
        let when = &self.args.when;
        let seed = Rng::fork(when.seed, !(load_idx as u64)).bits();
        let n = when.requests + when.warmup;
        if matches!(arrivals, Arrivals::Trace(_)) {
            return self.mix.replay(&self.trace, n, seed);
        }
        self.mix.sessions(arrivals, n, seed)
    }

    /// Sends the load number `load_idx` and waits for its end.
    pub async fn measure(&self, arrivals: &Arrivals, load_idx: usize) -> Measured {
        let sessions = self.sessions(arrivals, load_idx);
        let n_requests = sessions.iter().map(|session| session.turns.len()).sum();
        let name = arrivals.name();
        let progress = Progress::new(n_requests, &name, self.args.no_progress);
        let n_clients = match arrivals {
            Arrivals::Closed { n_clients } => Some(*n_clients),
            _ => None,
        };
        let mut outcomes = drive(
            Arc::clone(&self.connections),
            self.form.clone(),
            sessions,
            n_clients.unwrap_or_default(),
            self.args.when.stop(),
            progress,
        )
        .await;
        outcomes.retain(|outcome| outcome.session >= self.args.when.warmup);
        let summary = Summary {
            load: name,
            offered_rate: arrivals.rate(),
            n_clients,
            ..Summary::of(&outcomes, self.args.slo.as_ref())
        };
        Measured { summary, outcomes }
    }

    /// All loads, one after the other.
    pub async fn run(&self) -> Vec<Measured> {
        let mut all = Vec::new();
        for (i, arrivals) in self.loads().iter().enumerate() {
            all.push(self.measure(arrivals, i).await);
        }
        all
    }

    #[must_use]
    pub fn args(&self) -> &BenchArgs {
        &self.args
    }

    /// What is asked for, in words.
    #[must_use]
    pub fn title(&self) -> String {
        let url = self.connections.target().url();
        format!("{} at {url}", self.mix.models.join(", "))
    }
}
