//! The thread that an adapter, or one of several models, is read on. It gives way to the threads that compute, so that a
//! load costs the streams that run little.

use std::io;

/// Of the system's 20 steps below the usual priority: about a tenth of a core that is in demand.
const NICE: i32 = 10;

/// What `work` returns, done on a thread of its own.
///
/// # Errors
/// The system gives no thread, or `work` panicked.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || {
            give_way();
            if sender.send(work()).is_err() {
                tracing::debug!("nobody waits for what was read");
            }
        })?;
    let panicked = |_| io::Error::other("the thread that read it panicked");
    receiver.await.map_err(panicked)
}

/// Lowers the priority of this thread.
#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux the priority that is called the process's is the thread's.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the priority stays as it is");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {
    tracing::trace!(nice = NICE, "priorities of threads are not set here");
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
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_the_loader_gives_way() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let own = priority();
        let loader = run(priority).await.unwrap();
        assert_eq!((loader, priority()), (NICE.max(own), own));
    }
}
