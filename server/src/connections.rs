//! Connections: accepted, bounded in number and in how slow they may be, and closed in order.
//!
//! A client that sends its request slowly holds memory and a place in the queue for nothing. So
//! heads and bodies have their times, and when the server ends, whoever has no request under way
//! is not waited for.

mod activity;
mod body;
mod budget;
mod places;
mod tls;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use activity::{Activity, Watched};
use body::{BodyTimes, CallBody, TimedBody};
use budget::Budget;
use places::Places;

pub(crate) use body::{BodyError, Streamed, body_error};
pub use tls::{Tls, TlsError};

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

/// Time for which a connection is kept, and not read, once its head was refused. Who floods us with
/// such heads waits meanwhile, instead of connecting again at once; an answer is not lost by what
/// comes after it, either.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of the head of a request, its URL and all headers; beyond: 431 or 414.
const MAX_HEAD: usize = 64 << 10;
/// Headers of a request; beyond: 431.
const MAX_HEADERS: usize = 100;

/// How connections are taken.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Connections at a time.
    pub max_connections: usize,
    /// Bytes of all bodies at a time.
    pub max_body_bytes: u64,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_body_bytes: 256 << 20,
            tls: None,
        }
    }
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    app: Router,
    ending: watch::Receiver<bool>,
    places: Places,
    bodies: Budget,
    tls: Option<Tls>,
}

/// Serves `app` on `listener` until `ending` says so (or its sender is gone), and then until no
/// request is under way. Whoever comes meanwhile is still answered, which for most requests is to
/// be told to go elsewhere.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    ending: watch::Receiver<bool>,
    options: ConnectionOptions,
) {
    let shared = Shared {
        app,
        ending: ending.clone(),
        places: Places::new(options.max_connections),
        bodies: Budget::new(options.max_body_bytes),
        tls: options.tls,
    };
    let mut connections = JoinSet::new();
    // It goes on where it was when something else has happened: it may hold a connection.
    let mut next = Box::pin(accept(&listener, &shared));
    loop {
        tokio::select! {
            accepted = next.as_mut() => {
                next.set(accept(&listener, &shared));
                if let Some(connection) = accepted {
                    connections.spawn(connection);
                }
            }
            // Tasks that have ended are taken out of the set.
            Some(_) = connections.join_next() => {}
            () = is_ending(ending.clone()) => break,
        }
    }
    let mut late = JoinSet::new();
    loop {
        tokio::select! {
            ended = connections.join_next() => {
                if ended.is_none() {
                    break;
                }
            }
            accepted = next.as_mut() => {
                next.set(accept(&listener, &shared));
                if let Some(connection) = accepted {
                    late.spawn(connection);
                }
            }
        }
    }
    drop(next);
    drop(listener);
    while late.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    shared: &Shared,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let activity = Activity::new();
            let place = shared.places.take(&activity).await;
            let connection = connection(stream, activity, shared.clone());
            Some(async move {
                tokio::select! {
                    () = connection => {}
                    () = place.is_needed() => tracing::debug!("an idle connection gave way"),
                }
            })
        }
        Err(error) => {
            if !is_of_one_connection(&error) {
                tracing::error!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
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

async fn connection(stream: TcpStream, activity: Activity, shared: Shared) {
    // Tokens are small packets that must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let Some(tls) = shared.tls.clone() else {
        return talk(stream, activity, shared).await;
    };
    match timeout(HEAD_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, activity, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on TLS"),
        Err(_) => tracing::debug!("a client took too long to agree on TLS"),
    }
}

/// HTTP on a connection that is otherwise ready.
async fn talk<S>(mut stream: S, activity: Activity, shared: Shared)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ending = shared.ending.clone();
    if let Err(error) = requests(&mut stream, activity, shared).await {
        // Clients hang up: that is no error of ours.
        tracing::debug!(%error, "a connection failed");
        if error.is_parse() {
            let pause = async {
                let shutdown = poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context));
                timeout(REFUSED_PAUSE, shutdown).await.ok();
                sleep(REFUSED_PAUSE).await;
            };
            tokio::select! {
                () = pause => {}
                () = is_ending(ending) => {}
            }
        }
    }
}

/// All requests of a connection.
async fn requests<S>(stream: S, activity: Activity, shared: Shared) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Shared {
        app,
        ending,
        bodies,
        ..
    } = shared;
    let service = service_fn(|request: Request<Incoming>| {
        let call = activity.begin_call();
        let body_ending = ending.clone();
        let share = bodies.share();
        let streamed = Streamed::default();
        let mut request = request.map(|body| {
            let (ending, streamed) = (is_ending(body_ending), streamed.clone());
            Body::new(TimedBody::new(
                body,
                BODY_TIMES,
                ending,
                share.clone(),
                streamed,
            ))
        });
        request.extensions_mut().insert(streamed);
        let answer = app.clone().oneshot(request);
        async move {
            let Ok(response) = answer.await;
            Ok::<_, Infallible>(response.map(|body| CallBody::new(body, call, share)))
        }
    });
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    // Whoever comes at the end is answered once; a connection that is told to close at once would
    // not even be read.
    let is_late = *ending.borrow();
    let connection = http1::Builder::new()
        .keep_alive(!is_late)
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.head_is_late(if is_late { FLUSH_TIMEOUT } else { HEAD_TIMEOUT }) => {
            tracing::debug!("a client took too long for the head of a request");
            Ok(())
        }
        () = is_ending(ending.clone()), if !is_late => close(connection, &activity).await,
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
