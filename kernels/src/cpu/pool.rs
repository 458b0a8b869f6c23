//! Threads that wait for the next op.
//!
//! A step of a small model is some two hundred parallel regions of a few microseconds each, so a
//! region must cost about one: workers spin for a while between regions and sleep only when
//! none comes. Chunks are claimed one by one from a counter, so a thread that the system
//! preempts delays its own chunk and not a whole half of the work. The caller works too, and
//! does not wait for workers that have not come by the time the chunks are gone.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// `state` = epoch << 32 | OPEN | workers inside.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

/// What a region runs: called with a chunk's index and the index of the thread.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    n_chunks: usize,
}

struct Shared {
    state: AtomicU64,
    /// Written by the caller while the region is closed and empty, read by workers inside.
    job: UnsafeCell<Option<Job>>,
    next_chunk: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    n_sleeping: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: `job` is only written while no worker is inside (see `state`), and the closure it
// points to is Sync and outlives the region.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// A fixed set of threads: the caller of [`Pool::run`] and `n_threads - 1` workers.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a region: callers on several threads take turns.
    region: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("n_threads", &self.n_threads())
            .finish()
    }
}

thread_local! {
    /// Whether this thread is inside a region: a nested one runs on the spot.
    static INSIDE_REGION: Cell<bool> = const { Cell::new(false) };
}

/// A lock whose data stays valid over a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// # Panics
    /// When `n_threads` is zero or the system gives no threads.
    pub(crate) fn new(n_threads: usize) -> Self {
        assert!(n_threads > 0, "a pool needs at least one thread");
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next_chunk: AtomicUsize::new(0),
            panic: Mutex::new(None),
            n_sleeping: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n_threads)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernels-{thread}"))
                    .spawn(move || shared.worker(thread))
                    .expect("threads can be had at start-up")
            })
            .collect();
        Self {
            shared,
            workers,
            region: Mutex::new(()),
        }
    }

    pub(crate) fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(chunk, thread)` once for each chunk in `0..n_chunks`, on whichever thread is
    /// free, and returns when all are done. A region inside a region runs on its thread alone.
    ///
    /// # Panics
    /// When a chunk does, with its payload; chunks not yet begun are then skipped.
    pub(crate) fn run(&self, n_chunks: usize, work: &Work<'_>) {
        if n_chunks <= 1 || self.workers.is_empty() || INSIDE_REGION.get() {
            // The index of the caller; scratch of a nested region is its own affair.
            (0..n_chunks).for_each(|chunk| work(chunk, 0));
            return;
        }
        let turn = lock(&self.region);
        let shared = &*self.shared;
        // SAFETY: only erases the lifetime; the region ends before this borrow does.
        let work = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        // SAFETY: the last region was closed and left by all workers.
        unsafe { *shared.job.get() = Some(Job { work, n_chunks }) };
        shared.next_chunk.store(0, Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.state.store(epoch << 32 | OPEN, Ordering::SeqCst);
        if shared.n_sleeping.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.work_on(Job { work, n_chunks }, 0);
        shared.close();
        let panic = lock(&shared.panic).take();
        if let Some(payload) = panic {
            drop(turn);
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its chunks throw, so it cannot have panicked.
            drop(worker.join());
        }
    }
}

impl Shared {
    fn worker(&self, thread: usize) {
        let mut last_epoch = 0;
        while let Some(epoch) = self.enter(last_epoch) {
            last_epoch = epoch;
            // SAFETY: inside an open region, whose job was written before it opened.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                self.work_on(job, thread);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Claims chunks until none is left; keeps the first panic.
    fn work_on(&self, job: Job, thread: usize) {
        INSIDE_REGION.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next_chunk.fetch_add(1, Ordering::Relaxed);
                if chunk >= job.n_chunks {
                    break;
                }
                // SAFETY: the closure outlives the region, and we are inside it.
                unsafe { (*job.work)(chunk, thread) };
            }
        }));
        INSIDE_REGION.set(false);
        if let Err(payload) = result {
            self.next_chunk.store(job.n_chunks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Lets nobody in any more and waits for those inside.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::Acquire);
        let mut n_spins = 0_u32;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            n_spins += 1;
            if n_spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Waits for a region after `last_epoch` and enters it; `None`: stop.
    fn enter(&self, last_epoch: u64) -> Option<u64> {
        let mut since = Instant::now();
        let mut n_spins = 0_u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if self.is_new(state, last_epoch) {
                let entered = self.state.compare_exchange(
                    state,
                    state + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if entered.is_ok() {
                    return Some(state >> 32);
                }
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::hint::spin_loop();
            n_spins += 1;
            if n_spins.is_multiple_of(64) && since.elapsed() > SPIN {
                self.sleep(last_epoch);
                since = Instant::now();
            }
        }
    }

    fn is_new(&self, state: u64, last_epoch: u64) -> bool {
        state & OPEN != 0 && state >> 32 != last_epoch
    }

    /// Sleeps until there is a region or the end. The count is raised before the state is read,
    /// and `run` reads the count after it has set the state, so no wake-up is lost.
    fn sleep(&self, last_epoch: u64) {
        let mut guard = lock(&self.sleep);
        self.n_sleeping.fetch_add(1, Ordering::SeqCst);
        while !self.is_new(self.state.load(Ordering::SeqCst), last_epoch)
            && !self.stop.load(Ordering::SeqCst)
        {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.n_sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of_chunks(pool: &Pool, n_chunks: usize) -> usize {
        let sum = AtomicUsize::new(0);
        pool.run(n_chunks, &|chunk, thread| {
            assert!(thread < pool.n_threads());
            sum.fetch_add(chunk + 1, Ordering::Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn each_chunk_runs_once_over_many_tiny_regions() {
        for n_threads in 1..=4 {
            let pool = Pool::new(n_threads);
            for round in 0..20_000 {
                let n_chunks = round % 7;
                assert_eq!(
                    sum_of_chunks(&pool, n_chunks),
                    n_chunks * (n_chunks + 1) / 2
                );
            }
        }
    }

    #[test]
    fn sleeping_workers_come_back() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            let seen = Mutex::new(std::collections::BTreeSet::new());
            pool.run(3, &|_, thread| {
                lock(&seen).insert(thread);
                let begin = Instant::now();
                while lock(&seen).len() < 3 && begin.elapsed() < Duration::from_secs(10) {
                    std::thread::yield_now();
                }
            });
            assert_eq!(lock(&seen).len(), 3, "a worker slept through a region");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for _ in 0..100 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|chunk, _| assert!(chunk != 33, "chunk 33 fails"));
            }));
            let payload = result.unwrap_err();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"chunk 33 fails"));
            assert_eq!(sum_of_chunks(&pool, 10), 55);
        }
    }

    #[test]
    fn regions_nest_and_callers_take_turns() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let total = AtomicUsize::new(0);
                        pool.run(8, &|_, _| {
                            total.fetch_add(sum_of_chunks(&pool, 4), Ordering::Relaxed);
                        });
                        assert_eq!(total.into_inner(), 80);
                    }
                });
            }
        });
    }

    #[test]
    fn drop_joins_the_workers() {
        let pool = Pool::new(3);
        sum_of_chunks(&pool, 9);
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert_eq!(shared.strong_count(), 0, "a worker still runs");
    }
}
