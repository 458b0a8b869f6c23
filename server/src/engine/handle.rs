//! The side of the engine that requests see.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use scheduler::{Request, RequestId};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Place, Queue, QueueLimits};
use super::receiving::Receiving;
use super::{Command, Deadline, EngineError, Snapshot, StopFlag, Submission, TokenStream};
use crate::adapters::Lease;
use crate::grammar::Constraint;
use crate::metrics::{Metrics, Rejection};
use crate::telemetry::Timeline;
use crate::tenant::Tenant;

/// A way to the engine; clones share it. [`for_call`](Self::for_call) makes one that submits in
/// somebody's name.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    call: Arc<Call>,
}

struct Shared {
    commands: Sender<Command>,
    next_id: AtomicU64,
    queue: Arc<Queue>,
    is_closing: AtomicBool,
    /// Set when the thread ends, however it does.
    has_stopped: Arc<AtomicBool>,
    /// Why it ended, if it ended by itself.
    reason: Arc<OnceLock<String>>,
    metrics: Arc<Metrics>,
}

/// What is known of a request before its body is read.
#[derive(Debug, Default)]
struct Call {
    tenant: Tenant,
    deadline: Option<Deadline>,
    /// Taken before the work of reading the request is done.
    place: Mutex<Option<Place>>,
    /// Whether the place is taken once the body is there.
    awaits_body: bool,
    /// Until the body is there.
    receiving: Mutex<Option<Receiving>>,
    /// Where its phases are noted.
    timeline: OnceLock<Arc<Timeline>>,
    hold: Option<Hold>,
}

/// What a call waits for before it has its place in the queue.
enum Awaited {
    /// It has it.
    Nothing(Place),
    /// The body, with which it takes a place here.
    BodyForPlace,
    /// The body, which tells where it takes its place.
    Body,
}

/// Nothing that is held under these locks is ever half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken<T>(mutex: &Mutex<Option<T>>) -> Option<T> {
    locked(mutex).take()
}

