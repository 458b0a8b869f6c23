//! Connections: accepted, bounded in number and in how slow they may be, and closed in order.
//!
//! A client that sends its request slowly holds memory and a place in the queue for nothing. So
//! heads and bodies have their times, and when the server ends, whoever has no request under way
//! is not waited for.

mod activity;
mod body;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use activity::{Activity, Watched};
use body::{BodyTimes, CallBody, TimedBody};

pub(crate) use body::{BodyError, body_error};

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Time for a head, from its first byte on, or from the beginning of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two requests of a connection. Longer than proxies keep theirs (60 s is common),
/// so that it is they who close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Bodies.
const BODY_TIMES: BodyTimes = BodyTimes {
    piece: Duration::from_secs(30),
    whole: Duration::from_secs(120),
};
/// Pause after an error that says that there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Time for the last bytes of an answer, once nothing else is under way at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `app` on `listener` until `ending` says so (or its sender is gone), and then until no
/// request is under way.
pub(crate) async fn serve(listener: TcpListener, app: Router, ending: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            // Tasks that have ended are taken out of the set.
            Some(_) = connections.join_next() => continue,
            () = is_ending(ending.clone()) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, app.clone(), ending.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Resolves at the end of the server.
async fn is_ending(mut ending: watch::Receiver<bool>) {
    // An error means that the sender is gone, which says the same.
    ending.wait_for(|is_ending| *is_ending).await.ok();
}

async fn connection(stream: TcpStream, app: Router, ending: watch::Receiver<bool>) {
    // Tokens are small packets that must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let activity = Activity::new();
    let service = service_fn(|request: Request<Incoming>| {
        let call = activity.begin_call();
        let body_ending = ending.clone();
        let request =
            request.map(|body| Body::new(TimedBody::new(body, BODY_TIMES, is_ending(body_ending))));
        let answer = app.clone().oneshot(request);
        async move {
            let Ok(response) = answer.await;
            Ok::<_, Infallible>(response.map(|body| CallBody::new(body, call)))
        }
    });
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.head_is_late(HEAD_TIMEOUT) => {
            tracing::debug!("a client took too long for the head of a request");
            return;
        }
        () = is_ending(ending.clone()) => close(connection, &activity).await,
    };
    if let Err(error) = ended {
        // Clients hang up: that is no error of ours.
        tracing::debug!(%error, "a connection failed");
    }
}

/// Finishes what is under way; then, or at once, closes.
async fn close<C>(mut connection: Pin<&mut C>, activity: &Activity) -> Result<(), hyper::Error>
where
    C: GracefulConnection,
{
    connection.as_mut().begin_to_close();
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = activity.is_idle() => {}
        }
        if let Ok(ended) = timeout(FLUSH_TIMEOUT, connection.as_mut()).await {
            return ended;
        }
        if activity.is_idle_now() {
            return Ok(());
        }
    }
}

/// A connection whose type cannot be written down.
trait GracefulConnection: Future<Output = Result<(), hyper::Error>> {
    fn begin_to_close(self: Pin<&mut Self>);
}

impl<I, S> GracefulConnection for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: hyper::body::Body + 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn begin_to_close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
