//! A load generator for any server that speaks the OpenAI API, and what follows from its
//! figures. It knows HTTP and nothing of any server.
//!
//! Work ([`workload`]) is drawn from a seed before it is sent ([`drive`]); what came of each
//! request ([`outcome`]) becomes figures ([`summary`]), a table, JSON and plots.

mod args;
mod arrivals;
mod bench;
mod body;
mod call;
mod capacity;
mod connection;
mod drive;
mod error;
mod length;
mod outcome;
mod page;
mod plan;
mod plot;
mod probe;
mod progress;
mod prompt;
mod quantile;
mod reply;
mod report;
mod rng;
mod slo;
mod sse;
mod summary;
mod table;
mod target;
mod trace;
mod workload;
mod zipf;

pub use args::{BenchArgs, Gaps, Object, When, Work};
pub use arrivals::Arrivals;
pub use bench::{Bench, Measured};
pub use body::{Endpoint, Expected, Form, PromptAs};
pub use capacity::{Capacity, Goal, Point};
pub use connection::Connections;
pub use drive::drive;
pub use error::LoadError;
pub use length::Length;
pub use outcome::{ErrorKind, Failure, Outcome, Usage};
pub use plan::{PlanArgs, plan};
pub use plot::{Line, svg};
pub use progress::Progress;
pub use prompt::{Piece, TokensOfWords, tokens};
pub use quantile::{Spread, quantile};
pub use rng::Rng;
pub use slo::Slo;
pub use sse::SseParser;
pub use summary::{ErrorCount, Summary};
pub use target::Target;
pub use trace::{Recorded, read as read_trace};
pub use workload::{Mix, Session, Turn};
pub use zipf::Zipf;

pub use tokio::runtime::Runtime;

/// What loads run on. One thread does all: a load of language models is few bytes, and a second
/// thread would take time from a server on the same machine.
pub fn runtime() -> Result<Runtime, LoadError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// Runs `understudy bench`; gives what is to be printed.
pub fn run(args: BenchArgs) -> Result<String, LoadError> {
    runtime()?.block_on(async {
        let bench = Bench::new(args).await?;
        let measured = bench.run().await;
        report::publish(&bench, &measured)
    })
}
