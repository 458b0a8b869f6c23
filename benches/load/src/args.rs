//! The flags of `understudy bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};

use crate::body::{Endpoint, PromptAs};
use crate::length::Length;
use crate::slo::Slo;

/// Measure any server that speaks the OpenAI API: latencies, throughput, goodput and errors under
/// an open or closed load; several rates make a sweep.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Base URL of the server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/v1")]
    pub base_url: String,
    /// Key to send as a bearer token.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Models or adapters to ask for; several are drawn by --zipf. Default: the first that the
    /// server lists.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub model: Vec<String>,
    #[arg(long, value_enum, default_value_t = Endpoint::Chat)]
    pub endpoint: Endpoint,

    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub work: Work,

    /// What counts for goodput, in milliseconds: ttft:500,tpot:50,e2e:10000 (any of them).
    #[arg(long, value_name = "BOUNDS")]
    pub slo: Option<Slo>,
    /// Seconds that a request may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    pub timeout: f64,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with the table and plots of latency against load.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the times of every request, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub requests_out: Option<PathBuf>,
    /// Show no bar.
    #[arg(long)]
    pub no_progress: bool,
}

/// When requests are sent.
#[derive(Clone, Debug, clap::Args)]
pub struct When {
    /// Open loop: requests a second; several rates, with commas, make a sweep.
    #[arg(long, value_name = "RATE", value_delimiter = ',', conflicts_with_all = ["concurrency", "trace"])]
    pub rate: Vec<f64>,
    /// How the gaps of an open loop are drawn.
    #[arg(long, value_enum, default_value_t = Gaps::Poisson, requires = "rate")]
    pub gaps: Gaps,
    /// Shape of gamma gaps: 1 is a Poisson process, less comes in bursts.
    #[arg(long, value_name = "SHAPE", default_value_t = 1.0)]
    pub burstiness: f64,
    /// Closed loop: clients that wait for their answers; several numbers make a sweep.
    #[arg(
        long,
        value_name = "CLIENTS",
        value_delimiter = ',',
        conflicts_with = "trace"
    )]
    pub concurrency: Vec<usize>,
    /// Open loop: the times and lengths of a recorded trace (JSON lines or CSV; docs/benchmarks.md).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The trace goes so many times as fast as it went.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "trace")]
    pub trace_speed: f64,
    /// Requests (sessions, with --turns) of each load.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub requests: usize,
    /// Begin nothing after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// Sessions sent first, which do not count.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: usize,
    /// The same seed is the same work.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How the gaps between arrivals are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gaps {
    Poisson,
    Gamma,
    Constant,
}

/// What is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Work {
    /// Tokens of each prompt: 256, 64..512, normal:256,64 or lognormal:256,0.8.
    #[arg(long, value_name = "LENGTH", default_value = "256")]
    pub prompt_tokens: Length,
    /// Tokens of each answer, likewise.
    #[arg(long, value_name = "LENGTH", default_value = "128")]
    pub output_tokens: Length,
    /// How prompts are sent. Default: token ids to completions, text to others.
    #[arg(long, value_enum)]
    pub prompt_as: Option<PromptAs>,
    /// Tokens that prompts of a group begin with alike.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub shared_prefix: usize,
    /// Groups that share a beginning.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub prefix_groups: usize,
    /// Turns of each conversation (a length: 1, 2..5); chat only.
    #[arg(long, value_name = "LENGTH", default_value = "1")]
    pub turns: Length,
    /// Seconds between an answer and the next turn.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub think_time: f64,
    /// How unevenly several models are asked for; 0: alike.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0)]
    pub zipf: f64,
    /// Share of answers that must match a JSON schema, from 0 to 1; chat only.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub structured: f64,
    /// Do not stream: no first tokens, then, only whole answers.
    #[arg(long)]
    pub no_stream: bool,
    /// Let answers end where the model ends them. Without it `ignore_eos` is sent, which is not in
    /// OpenAI's API, but in most servers'.
    #[arg(long)]
    pub stop_at_eos: bool,
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Further members of every body, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub extra_body: Option<Object>,
}

/// A JSON object.
pub type Object = Map<String, Value>;

fn object(text: &str) -> Result<Object, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl When {
    /// After what time nothing begins.
    pub(crate) fn stop(&self) -> Option<Duration> {
        self.duration.map(Duration::from_secs_f64)
    }
}

/// Flags alone, for their defaults.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

impl BenchArgs {
    /// What an empty command line says.
    #[must_use]
    pub fn defaults() -> Self {
        Line::parse_from(["bench"]).bench
    }

    /// What does not go together, beyond what the flags say themselves.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (when, work) = (&self.when, &self.work);
        let positive = |name: &str, value: f64| {
            let is_right = value.is_finite() && value > 0.0;
            if is_right {
                Ok(())
            } else {
                Err(format!("--{name} must be above 0"))
            }
        };
        for &rate in &when.rate {
            positive("rate", rate)?;
        }
        positive("burstiness", when.burstiness)?;
        positive("trace-speed", when.trace_speed)?;
        positive("timeout", self.timeout)?;
        positive("duration", when.duration.unwrap_or(1.0))?;
        let within = |name: &str, value: f64, most: f64| {
            let is_right = (0.0..=most).contains(&value);
            if is_right {
                Ok(())
            } else {
                Err(format!("--{name} must be from 0 to {most}"))
            }
        };
        within("structured", work.structured, 1.0)?;
        within("think-time", work.think_time, 86_400.0)?;
        within("zipf", work.zipf, 10.0)?;
        if when.concurrency.contains(&0) || when.requests == 0 || work.prefix_groups == 0 {
            return Err("--concurrency, --requests and --prefix-groups must be at least 1".into());
        }
        if when.burstiness != 1.0 && when.gaps != Gaps::Gamma {
            return Err("--burstiness needs --gaps gamma".into());
        }
        if self.endpoint != Endpoint::Chat {
            if work.turns != Length::Fixed(1) {
                return Err("--turns needs --endpoint chat".into());
            }
            if work.structured > 0.0 {
                return Err("--structured needs --endpoint chat".into());
            }
        } else if work.prompt_as == Some(PromptAs::Tokens) {
            return Err("--prompt-as tokens is not for chat, whose messages are text".into());
        }
        if when.trace.is_some() && (work.turns != Length::Fixed(1) || work.shared_prefix > 0) {
            return Err(
                "a trace has its own lengths and shared beginnings: no --turns and no \
                        --shared-prefix beside it"
                    .into(),
            );
        }
        Ok(())
    }

    pub(crate) fn prompt_as(&self) -> PromptAs {
        let usual = match self.endpoint {
            Endpoint::Completions => PromptAs::Tokens,
            Endpoint::Chat | Endpoint::Embeddings => PromptAs::Text,
        };
        self.work.prompt_as.unwrap_or(usual)
    }

    pub(crate) fn is_stream(&self) -> bool {
        !self.work.no_stream && self.endpoint != Endpoint::Embeddings
    }
}
