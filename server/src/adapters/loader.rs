//! The thread that an adapter, or one of several models, is read on. It gives way to the threads
//! that compute, so that a load costs the streams that run little.
//!
//! On Linux a new thread has the priority of the one that starts it. Threads that are to compute
//! must not be started by one that gives way.

use std::io;

/// Of the system's 20 steps below the usual priority: about a tenth of a core that is in demand.
const NICE: i32 = 10;

/// What `work` returns, done on a thread of its own that gives way.
///
/// # Errors
/// The system gives no thread, or `work` panicked.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    run_at(NICE, work).await
}

/// The same, so many steps below the usual priority.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_at<T: Send + 'static>(
    nice: i32,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    beside(move || {
        give_way(nice);
        work()
    })
    .await
}

/// The same on a thread that keeps its priority, for work that starts threads. Nobody waits for
/// it when the process ends, unlike for a blocking task of tokio's.
///
/// # Errors
/// As [`run`].
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || {
            if sender.send(work()).is_err() {
                tracing::debug!("nobody waits for what was read");
            }
        })?;
    receiver.await.map_err(|_| panicked())
}

/// What `work` returns, done on a thread that gives way while this one waits. Blocks.
///
/// # Errors
/// As [`run`].
pub(crate) fn read<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| -> io::Result<T> {
        let reader = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn_scoped(scope, move || {
                give_way(NICE);
                work()
            })?;
        reader.join().map_err(|_| panicked())
    })
}

fn panicked() -> io::Error {
    io::Error::other("the thread that read it panicked")
}

/// Lowers the priority of this thread to so many of the system's 20 steps below the usual one.
#[cfg(target_os = "linux")]
pub(crate) fn give_way(nice: i32) {
    // On Linux the priority that is called the process's is the thread's.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "the priority stays as it is");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn give_way(nice: i32) {
    tracing::trace!(nice, "priorities of threads are not set here");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_its_panic_is_an_error() {
        let own = std::thread::current().id();
        let other = run(|| std::thread::current().id()).await.unwrap();
        assert_ne!(own, other);
        let error = run(|| assert_eq!(1, 2)).await.unwrap_err();
        assert!(error.to_string().contains("panicked"));
        let name = String::from("what it reads is borrowed");
        assert_eq!(read(|| name.len()).unwrap(), name.len());
        let error = read(|| assert_eq!(1, 2)).unwrap_err();
        assert!(error.to_string().contains("panicked"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_the_loader_gives_way() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let own = priority();
        let loader = run(priority).await.unwrap();
        assert_eq!((loader, priority()), (NICE.max(own), own));
    }

    /// Engines are started by the thread that waits for the reader.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_started_after_the_reading_keeps_its_priority() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let own = priority();
        let work = move || {
            let reader = read(priority).unwrap();
            (reader, std::thread::spawn(priority).join().unwrap())
        };
        assert_eq!(beside(work).await.unwrap(), (NICE.max(own), own));
    }
}
