//! The engine: one thread that owns scheduler and executor, and handles to it.
//!
//! Everything that happens to a request happens at a step boundary, in the order of the
//! command channel. An idle engine blocks on that channel; nothing polls.

mod handle;
mod ledger;
mod step;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use scheduler::{Event, Executor, Request, RequestId, Scheduler, SequenceId};
use tokio::sync::mpsc::UnboundedSender;

use crate::metrics::Metrics;

pub use handle::EngineHandle;
pub use stream::TokenStream;

/// A request that the engine does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("{limit} requests are waiting already")]
    Overloaded { limit: usize },
    #[error("the engine is shutting down")]
    ShuttingDown,
    #[error("the engine has stopped")]
    Stopped,
    /// The scheduler cannot take it, for example because it would never fit.
    #[error("{0}")]
    Refused(String),
}

/// What the engine thread is told.
enum Command {
    Submit(Submission),
    Cancel(RequestId),
    CancelSequence(SequenceId),
    CancelAll,
    Stop,
}

/// A request on its way to the scheduler, with the place where its events go.
struct Submission {
    request: Request,
    events: UnboundedSender<Result<Event, EngineError>>,
    submitted: std::time::Instant,
}

/// A running engine. Dropping it lets the thread end when all handles are gone.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts the engine's thread. At most `max_queued` requests wait for their first step.
    pub fn start(
        scheduler: Scheduler,
        executor: Box<dyn Executor + Send>,
        max_queued: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = std::sync::mpsc::channel();
        let handle = EngineHandle::new(commands, max_queued, Arc::clone(&metrics));
        let ledger = ledger::Ledger::new(handle.queue(), Arc::clone(&metrics));
        let step_loop = step::StepLoop::new(scheduler, executor, receiver, ledger, metrics);
        let has_stopped = handle.stop_flag();
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let _flag = StopFlag(has_stopped);
                step_loop.run();
            })?;
        Ok(Self { handle, thread })
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

/// Tells that the thread has ended, also when it panics.
struct StopFlag(Arc<AtomicBool>);

impl Drop for StopFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
