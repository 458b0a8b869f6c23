//! Threads that compile grammars: few, so that no flood of grammars takes the machine from those
//! who generate, and with a time limit, since a thread at work cannot be stopped.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::adapters::loader::give_way;

/// Longest a grammar waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Grammars that wait for their turn.
const MAX_WAITING: usize = 64;
/// Threads that may be lost to grammars that take too long, before all must wait for them.
const MAX_LOST: usize = 2;
/// Compilers descend into what they read. The limits on grammars keep the depth below this.
const STACK_BYTES: usize = 64 << 20;

/// About a third of a core that is in demand: streams go on beside grammars that take long, and
/// those of usual size take milliseconds all the same.
const NICE: i32 = 5;

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// It took longer than it may.
    TooSlow,
    /// Too much else is to be done.
    Busy,
    /// It panicked.
    Failed,
}

/// What one piece of work and its client know of each other.
#[derive(Default)]
struct Ticket {
    started: OnceLock<Instant>,
    /// Nobody waits for it any more.
    given_up: OnceLock<()>,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    ticket: Arc<Ticket>,
}

/// What the threads share.
struct Shared {
    jobs: Mutex<Receiver<Job>>,
    /// Threads whose work nobody waits for. Changes together with what is given up.
    n_lost: Mutex<usize>,
}

/// Does one piece of work at a time.
pub(super) struct Pool {
    sender: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new() -> Self {
        let (sender, jobs) = sync_channel(MAX_WAITING);
        let shared = Arc::new(Shared {
            jobs: Mutex::new(jobs),
            n_lost: Mutex::default(),
        });
        spawn(&shared);
        Self { sender, shared }
    }

    /// Does `work`, which may take `limit`, when its turn has come. Waits for it: not for an
    /// async thread.
    pub(super) fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let ticket = Arc::new(Ticket::default());
        let (reply, result) = sync_channel(1);
        let job = Job {
            work: Box::new(move || {
                // Nobody waits if it took too long.
                reply.send(work()).ok();
            }),
            ticket: Arc::clone(&ticket),
        };
        match self.sender.try_send(job) {
            Ok(()) => self.wait(limit, &result, &ticket),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Undone::Busy),
        }
    }

    fn wait<T>(&self, limit: Duration, result: &Receiver<T>, ticket: &Ticket) -> Result<T, Undone> {
        let sent = Instant::now();
        loop {
            let started = ticket.started.get();
            let left = match started {
                Some(started) => limit.saturating_sub(started.elapsed()),
                None => PATIENCE.saturating_sub(sent.elapsed()),
            };
            if left.is_zero() {
                return Err(self.give_up(ticket));
            }
            // What has not begun may begin at any moment.
            match result.recv_timeout(left.min(limit)) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Disconnected) => return Err(Undone::Failed),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn give_up(&self, ticket: &Ticket) -> Undone {
        let mut n_lost = lock(&self.shared.n_lost);
        ticket.given_up.get_or_init(|| ());
        if ticket.started.get().is_none() {
            return Undone::Busy;
        }
        *n_lost += 1;
        // Another thread takes the place of the one that is lost.
        if *n_lost <= MAX_LOST {
            spawn(&self.shared);
        }
        Undone::TooSlow
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new()
        .name("grammars".to_owned())
        .stack_size(STACK_BYTES);
    if let Err(error) = thread.spawn(move || work(&shared)) {
        tracing::error!(%error, "no thread for grammars");
    }
}

/// Until the pool is gone, or until somebody else has this thread's place.
fn work(shared: &Shared) {
    give_way(NICE);
    loop {
        let next = lock(&shared.jobs).recv();
        let Ok(Job { work, ticket }) = next else {
            return;
        };
        ticket.started.get_or_init(Instant::now);
        if ticket.given_up.get().is_some() {
            continue;
        }
        // A panic drops the reply, which says it all.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::warn!("compiling a grammar panicked");
        }
        let mut n_lost = lock(&shared.n_lost);
        if ticket.given_up.get().is_some() {
            *n_lost -= 1;
            // Whoever was lost while places were left has been replaced.
            if *n_lost < MAX_LOST {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_takes_too_long_is_left_alone() {
        let pool = Pool::new();
        let (go_on, blocked) = sync_channel::<()>(0);
        assert_eq!(pool.run(LONG, || 7), Ok(7));
        let slow = pool.run(SHORT, move || blocked.recv().ok());
        assert_eq!(slow, Err(Undone::TooSlow));
        // Another thread goes on, and still does when the lost one has come back.
        assert_eq!(pool.run(LONG, || 8), Ok(8));
        drop(go_on);
        assert_eq!(pool.run(LONG, || 9), Ok(9));
    }

    #[test]
    fn a_panic_is_its_own_works() {
        let pool = Pool::new();
        let bad: Result<(), Undone> = pool.run(LONG, || panic!("on purpose"));
        assert_eq!(bad, Err(Undone::Failed));
        assert_eq!(pool.run(LONG, || 1), Ok(1));
    }
}
