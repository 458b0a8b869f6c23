//! Servers in simulated time: the scheduler and its pacing are the real ones, and a step takes
//! what a cost model says. Validated here against real runs on this CPU, and then used for what is
//! not here: a GPU, and several servers behind a router.

mod calibrate;
mod cost;
mod gpu;
mod replica;
mod replicas;
mod router;
mod run;
mod shape;
mod validate;

use anyhow::Result;
use scheduler::SchedulerConfig;

use crate::report::Report;
use crate::server::Product;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Loads on this machine: predicted against measured.
    Validate(validate::Options),
    /// Llama-3 8B and 70B on a modelled H100, by rate.
    Gpu(gpu::Options),
    /// Several servers: a router that knows prefixes against one that does not.
    Replicas(replicas::Options),
}

pub(crate) fn run(model: Option<&str>, options: &Options) -> Result<Report> {
    match &options.what {
        What::Validate(options) => validate::run(&Product::new(model.map(str::to_owned))?, options),
        What::Gpu(options) => gpu::run(options),
        What::Replicas(options) => replicas::run(options),
    }
}

/// A scheduler as the server sets it up.
fn config(n_blocks: usize, max_sequences: usize) -> SchedulerConfig {
    SchedulerConfig {
        block_size: crate::steps::BLOCK_SIZE,
        n_blocks,
        max_batched_tokens: calibrate::STEP,
        max_sequences,
        max_model_len: n_blocks * crate::steps::BLOCK_SIZE,
        window: None,
        prefix_cache: true,
        fairness: true,
        head_start: SchedulerConfig::HEAD_START,
        age_bound_steps: SchedulerConfig::AGE_BOUND_STEPS,
    }
}
