//! Models that are not here on a GPU that is not here: a roofline, and nothing that was measured.
//!
//! An H100 SXM moves 3.35 TB/s and does 990 TFLOP/s in bf16 (its data sheet). What kernels reach of
//! that is an assumption, and so is what a step costs beside them; all three are flags.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use load::{Arrivals, Length, Mix, Session, Summary};
use scheduler::SchedulerConfig;

use super::config;
use super::cost::{Cost, ModelShape, Roofline};
use super::replica::Replica;
use super::router::{Policy, Router};
use super::run::open;
use crate::report::Report;

const BYTES_PER_S: f64 = 3.35e12;
const FLOPS_PER_S: f64 = 990e12;
const MEMORY: f64 = 80e9;
/// Of the memory, what weights, keys and values may take.
const USABLE: f64 = 0.9;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Device {
    /// Share of the memory's speed that kernels reach.
    #[arg(long, default_value_t = 0.75)]
    bandwidth: f64,
    /// Share of the bf16 peak that kernels reach.
    #[arg(long, default_value_t = 0.5)]
    compute: f64,
    /// Microseconds of a step beside its kernels.
    #[arg(long, default_value_t = 400.0)]
    own_us: f64,
    /// Most tokens of a step.
    #[arg(long, default_value_t = 2048)]
    batched_tokens: usize,
    /// Sequences that run at a time.
    #[arg(long, default_value_t = 256)]
    sequences: usize,
}

/// What arrives.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Traffic {
    /// A recorded trace (docs/benchmarks.md); without it, gamma arrivals and lognormal lengths.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Shape of the gamma arrivals: below 1 they come in bursts, as recorded ones do.
    #[arg(long, default_value_t = 0.5)]
    burstiness: f64,
    #[arg(long, default_value = "lognormal:1000,0.9")]
    prompt_tokens: Length,
    #[arg(long, default_value = "lognormal:200,0.7")]
    output_tokens: Length,
    #[arg(long, default_value_t = 600)]
    requests: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    traffic: Traffic,
    /// Requests a second; of a trace, the factors by which it is sped up.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 2.0, 4.0, 8.0, 16.0])]
    rates: Vec<f64>,
}

/// Llama 3 8B in bf16.
pub(crate) const LLAMA_8B: ModelShape = ModelShape {
    name: "Llama 3 8B, bf16",
    n_params: 7.504_924_672e9,
    n_output: 0.525_336_576e9,
    bytes_per_param: 2.0,
    n_layers: 32.0,
    attention_width: 4096.0,
    kv_bytes: 131_072.0,
};

/// Llama 3 70B in blocks of four bits (4.5 with their scales), which fit one such GPU.
const LLAMA_70B: ModelShape = ModelShape {
    name: "Llama 3 70B, 4 bits",
    n_params: 69.503_033_344e9,
    n_output: 1.050_673_152e9,
    bytes_per_param: 4.5 / 8.0,
    n_layers: 80.0,
    attention_width: 8192.0,
    kv_bytes: 327_680.0,
};

impl Device {
    /// A server with a model on this device.
    pub(crate) fn replica(&self, model: ModelShape) -> Result<Replica> {
        // The embedding takes memory as well, as much as the output layer.
        let weights = (model.n_params + model.n_output) * model.bytes_per_param;
        let left = MEMORY * USABLE - weights;
        let per_block = model.kv_bytes * crate::steps::BLOCK_SIZE as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive count of blocks"
        )]
        let n_blocks = (left / per_block) as usize;
        let config = SchedulerConfig {
            max_batched_tokens: self.batched_tokens,
            ..config(n_blocks, self.sequences)
        };
        let cost = Cost::Roofline(Roofline {
            bytes_per_s: BYTES_PER_S * self.bandwidth,
            flops_per_s: FLOPS_PER_S * self.compute,
            own: self.own_us * 1e-6,
            model,
        });
        Replica::new(config, Some(2.0), cost)
    }
}

impl Traffic {
    /// Sessions at a rate, or of the trace sped up.
    pub(crate) fn sessions(
        &self,
        rate: f64,
        n_shared: usize,
        n_groups: usize,
    ) -> Result<Vec<Session>> {
        let mix = Mix {
            prompt: self.prompt_tokens,
            output: self.output_tokens,
            n_shared,
            n_groups,
            turns: Length::Fixed(1),
            think_time: Duration::ZERO,
            models: vec!["model".to_owned()],
            zipf: 0.0,
            structured: 0.0,
        };
        if let Some(path) = &self.trace {
            let trace = load::read_trace(path, rate)?;
            return Ok(mix.replay(&trace, self.requests, self.seed));
        }
        let arrivals = Arrivals::Gamma {
            rate,
            shape: self.burstiness,
        };
        Ok(mix.sessions(&arrivals, self.requests, self.seed))
    }
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("simulate-gpu");
    for model in [LLAMA_8B, LLAMA_70B] {
        for &rate in &options.rates {
            let sessions = options.traffic.sessions(rate, 0, 1)?;
            let mut replica = options.device.replica(model)?;
            let mut router = Router::new(Policy::RoundRobin, 1);
            let outcomes = open(&sessions, std::slice::from_mut(&mut replica), &mut router)?;
            let summary = Summary::of(&outcomes, None);
            note(
                &mut report,
                &format!("{}, modelled, {rate}/s", model.name),
                &summary,
            );
        }
    }
    Ok(report)
}

/// The figures of a load.
pub(crate) fn note(report: &mut Report, name: &str, summary: &Summary) {
    report.note(
        format!("{name}: answers"),
        summary.output_tokens_per_s,
        "tokens/s",
    );
    report.note(
        format!("{name}: first token p50"),
        summary.ttft_ms.p50,
        "ms",
    );
    report.note(
        format!("{name}: first token p99"),
        summary.ttft_ms.p99,
        "ms",
    );
    report.note(
        format!("{name}: further token p50"),
        summary.tpot_ms.p50,
        "ms",
    );
    report.note(
        format!("{name}: further token p99"),
        summary.tpot_ms.p99,
        "ms",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::shape::Shape;

    #[test]
    fn one_token_takes_its_weights_and_many_take_their_products() {
        let cost = Cost::Roofline(Roofline {
            bytes_per_s: BYTES_PER_S,
            flops_per_s: FLOPS_PER_S,
            own: 0.0,
            model: LLAMA_8B,
        });
        let one = Shape {
            n_tokens: 1.0,
            n_samples: 1.0,
            n_keys: 1.0,
            ..Shape::default()
        };
        // 15 GB at 3.35 TB/s.
        assert!(
            (cost.seconds(&one) * 1e3 - 4.48).abs() < 0.01,
            "{}",
            cost.seconds(&one)
        );
        let chunk = Shape {
            n_tokens: 2048.0,
            n_samples: 1.0,
            ..Shape::default()
        };
        // 28.6 TFLOP at 990 TFLOP/s.
        assert!(
            (cost.seconds(&chunk) * 1e3 - 28.9).abs() < 0.1,
            "{}",
            cost.seconds(&chunk)
        );
    }
}
