//! What a connection is doing: nothing, receiving the head of a request, or working on one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Since the end of the last answer.
    Idle(Instant),
    /// Since the first byte of a head, or since the connection was made.
    Head(Instant),
    Call,
}

/// Shared by a connection's socket, its calls, and who watches them.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    phase: watch::Sender<Phase>,
}

/// A request that is being worked on, up to the end of its answer.
#[derive(Debug)]
pub(super) struct CallGuard(Activity);

impl Activity {
    /// Of a connection that has just been made.
    pub(super) fn new() -> Self {
        let (phase, _) = watch::channel(Phase::Head(Instant::now()));
        Self { phase }
    }

    /// A head has come whole. (A connection works on one request at a time.)
    pub(super) fn begin_call(&self) -> CallGuard {
        self.phase.send_replace(Phase::Call);
        CallGuard(self.clone())
    }

    /// Bytes have come: of a head, if nothing is being worked on.
    fn note_read(&self) {
        self.phase.send_if_modified(|phase| {
            let is_first = matches!(phase, Phase::Idle(_));
            if is_first {
                *phase = Phase::Head(Instant::now());
            }
            is_first
        });
    }

    pub(super) fn is_idle_now(&self) -> bool {
        *self.phase.borrow() != Phase::Call
    }

    /// Since when nothing is being worked on; `None`: something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match *self.phase.borrow() {
            Phase::Idle(since) | Phase::Head(since) => Some(since),
            Phase::Call => None,
        }
    }

    /// Resolves when nothing is being worked on.
    pub(super) async fn is_idle(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is our own.
        phase.wait_for(|phase| *phase != Phase::Call).await.ok();
    }

    /// Resolves when a head has not come whole within `limit`.
    pub(super) async fn head_is_late(&self, limit: Duration) {
        let mut phase = self.phase.subscribe();
        loop {
            let now = *phase.borrow_and_update();
            let late = async {
                match now {
                    Phase::Head(since) => sleep_until(since + limit).await,
                    Phase::Idle(_) | Phase::Call => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                changed = phase.changed() => changed.expect("the sender is our own"),
            }
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.phase.send_replace(Phase::Idle(Instant::now()));
    }
}

/// A socket that notes when something is read.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    activity: Activity,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, activity: Activity) -> Self {
        Self { socket, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n_before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if buffer.filled().len() > n_before {
            self.activity.note_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    async fn is_late_within(activity: &Activity, ms: u64) -> bool {
        let limit = Duration::from_millis(ms);
        tokio::time::timeout(limit, activity.head_is_late(LIMIT))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn only_heads_are_late() {
        let activity = Activity::new();
        assert!(is_late_within(&activity, 5_000).await, "no head at all");
        let call = activity.begin_call();
        activity.note_read();
        assert!(!is_late_within(&activity, 300).await, "a long request");
        drop(call);
        assert!(!is_late_within(&activity, 300).await, "kept alive");
        activity.note_read();
        assert!(!is_late_within(&activity, 20).await);
        activity.note_read();
        assert!(is_late_within(&activity, 5_000).await, "byte by byte");
    }
}
