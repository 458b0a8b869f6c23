//! The thread that writes: what waits while a commit is being made goes into the next one
//! together, so that many answers share one flush of the disk.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::tables::{Change, n_bytes_of};
use super::{Shelf, StoreError, StoreOptions, Write, open_database};

/// Tasks in one commit.
const MAX_TASKS: usize = 64;
/// Time without writes after which old objects are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Changes that are made together.
pub(super) struct Task {
    pub(super) writes: Vec<Write>,
    pub(super) done: oneshot::Sender<Result<Vec<bool>, StoreError>>,
}

/// The way to the thread. Dropping it lets the thread finish what it was told.
pub(super) struct Writer {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(shelf: Arc<Shelf>, options: StoreOptions) -> Result<Self, StoreError> {
        let (tasks, received) = channel();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(&shelf, &options, &received))
            .map_err(StoreError::failed)?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    pub(super) fn submit(&self, task: Task) -> Result<(), StoreError> {
        let sent = self.tasks.as_ref().map(|tasks| tasks.send(task));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(StoreError::failed("its thread has ended")),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the store panicked");
        }
    }
}

fn run(shelf: &Shelf, options: &StoreOptions, received: &Receiver<Task>) {
    loop {
        let mut tasks = match received.recv_timeout(SWEEP_INTERVAL) {
            Ok(task) => vec![task],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        tasks.extend(received.try_iter().take(MAX_TASKS - 1));
        let (writes, done): (Vec<_>, Vec<_>) = tasks
            .into_iter()
            .map(|task| (task.writes, task.done))
            .unzip();
        let results = match commit(shelf, options, writes) {
            Ok(results) => results,
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                reopen(shelf, options);
                done.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for (done, result) in done.into_iter().zip(results) {
            // Whoever has gone does not want to know.
            done.send(result).ok();
        }
    }
}

/// The changes of each task, or why it was refused. An error of the database is one of all.
type Results = Vec<Result<Vec<bool>, StoreError>>;

fn commit(
    shelf: &Shelf,
    options: &StoreOptions,
    tasks: Vec<Vec<Write>>,
) -> Result<Results, StoreError> {
    let database = shelf.read().unwrap_or_else(PoisonError::into_inner);
    let database = database
        .as_ref()
        .ok_or_else(|| StoreError::failed("it is closed after an error of the disk"))?;
    let now = (options.clock)();
    let transaction = database.begin_write().map_err(StoreError::failed)?;
    let mut results = Vec::with_capacity(tasks.len());
    {
        let mut change = Change::begin(&transaction)?;
        for writes in tasks {
            if let Some(error) = too_large(&writes, options.max_bytes) {
                results.push(Err(error));
                continue;
            }
            let mut done = Vec::with_capacity(writes.len());
            for write in writes {
                done.push(change.apply(write, options, now)?);
            }
            results.push(Ok(done));
        }
        change.tidy(options, now)?;
    }
    transaction.commit().map_err(StoreError::failed)?;
    Ok(results)
}

/// What could not stay even alone.
fn too_large(writes: &[Write], max_bytes: u64) -> Option<StoreError> {
    let sizes = writes.iter().map(|write| match write {
        Write::Put { key, body, .. } => n_bytes_of(&key.id, body),
        Write::Edit { .. } | Write::Delete { .. } | Write::Usage { .. } => 0,
    });
    let n_bytes = sizes.sum();
    (n_bytes > max_bytes).then_some(StoreError::TooLarge { n_bytes, max_bytes })
}

/// After an error of the disk the database must be opened anew, which goes back to the last
/// commit. What was only in memory stays as it is.
fn reopen(shelf: &Shelf, options: &StoreOptions) {
    if options.dir.is_none() {
        return;
    }
    let mut database = shelf.write().unwrap_or_else(PoisonError::into_inner);
    // The old one has the lock of the file.
    *database = None;
    match open_database(options) {
        Ok(opened) => *database = Some(opened),
        Err(error) => tracing::error!(%error, "the store cannot be opened again"),
    }
}
