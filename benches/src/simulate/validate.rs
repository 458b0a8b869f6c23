//! Predicted against measured, on this machine.
//!
//! Calibration: steps of the runner alone, and one load through the server for what its other
//! threads take. Then other loads are predicted, and run.

use std::time::Duration;

use anyhow::{Result, ensure};
use load::{Arrivals, Bench, BenchArgs, Endpoint, Length, Measured, Session, Summary};

use super::calibrate;
use super::config;
use super::cost::{Cost, Curves};
use super::replica::Replica;
use super::router::{Policy, Router};
use super::run::{closed, open};
use crate::http::Client;
use crate::report::Report;
use crate::server::{Product, Server};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sequences that run at a time.
    #[arg(long, default_value_t = 32)]
    sequences: usize,
    /// How much of each load, relative to the usual.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[arg(long)]
    threads: Option<usize>,
    /// Errors of throughput up to this are fine, in percent.
    #[arg(long, default_value_t = 15.0)]
    bound: f64,
}

/// A load, in a closed loop or at a share of the throughput that is predicted for 32 clients.
struct Load {
    name: &'static str,
    n_clients: Option<usize>,
    n: usize,
    prompt: Length,
    output: Length,
    n_shared: usize,
}

/// What the costs beside steps are taken from. None of the loads below.
const CALIBRATION: Load = Load {
    name: "calibration",
    n_clients: Some(8),
    n: 48,
    prompt: Length::Uniform(32, 224),
    output: Length::Uniform(32, 96),
    n_shared: 0,
};

fn loads() -> [Load; 5] {
    let load = |name, n_clients, n, prompt, output, n_shared| Load {
        name,
        n_clients,
        n,
        prompt,
        output,
        n_shared,
    };
    let log = Length::LogNormal(200.0, 0.8);
    let answers = Length::Uniform(32, 96);
    [
        load(
            "one client",
            Some(1),
            12,
            Length::Fixed(128),
            Length::Fixed(64),
            0,
        ),
        load(
            "long answers",
            Some(16),
            64,
            Length::Fixed(64),
            Length::Fixed(128),
            0,
        ),
        load(
            "long prompts",
            Some(4),
            40,
            Length::Fixed(768),
            Length::Fixed(16),
            0,
        ),
        load(
            "shared beginning",
            Some(8),
            64,
            Length::Fixed(64),
            Length::Fixed(64),
            1024,
        ),
        load("Poisson arrivals", None, 100, log, answers, 0),
    ]
}

pub(crate) fn run(product: &Product, options: &Options) -> Result<Report> {
    ensure!(options.scale > 0.0, "--scale must be above 0");
    let mut curves = calibrate::steps(product.model.as_deref(), options.threads)?;
    let n_sequences = options.sequences.to_string();
    let n_threads = options.threads.map(|n| n.to_string());
    let mut flags = vec!["--max-num-seqs", &n_sequences, "--kv-cache-memory", "1GiB"];
    if let Some(n) = &n_threads {
        flags.extend(["--threads", n]);
    }
    let server = product.start(&flags)?;
    let mut report = Report::new("simulate-validate");
    let scene = Scene {
        server: &server,
        n_sequences: options.sequences,
        scale: options.scale,
    };
    scene.calibrate(&mut curves)?;
    report.note("steps in the server, against alone", curves.slowdown, "x");
    report.note("between two steps", curves.between * 1e3, "ms");
    for load in loads() {
        let arrivals = scene.arrivals(&load, &curves)?;
        let measured = scene.measure(&load, &arrivals)?;
        let sessions = scene.sessions(&load, &arrivals)?;
        let predicted = scene.predict(&sessions, &arrivals, &curves)?;
        compare(
            &mut report,
            &load,
            &predicted.summary,
            &measured.summary,
            options.bound,
        );
    }
    Ok(report)
}

/// The server, and how much is sent to it.
struct Scene<'a> {
    server: &'a Server,
    n_sequences: usize,
    scale: f64,
}

