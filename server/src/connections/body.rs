//! Bodies of requests that come in time, and of answers that are still under way.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::CallGuard;
use super::budget::Share;

/// Bytes that a body that is not held in memory must bring a second, beyond the time of any other.
const STREAMED_RATE: f64 = 65_536.0;

/// Whether a body is written down as it comes, instead of being held in memory as a whole. The
/// handler of a request says so; such a body is not counted with the others, and has time by its
/// length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streamed(Arc<AtomicBool>);

impl Streamed {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How slow the body of a request may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyTimes {
    /// Between two pieces.
    pub(super) piece: Duration,
    /// For the whole body.
    pub(super) whole: Duration,
}

/// A body that did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body of the request did not come in time")]
    Late,
    #[error("the server is shutting down")]
    Ending,
    #[error("too much is being received")]
    TooMuch,
}

/// Why a body could not be read, if it was one of our reasons.
pub(crate) fn body_error(error: &(dyn Error + 'static)) -> Option<BodyError> {
    let mut error = Some(error);
    while let Some(one) = error {
        if let Some(found) = one.downcast_ref::<BodyError>() {
            return Some(*found);
        }
        error = one.source();
    }
    None
}

/// A request's body, which must come in time and before the end of the server.
pub(super) struct TimedBody<B = Incoming> {
    body: B,
    times: BodyTimes,
    piece_ends: Pin<Box<Sleep>>,
    body_ends: Instant,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    share: Share,
    streamed: Streamed,
}

impl<B> TimedBody<B> {
    pub(super) fn new(
        body: B,
        times: BodyTimes,
        ending: impl Future<Output = ()> + Send + 'static,
        share: Share,
        streamed: Streamed,
    ) -> Self {
        Self {
            body,
            times,
            piece_ends: Box::pin(sleep(times.piece)),
            body_ends: Instant::now() + times.whole,
            ending: Box::pin(ending),
            share,
            streamed,
        }
    }
}

impl<B> HttpBody for TimedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            let n_bytes = data.map_or(0, Bytes::len);
            if self.streamed.is_set() {
                let n_bytes = u32::try_from(n_bytes).unwrap_or(u32::MAX);
                self.body_ends += Duration::from_secs_f64(f64::from(n_bytes) / STREAMED_RATE);
            } else if !self.share.take(n_bytes) {
                return Poll::Ready(Some(Err(BodyError::TooMuch.into())));
            }
            let next = (Instant::now() + self.times.piece).min(self.body_ends);
            self.piece_ends.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.ending.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Ending.into())));
        }
        ready!(self.piece_ends.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which holds its call until it ends.
#[derive(Debug)]
pub(super) struct CallBody {
    body: Body,
    _call: CallGuard,
    _share: Share,
}

impl CallBody {
    pub(super) fn new(body: Body, call: CallGuard, share: Share) -> Self {
        Self {
            body,
            _call: call,
            _share: share,
        }
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::to_bytes;
    use futures::stream::{self, StreamExt};

    use super::*;
    use crate::connections::budget::Budget;

    /// A body of `n` bytes that come at intervals, in milliseconds.
    async fn read(n: u32, interval: u64, ending: u64) -> Result<usize, BodyError> {
        read_as(Streamed::default(), b"x", n, interval, ending).await
    }

    async fn read_as(
        streamed: Streamed,
        piece: &'static [u8],
        n: u32,
        interval: u64,
        ending: u64,
    ) -> Result<usize, BodyError> {
        let ms = Duration::from_millis;
        let pieces = stream::iter(0..n).then(move |_| async move {
            sleep(ms(interval)).await;
            Ok::<_, Infallible>(Bytes::from_static(piece))
        });
        let times = BodyTimes {
            piece: ms(200),
            whole: ms(600),
        };
        let share = Budget::new(10_000).share();
        let body = Body::from_stream(pieces);
        let body = TimedBody::new(body, times, sleep(ms(ending)), share, streamed);
        let read = to_bytes(Body::new(body), usize::MAX).await;
        read.map(|bytes| bytes.len())
            .map_err(|error| body_error(&error).expect("one of our reasons"))
    }

    #[tokio::test]
    async fn bodies_have_their_time() {
        assert_eq!(read(4, 5, 60_000).await, Ok(4));
        assert_eq!(read(1, 5_000, 60_000).await, Err(BodyError::Late));
        // Never silent for long, and never done.
        assert_eq!(read(10_000, 10, 60_000).await, Err(BodyError::Late));
        assert_eq!(read(10_000, 10, 50).await, Err(BodyError::Ending));
    }

    #[tokio::test]
    async fn streamed_bodies_have_time_by_their_length_and_take_no_memory() {
        const PIECE: &[u8] = &[0; 16 << 10];
        let is_memory = read_as(Streamed::default(), PIECE, 10, 1, 60_000).await;
        assert_eq!(is_memory, Err(BodyError::TooMuch));
        let streamed = || {
            let streamed = Streamed::default();
            streamed.set();
            streamed
        };
        // Two seconds in all, for which 16 KiB each give a quarter of a second.
        assert_eq!(
            read_as(streamed(), PIECE, 100, 20, 60_000).await,
            Ok(100 * PIECE.len())
        );
        let slow = read_as(streamed(), b"x", 10_000, 10, 60_000).await;
        assert_eq!(slow, Err(BodyError::Late));
    }
}