/// What must stay for as long as anything runs that a call has submitted.
pub(crate) type Hold = Arc<dyn fmt::Debug + Send + Sync>;

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("queue", &self.shared.queue)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    pub(super) fn new(
        commands: Sender<Command>,
        limits: QueueLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared {
            commands,
            next_id: AtomicU64::new(0),
            queue: Queue::new(limits, Arc::clone(&metrics)),
            is_closing: AtomicBool::new(false),
            has_stopped: Arc::new(AtomicBool::new(false)),
            reason: Arc::default(),
            metrics,
        };
        Self {
            shared: Arc::new(shared),
            call: Arc::default(),
        }
    }

    /// Takes a place in the queue for a request that has come and has yet to be read. What the handle
    /// submits is `tenant`'s, and ends after `timeout`. `n_tokens` are the fewest that its prompt may
    /// have; the submission counts them.
    pub fn for_call(
        &self,
        tenant: Tenant,
        timeout: Option<Duration>,
        n_tokens: usize,
    ) -> Result<Self, EngineError> {
        let call = self.for_body(tenant, timeout, n_tokens)?;
        call.enter(n_tokens)?;
        Ok(call)
    }

    /// The same for a request whose body has yet to come. It is refused if there is no room for a
    /// body of `n_tokens`, but takes none before [`enter`](Self::enter): who announces a body and
    /// does not send it would keep others out.
    pub(crate) fn for_body(
        &self,
        tenant: Tenant,
        timeout: Option<Duration>,
        n_tokens: usize,
    ) -> Result<Self, EngineError> {
        self.check_serving()?;
        self.shared.queue.check(n_tokens)?;
        Ok(self.call_of(tenant, timeout, Awaited::BodyForPlace))
    }

    /// The body of this call is there, `n_tokens` long by an estimate. Takes its place, if it has
    /// none and this is the engine that it needs one of.
    pub(crate) fn enter(&self, n_tokens: usize) -> Result<(), EngineError> {
        drop(taken(&self.call.receiving));
        if self.call.awaits_body {
            let place = self.shared.queue.enter(1, n_tokens)?;
            *locked(&self.call.place) = Some(place);
        }
        Ok(())
    }

    /// The same without a place: which engine answers is not known before the body is read. See
    /// [`moved_to`](Self::moved_to).
    pub(crate) fn for_call_somewhere(
        &self,
        tenant: Tenant,
        timeout: Option<Duration>,
    ) -> Result<Self, EngineError> {
        self.check_serving()?;
        Ok(self.call_of(tenant, timeout, Awaited::Body))
    }

    /// As [`for_call`](Self::for_call), for a copy of a request: it gets a place only if clients
    /// leave one.
    pub(crate) fn for_shadow(&self, timeout: Option<Duration>) -> Result<Self, EngineError> {
        self.check_serving()?;
        let place = self.shared.queue.enter_spare()?;
        Ok(self.call_of(Tenant::shadow(), timeout, Awaited::Nothing(place)))
    }

    /// The same call at another engine, with a place in its queue; `hold` lives as long as
    /// anything that is submitted there.
    pub(crate) fn moved_to(
        &self,
        engine: &Self,
        n_tokens: usize,
        hold: Option<Hold>,
    ) -> Result<Self, EngineError> {
        engine.check_serving()?;
        let place = engine.shared.queue.enter(1, n_tokens)?;
        Ok(Self {
            shared: Arc::clone(&engine.shared),
            call: Arc::new(Call {
                tenant: self.call.tenant.clone(),
                deadline: self.call.deadline,
                place: Mutex::new(Some(place)),
                awaits_body: false,
                receiving: Mutex::default(),
                timeline: self.call.timeline.clone(),
                hold,
            }),
        })
    }

    fn call_of(&self, tenant: Tenant, timeout: Option<Duration>, awaited: Awaited) -> Self {
        let receiving = || Some(Receiving::begin(&self.shared.metrics));
        let (place, awaits_body, receiving) = match awaited {
            Awaited::Nothing(place) => (Some(place), false, None),
            Awaited::BodyForPlace => (None, true, receiving()),
            Awaited::Body => (None, false, receiving()),
        };
        let deadline = timeout.map(|timeout| Deadline {
            at: Instant::now() + timeout,
            timeout,
        });
        Self {
            shared: Arc::clone(&self.shared),
            call: Arc::new(Call {
                tenant,
                deadline,
                place: Mutex::new(place),
                awaits_body,
                receiving: Mutex::new(receiving),
                timeline: OnceLock::new(),
                hold: self.call.hold.clone(),
            }),
        }
    }

    /// Notes the phases of what this handle submits. Only the first word counts.
    pub(crate) fn note_in(&self, timeline: Arc<Timeline>) {
        if self.call.timeline.set(timeline).is_err() {
            tracing::debug!("the phases of this request are noted already");
        }
    }

    pub(crate) fn timeline(&self) -> Option<&Arc<Timeline>> {
        self.call.timeline.get()
    }

    /// What comes of work that the call waits for before it is submitted. It is dropped when the
    /// call's time is over.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        let Some(Deadline { at, timeout }) = self.call.deadline else {
            return Ok(work.await);
        };
        let done = tokio::time::timeout_at(at, work).await;
        done.map_err(|_| EngineError::DeadlineExceeded { timeout })
    }

    /// What the engine is doing, as soon as it is between two steps.
    pub async fn snapshot(&self) -> Result<Snapshot, EngineError> {
        let (to, snapshot) = oneshot::channel();
        self.tell(Command::Snapshot(to));
        snapshot.await.map_err(|_| EngineError::Stopped)
    }

    pub(super) fn stop_flag(&self) -> StopFlag {
        StopFlag {
            has_stopped: Arc::clone(&self.shared.has_stopped),
            reason: Arc::clone(&self.shared.reason),
        }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.shared.queue)
    }

    /// An id that no other request of this engine has.
    pub fn next_request_id(&self) -> RequestId {
        RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Queues a request. Dropping the stream cancels it.
    pub fn submit(&self, request: Request) -> Result<TokenStream, EngineError> {
        let mut streams = self.submit_all(vec![(request, None)], None)?;
        Ok(streams.pop().expect("one stream for one request"))
    }

    /// Queues requests that belong together, each with the grammar that its answers must match:
    /// all of them or none. Those that name adapters hold `lease` to their end.
    pub fn submit_all(
        &self,
        requests: Vec<(Request, Option<Constraint>)>,
        lease: Option<Arc<Lease>>,
    ) -> Result<Vec<TokenStream>, EngineError> {
        let n_prompts: Vec<usize> = requests.iter().map(|(r, _)| r.prompt.len()).collect();
        let places = self.admit(&n_prompts)?;
        let requests = requests.into_iter().zip(places);
        requests
            .map(|((request, constraint), place)| {
                self.send(request, constraint, place, lease.clone())
            })
            .collect()
    }

    /// One place for each prompt, if there is room.
    fn admit(&self, n_prompts: &[usize]) -> Result<Vec<Place>, EngineError> {
        self.check_serving()?;
        if let Err(exceeded) = self.call.tenant.charge_prompt(n_prompts.iter().sum()) {
            self.shared
                .metrics
                .count_rejected(Rejection::of(exceeded.kind));
            return Err(EngineError::Limited(exceeded));
        }
        let place = match taken(&self.call.place) {
            Some(place) => place,
            None => self.shared.queue.enter(n_prompts.len(), 0)?,
        };
        place.settle(n_prompts)
    }

    fn check_serving(&self) -> Result<(), EngineError> {
        if self.has_stopped() {
            Err(EngineError::Stopped)
        } else if self.shared.is_closing.load(Ordering::Acquire) {
            Err(EngineError::ShuttingDown)
        } else {
            Ok(())
        }
    }

    fn send(
        &self,
        mut request: Request,
        constraint: Option<Constraint>,
        place: Place,
        lease: Option<Arc<Lease>>,
    ) -> Result<TokenStream, EngineError> {
        request.flow = self.call.tenant.flow(request.adapter);
        let (events, receiver) = unbounded_channel();
        if let Some(timeline) = self.timeline() {
            timeline.note_submitted(request.prompt.len());
            if let Some(lease) = &lease {
                timeline.note_adapter(lease.label());
            }
        }
        let id = request.id;
        let n = request.n;
        let submission = Submission {
            request,
            constraint,
            events,
            submitted: Instant::now(),
            place,
            tenant: self.call.tenant.clone(),
            deadline: self.call.deadline,
            lease,
            timeline: self.timeline().cloned(),
        };
        match self
            .shared
            .commands
            .send(Command::Submit(Box::new(submission)))
        {
            Ok(()) => Ok(TokenStream::new(self.clone(), id, n, receiver)),
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
        self.check_serving().is_ok()
    }

    /// Whether the thread has ended, for whatever reason.
    pub fn has_stopped(&self) -> bool {
        self.shared.has_stopped.load(Ordering::Acquire) || self.stop_reason().is_some()
    }

    /// Why the engine has ended, or is about to, if that was its own decision: what computes is
    /// lost.
    pub fn stop_reason(&self) -> Option<&str> {
        self.shared.reason.get().map(String::as_str)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_call_waits_for_ends_with_its_time() {
        let (commands, _receiver) = std::sync::mpsc::channel();
        let limits = QueueLimits {
            max_requests: 1,
            max_tokens: 1,
            timeout: None,
        };
        let handle = EngineHandle::new(commands, limits, Metrics::new());
        let hour = tokio::time::sleep(Duration::from_secs(3600));
        assert_eq!(handle.in_time(hour).await, Ok(()), "no deadline");
        let timeout = Duration::from_millis(500);
        let tenant = Tenant::default();
        let call = handle.for_call_somewhere(tenant, Some(timeout)).unwrap();
        assert_eq!(call.in_time(async { 2 }).await, Ok(2));
        let late = call.in_time(std::future::pending::<()>()).await;
        assert_eq!(late, Err(EngineError::DeadlineExceeded { timeout }));
    }
}