impl Scene<'_> {
    fn bench(&self, load: &Load) -> Result<Bench> {
        let mut args = BenchArgs::defaults();
        args.base_url = format!("http://{}/v1", self.server.address);
        args.endpoint = Endpoint::Completions;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a small count"
        )]
        let n = (load.n as f64 * self.scale).ceil() as usize;
        args.when.requests = n;
        args.work.prompt_tokens = load.prompt;
        args.work.output_tokens = load.output;
        args.work.shared_prefix = load.n_shared;
        // A seed of its own for each, so that the cache knows nothing of the next.
        args.when.seed = load.name.bytes().map(u64::from).sum();
        let bench = load::runtime()?.block_on(Bench::new(args))?;
        Ok(bench)
    }

    fn sessions(&self, load: &Load, arrivals: &Arrivals) -> Result<Vec<Session>> {
        Ok(self.bench(load)?.sessions(arrivals, 0))
    }

    fn measure(&self, load: &Load, arrivals: &Arrivals) -> Result<Measured> {
        let bench = self.bench(load)?;
        let measured = load::runtime()?.block_on(bench.measure(arrivals, 0));
        let summary = &measured.summary;
        ensure!(summary.n_failed == 0, "{}: {:?}", load.name, summary.errors);
        Ok(measured)
    }

    /// A closed loop, or Poisson arrivals at seven tenths of what is predicted for many clients.
    fn arrivals(&self, load: &Load, curves: &Curves) -> Result<Arrivals> {
        if let Some(n_clients) = load.n_clients {
            return Ok(Arrivals::Closed { n_clients });
        }
        let full = Arrivals::Closed {
            n_clients: self.n_sequences,
        };
        let sessions = self.sessions(load, &full)?;
        let most = self
            .predict(&sessions, &full, curves)?
            .summary
            .requests_per_s;
        Ok(Arrivals::Gamma {
            rate: 0.7 * most,
            shape: 1.0,
        })
    }

    fn predict(
        &self,
        sessions: &[Session],
        arrivals: &Arrivals,
        curves: &Curves,
    ) -> Result<Predicted> {
        #[expect(clippy::cast_possible_truncation, reason = "a count of blocks")]
        let n_blocks = self.server.n_blocks as usize;
        let config = config(n_blocks, self.n_sequences);
        let cost = Cost::Measured(curves.clone());
        let mut replica = Replica::new(config, Some(2.0), cost)?;
        let outcomes = if let Arrivals::Closed { n_clients } = arrivals {
            closed(sessions, *n_clients, &mut replica)?
        } else {
            let mut router = Router::new(Policy::RoundRobin, 1);
            open(sessions, std::slice::from_mut(&mut replica), &mut router)?
        };
        Ok(Predicted {
            summary: Summary::of(&outcomes, None),
            busy: replica.busy,
            n_steps: replica.n_steps,
        })
    }

    /// Finds what steps take longer in the server, and what is between them, by one load.
    fn calibrate(&self, curves: &mut Curves) -> Result<()> {
        let arrivals = self.arrivals(&CALIBRATION, curves)?;
        // The first run is a warm-up.
        self.measure(&CALIBRATION, &arrivals)?;
        let client = self.server.client();
        let before = Steps::read(&client)?;
        let load = Load {
            name: "calibration, again",
            ..CALIBRATION
        };
        let measured = self.measure(&load, &arrivals)?;
        let after = Steps::read(&client)?;
        let sessions = self.sessions(&load, &arrivals)?;
        let predicted = self.predict(&sessions, &arrivals, curves)?;
        let (seconds, n) = (after.seconds - before.seconds, after.n - before.n);
        #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
        let n_predicted = predicted.n_steps as f64;
        ensure!(n > 0.0 && n_predicted > 0.0, "no steps were taken");
        curves.slowdown = (seconds / n) / (predicted.busy / n_predicted);
        // Other numbers of steps for the same tokens mean other steps: of equal work, then.
        curves.slowdown = curves.slowdown.min(2.0 * seconds / predicted.busy);
        curves.between = ((measured.summary.seconds - seconds) / n).max(0.0);
        Ok(())
    }
}

struct Predicted {
    summary: Summary,
    busy: f64,
    n_steps: usize,
}

/// The server's own count of its steps.
struct Steps {
    seconds: f64,
    n: f64,
}

impl Steps {
    fn read(client: &Client) -> Result<Self> {
        // A client has its answer before the engine has told the figures of the last step.
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self {
            seconds: client.metric("understudy_step_seconds_sum")?,
            n: client.metric("understudy_step_seconds_count")?,
        })
    }
}

fn compare(report: &mut Report, load: &Load, predicted: &Summary, measured: &Summary, bound: f64) {
    let name = load.name;
    report.note(
        format!("{name}: measured"),
        measured.output_tokens_per_s,
        "tokens/s",
    );
    report.note(
        format!("{name}: predicted"),
        predicted.output_tokens_per_s,
        "tokens/s",
    );
    let off = |predicted: f64, measured: f64| 100.0 * (predicted / measured - 1.0);
    let throughput = off(predicted.output_tokens_per_s, measured.output_tokens_per_s);
    report.at_most(
        &format!("{name}: error of throughput"),
        throughput.abs(),
        bound,
        "%",
    );
    for (what, predicted, measured) in [
        (
            "first token p50",
            predicted.ttft_ms.p50,
            measured.ttft_ms.p50,
        ),
        (
            "first token p99",
            predicted.ttft_ms.p99,
            measured.ttft_ms.p99,
        ),
        (
            "further token p50",
            predicted.tpot_ms.p50,
            measured.tpot_ms.p50,
        ),
        (
            "whole answer p50",
            predicted.e2e_ms.p50,
            measured.e2e_ms.p50,
        ),
    ] {
        report.note(format!("{name}: {what}, measured"), measured, "ms");
        report.note(format!("{name}: {what}, predicted"), predicted, "ms");
    }
}
