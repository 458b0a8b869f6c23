//! Pure scheduling policy: which tokens of which sequences run in the next step, and in which
//! blocks their keys and values live.
//!
//! The room is sans-IO: [`Scheduler::submit`], [`Scheduler::cancel`], [`Scheduler::begin_step`]
//! (what to run) and [`Scheduler::end_step`] (what came of it). It knows integers only: no text,
//! no devices, no clock, no threads, no randomness. The same calls give the same answers.

mod admit;
mod ahead;
mod allowed;
mod batch;
mod block;
mod check;
mod config;
mod crowd;
mod elder;
mod end;
mod executor;
mod flight;
mod flow;
mod force;
mod free_list;
mod ids;
mod live;
mod pack;
mod plan;
mod pooling;
mod prefix;
mod priority;
mod queue;
mod request;
mod row;
mod sampling;
mod scheduler;
mod sequence;
mod settle;
mod stats;
mod store;
mod window;

pub use allowed::Allowed;
pub use batch::{
    Batch, BatchRow, PromptScoring, SampleSpec, Sampled, SampledToken, TokenLogprob, TokenLogprobs,
};
pub use config::{ConfigError, SchedulerConfig};
pub use crowd::Crowd;
pub use executor::{Executor, ExecutorError, Ticket};
pub use ids::{AdapterId, BlockId, FlowId, RequestId, SequenceId, TokenId};
pub use pooling::{Pooling, PoolingSpec};
pub use priority::Priority;
pub use request::{Event, FinishReason, Request};
pub use sampling::SamplingParams;
pub use scheduler::{Scheduler, SequenceState, SubmitError};
pub use stats::Stats;
