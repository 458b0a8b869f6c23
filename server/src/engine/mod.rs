//! The engine: one thread that owns scheduler and executor, and handles to it.
//!
//! Everything that happens to a request happens at a step boundary, in the order of the
//! command channel. An idle engine blocks on that channel; nothing polls. Time is tokio's, so
//! that a test can pause it.

mod constraints;
mod drain;
mod flight;
mod handle;
mod ledger;
mod masks;
pub mod pace;
mod queue;
mod receiving;
mod snapshot;
mod step;
mod stream;
mod turns;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use scheduler::{Event, Executor, Request, RequestId, Scheduler, SequenceId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::adapters::Lease;
use crate::auth::Exceeded;
use crate::grammar::Constraint;
use crate::metrics::Metrics;
use crate::telemetry::Timeline;
use crate::tenant::Tenant;

pub use handle::EngineHandle;
pub(crate) use handle::Hold;
pub use queue::QueueLimits;
pub use snapshot::{RequestSnapshot, Snapshot};
pub use step::StepLoop;
pub use stream::TokenStream;
pub use turns::Turns;

/// A request that the engine does not serve, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("{n_requests} requests with {n_tokens} tokens are waiting already")]
    Overloaded {
        n_requests: usize,
        n_tokens: usize,
        retry_after: Duration,
    },
    #[error("no step worked on the request within {timeout:?}")]
    QueueTimeout {
        timeout: Duration,
        retry_after: Duration,
    },
    #[error("the request was not finished within {timeout:?}")]
    DeadlineExceeded { timeout: Duration },
    #[error("the engine is shutting down")]
    ShuttingDown,
    #[error("the engine has stopped")]
    Stopped,
    /// The key may not ask for so much.
    #[error("beyond a limit of the key: {0:?}")]
    Limited(Exceeded),
    /// The scheduler cannot take it, for example because it would never fit.
    #[error("{0}")]
    Refused(String),
}

/// What the engine does beside what the scheduler decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineOptions {
    pub queue: QueueLimits,
    /// How much longer prompts may make the steps of running streams; `None`: by as much as the
    /// scheduler's budget of tokens does.
    pub stretch: Option<f64>,
    /// Tokens that a grammar leaves no choice about are appended without a draw. Answers are the
    /// same without, which is for tests.
    pub forces_tokens: bool,
    /// The next step is begun while one runs, where the executor can have two and nothing of it
    /// depends on the first. Answers are the same without.
    pub overlaps_steps: bool,
}

/// When a request ends, finished or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    /// As it was asked for.
    timeout: Duration,
}

/// What the engine thread is told.
enum Command {
    Submit(Box<Submission>),
    Cancel(RequestId),
    CancelSequence(SequenceId),
    CancelAll,
    Snapshot(oneshot::Sender<Snapshot>),
    Stop,
}

/// A request on its way to the scheduler, with the place where its events go.
struct Submission {
    request: Request,
    /// What all its sequences must match.
    constraint: Option<Constraint>,
    events: UnboundedSender<Result<Event, EngineError>>,
    submitted: Instant,
    place: queue::Place,
    tenant: Tenant,
    deadline: Option<Deadline>,
    lease: Option<Arc<Lease>>,
    timeline: Option<Arc<Timeline>>,
}

/// A running engine. Dropping it lets the thread end when all handles are gone.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts the engine's thread.
    pub fn start(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        options: EngineOptions,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        Self::run(Self::parts(scheduler, executor, options, metrics))
    }

    /// The same beside other engines on the same cores, whose steps take `turns`.
    pub fn start_beside(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        options: EngineOptions,
        metrics: Arc<Metrics>,
        turns: Arc<Turns>,
    ) -> std::io::Result<Self> {
        let (handle, step_loop) = Self::parts(scheduler, executor, options, metrics);
        Self::run((handle, step_loop.in_turns(turns)))
    }

    fn run((handle, step_loop): (EngineHandle, StepLoop)) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || step_loop.run())?;
        Ok(Self { handle, thread })
    }

    /// An engine without a thread: whoever has the loop decides when it turns.
    pub fn parts(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        options: EngineOptions,
        metrics: Arc<Metrics>,
    ) -> (EngineHandle, StepLoop) {
        let (commands, receiver) = std::sync::mpsc::channel();
        let handle = EngineHandle::new(commands, options.queue, Arc::clone(&metrics));
        let ledger = ledger::Ledger::new(handle.queue(), Arc::clone(&metrics));
        let flag = handle.stop_flag();
        let step_loop = StepLoop::new(
            scheduler, executor, receiver, ledger, metrics, options, flag,
        );
        (handle, step_loop)
    }

    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Ends the thread after the step in progress; whatever still runs is dropped.
    pub fn stop(self) {
        self.handle.stop();
        if self.thread.join().is_err() {
            tracing::error!("the engine thread had panicked");
        }
    }
}

/// Tells that the loop has ended, also when it panics.
struct StopFlag {
    has_stopped: Arc<AtomicBool>,
    reason: Arc<OnceLock<String>>,
}

impl StopFlag {
    /// The loop ends after this turn. Only the first reason counts.
    fn give_up(&self, reason: String) {
        tracing::error!(
            reason,
            "the engine gives up: the server must be started again"
        );
        self.reason.get_or_init(|| reason);
    }

    fn has_given_up(&self) -> bool {
        self.reason.get().is_some()
    }
}

impl Drop for StopFlag {
    fn drop(&mut self) {
        self.has_stopped.store(true, Ordering::Release);
    }
}
