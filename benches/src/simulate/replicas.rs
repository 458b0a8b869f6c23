//! Several modelled servers: what a router that knows prefixes is worth.

use anyhow::Result;
use load::Summary;

use super::gpu::{Device, LLAMA_8B, Traffic, note};
use super::replica::Replica;
use super::router::{Policy, Router};
use super::run::open;
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    traffic: Traffic,
    #[arg(long, default_value_t = 4)]
    replicas: usize,
    /// Requests a second, of all together.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Tokens that prompts of a group begin with alike; a trace has its own.
    #[arg(long, default_value_t = 3000)]
    shared_prefix: usize,
    /// Groups.
    #[arg(long, default_value_t = 64)]
    prefix_groups: usize,
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    anyhow::ensure!(options.replicas > 0, "--replicas must be at least 1");
    let sessions =
        options
            .traffic
            .sessions(options.rate, options.shared_prefix, options.prefix_groups)?;
    let mut report = Report::new("simulate-replicas");
    let mut first_tokens = Vec::new();
    for (name, policy) in [
        ("round robin", Policy::RoundRobin),
        ("least loaded", Policy::LeastLoaded),
        ("knows prefixes", Policy::Prefix),
    ] {
        let replicas = (0..options.replicas).map(|_| options.device.replica(LLAMA_8B));
        let mut replicas: Vec<Replica> = replicas.collect::<Result<_>>()?;
        let mut router = Router::new(policy, options.replicas);
        let summary = Summary::of(&open(&sessions, &mut replicas, &mut router)?, None);
        note(&mut report, name, &summary);
        #[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
        let share = summary.n_cached_tokens as f64 / summary.n_prompt_tokens.max(1) as f64;
        report.note(
            format!("{name}: prompts from the cache"),
            100.0 * share,
            "%",
        );
        first_tokens.push(summary.ttft_ms.p50);
    }
    let gain = first_tokens[0] / first_tokens[2].max(1e-9);
    report.note("first token p50: round robin / knows prefixes", gain, "x");
    Ok(report)
}
