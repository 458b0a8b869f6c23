//! The side of the engine that requests see.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use scheduler::{Request, RequestId};
use tokio::sync::mpsc::unbounded_channel;

use super::{Command, EngineError, Submission, TokenStream};
use crate::metrics::Metrics;

/// A way to the engine; clones share it.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Sender<Command>,
    next_id: AtomicU64,
    max_queued: usize,
    /// Requests that no step has worked on yet.
    n_queued: Arc<AtomicUsize>,
    is_closing: AtomicBool,
    /// Set when the thread ends, however it does.
    has_stopped: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("n_queued", &self.shared.n_queued)
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    pub(super) fn new(commands: Sender<Command>, max_queued: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            shared: Arc::new(Shared {
                commands,
                next_id: AtomicU64::new(0),
                max_queued,
                n_queued: Arc::new(AtomicUsize::new(0)),
                is_closing: AtomicBool::new(false),
                has_stopped: Arc::new(AtomicBool::new(false)),
                metrics,
            }),
        }
    }

    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.has_stopped)
    }

    pub(super) fn queue(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.shared.n_queued)
    }

    /// An id that no other request of this engine has.
    pub fn next_request_id(&self) -> RequestId {
        RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Queues a request. Dropping the stream cancels it.
    pub fn submit(&self, request: Request) -> Result<TokenStream, EngineError> {
        self.admit(1)?;
        self.send(request)
    }

    /// Queues requests that belong together: all of them or none.
    pub fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<TokenStream>, EngineError> {
        self.admit(requests.len())?;
        requests
            .into_iter()
            .map(|request| self.send(request))
            .collect()
    }

    /// Takes `n` places in the queue, if it is not full. Requests that belong together may
    /// exceed the limit together, or a long list of prompts could never be served.
    fn admit(&self, n: usize) -> Result<(), EngineError> {
        if self.shared.is_closing.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        let limit = self.shared.max_queued;
        let admitted =
            self.shared
                .n_queued
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n_queued| {
                    (n_queued < limit).then_some(n_queued + n)
                });
        if admitted.is_err() {
            self.shared.metrics.rejected_requests.increment(1);
            return Err(EngineError::Overloaded { limit });
        }
        Ok(())
    }

    fn send(&self, request: Request) -> Result<TokenStream, EngineError> {
        let (events, receiver) = unbounded_channel();
        let stream = TokenStream::new(self.clone(), request.id, request.n, receiver);
        let submission = Submission {
            request,
            events,
            submitted: Instant::now(),
        };
        match self.shared.commands.send(Command::Submit(submission)) {
            Ok(()) => Ok(stream),
            Err(_) => Err(EngineError::Stopped),
        }
    }

    /// Tells the engine something; one that has stopped needs no telling.
    pub(super) fn tell(&self, command: Command) {
        if self.shared.commands.send(command).is_err() {
            tracing::debug!("the engine has stopped already");
        }
    }

    pub(super) fn count_disconnect(&self) {
        self.shared.metrics.disconnects.increment(1);
    }

    /// Refuses new requests from now on; those that were admitted go on.
    pub fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
    }

    /// Whether requests are taken.
    pub fn is_serving(&self) -> bool {
        !self.shared.is_closing.load(Ordering::Acquire)
            && !self.shared.has_stopped.load(Ordering::Acquire)
    }

    /// Ends everything that runs or waits.
    pub fn cancel_all(&self) {
        self.tell(Command::CancelAll);
    }

    pub(super) fn stop(&self) {
        self.close();
        self.tell(Command::Stop);
    }
}
