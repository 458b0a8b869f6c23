//! Serving until told to end, and ending in order.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connections::{self, ConnectionOptions};
use crate::engine::Engine;
use crate::fleet::Fleet;

/// Time for connections to close once their requests have been ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// All engines of a server.
#[derive(Debug)]
pub struct Engines {
    first: Engine,
    others: Option<Fleet>,
}

impl From<Engine> for Engines {
    fn from(first: Engine) -> Self {
        Self {
            first,
            others: None,
        }
    }
}

impl Engines {
    pub fn new(first: Engine, others: Option<Fleet>) -> Self {
        Self { first, others }
    }

    fn close(&self) {
        self.first.handle().close();
        self.others.iter().for_each(Fleet::close);
    }

    fn cancel_all(&self) {
        self.first.handle().cancel_all();
        self.others.iter().for_each(Fleet::cancel_all);
    }

    fn stop(self) {
        self.others.iter().for_each(Fleet::stop);
        self.first.stop();
    }
}

/// A socket that is being served.
#[derive(Debug)]
pub struct Listening {
    ending: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// Begins to serve `app` on `listener`.
pub fn listen(listener: TcpListener, app: Router, options: ConnectionOptions) -> Listening {
    let (ending, is_ending) = watch::channel(false);
    Listening {
        ending,
        server: tokio::spawn(connections::serve(listener, app, is_ending, options)),
    }
}

/// Serves `app` on `listener`, as [`listen`] and [`Listening::until`].
pub async fn serve(
    listener: TcpListener,
    app: Router,
    engine: Engine,
    grace: Duration,
    told: impl Future<Output = ()>,
    told_again: impl Future<Output = ()>,
) -> io::Result<()> {
    listen(listener, app, ConnectionOptions::default())
        .until(engine, grace, told, told_again)
        .await
}

impl Listening {
    /// Serves until `told` resolves. Then nothing new is begun; what runs has `grace` to finish,
    /// or until `told_again`, and is cancelled after that.
    pub async fn until(
        self,
        engines: impl Into<Engines>,
        grace: Duration,
        told: impl Future<Output = ()>,
        told_again: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let engines = engines.into();
        let Self { ending, mut server } = self;
        let served = tokio::select! {
            ended = &mut server => ended.map_err(io::Error::other),
            () = told => {
                tracing::info!("shutting down: running requests may finish");
                // Before the connections are told: whose body is cut off is told why.
                engines.close();
                ending.send_replace(true);
                drain(&mut server, &engines, grace, told_again).await
            }
        };
        // Joining the thread blocks, and nothing is left to be kept waiting.
        tokio::task::spawn_blocking(move || engines.stop())
            .await
            .map_err(io::Error::other)?;
        served
    }
}

async fn drain(
    server: &mut JoinHandle<()>,
    engines: &Engines,
    grace: Duration,
    told_again: impl Future<Output = ()>,
) -> io::Result<()> {
    tokio::select! {
        ended = &mut *server => return ended.map_err(io::Error::other),
        () = tokio::time::sleep(grace) => tracing::warn!("cancelling requests that still run"),
        () = told_again => tracing::warn!("told again: cancelling all requests"),
    }
    engines.cancel_all();
    match timeout(CLOSE_TIMEOUT, &mut *server).await {
        Ok(ended) => ended.map_err(io::Error::other),
        Err(_) => {
            server.abort();
            Ok(())
        }
    }
}

/// Resolves at ctrl-c or SIGTERM.
pub async fn signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "ctrl-c cannot be heard");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupt => {}
        () = terminate() => {}
    }
}

#[cfg(unix)]
async fn terminate() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be heard");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending::<()>().await;
}
