//! Pure scheduling policy: which tokens of which sequences run in the next step, and in which
//! blocks their keys and values live.
//!
//! The room is sans-IO: [`Scheduler::submit`], [`Scheduler::cancel`], [`Scheduler::begin_step`]
//! (what to run) and [`Scheduler::end_step`] (what came of it). It knows integers only: no text,
//! no devices, no clock, no threads, no randomness. The same calls give the same answers.

mod batch;
mod ids;
mod request;
mod sampling;

pub use batch::{
    Batch, BatchRow, Executor, ExecutorError, PromptScoring, SampleSpec, Sampled, SampledToken,
    TokenLogprob, TokenLogprobs,
};
pub use ids::{AdapterId, BlockId, RequestId, SequenceId, TokenId};
pub use request::{Event, FinishReason, Request};
pub use sampling::SamplingParams;
