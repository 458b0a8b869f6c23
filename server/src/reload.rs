//! What is read anew while the server runs: on SIGHUP, and when the files of keys or certificates
//! change. What cannot be used changes nothing, and is told in the log and in the metrics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::adapters::{Adapters, Refreshed};
use crate::auth::ApiKeys;
use crate::connections::Tls;
use crate::metrics::Metrics;

/// Files are written in more than one piece.
const SETTLE: Duration = Duration::from_millis(200);

/// All that can be read anew.
#[derive(Clone, Debug)]
pub struct Reloads {
    pub keys: ApiKeys,
    pub tls: Option<Tls>,
    pub adapters: Adapters,
    pub metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Signal,
    File,
}

impl Reloads {
    /// Listens until the runtime ends. `hangups` may have been heard before.
    pub async fn listen(self, hangups: Hangups) {
        let (told, mut causes) = mpsc::channel(8);
        let of_keys = self.keys.file().into_iter();
        let of_tls = self.tls.iter().flat_map(Tls::files);
        let files: Vec<PathBuf> = of_keys.chain(of_tls).map(Path::to_owned).collect();
        watch_files(files, told.clone());
        tokio::spawn(hangups.pass_on(told));
        while let Some(cause) = causes.recv().await {
            tokio::time::sleep(SETTLE).await;
            let mut is_signal = cause == Cause::Signal;
            while let Ok(more) = causes.try_recv() {
                is_signal |= more == Cause::Signal;
            }
            self.reload(is_signal).await;
        }
    }

    /// Reads files anew; adapters only when an operator says so, as those of a directory are
    /// compared whenever they are asked for.
    async fn reload(&self, with_adapters: bool) {
        if self.keys.file().is_some() {
            let read = self.keys.reload();
            self.metrics.count_reload("keys", read.is_ok());
            match read {
                Ok(n_keys) => tracing::info!(n_keys, "keys were read anew"),
                Err(error) => tracing::error!(%error, "the keys stay as they were"),
            }
        }
        if let Some(tls) = &self.tls {
            let read = tls.reload();
            self.metrics.count_reload("tls", read.is_ok());
            match read {
                Ok(()) => tracing::info!("the certificate was read anew"),
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            }
        }
        if with_adapters && self.adapters.are_served() {
            let Refreshed { changed, failed } = self.adapters.refresh().await;
            self.metrics.count_reload("adapters", failed.is_empty());
            tracing::info!(?changed, ?failed, "adapters were compared with their files");
        }
    }
}

/// SIGHUP, heard from when this is made: by default it ends a process, which nobody means who sends
/// it while a model is being loaded. It is kept until there is something to read anew.
#[derive(Debug)]
pub struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    /// In a runtime.
    pub fn hear() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let signals = signal(SignalKind::hangup());
            let signals = signals
                .inspect_err(|error| tracing::error!(%error, "SIGHUP cannot be heard"))
                .ok();
            Self { signals }
        }
        #[cfg(not(unix))]
        Self {}
    }

    #[cfg(unix)]
    async fn pass_on(self, told: mpsc::Sender<Cause>) {
        let Some(mut signals) = self.signals else {
            return;
        };
        while signals.recv().await.is_some() {
            if told.send(Cause::Signal).await.is_err() {
                return;
            }
        }
    }

    #[cfg(not(unix))]
    async fn pass_on(self, told: mpsc::Sender<Cause>) {
        // Signals are not sent here, and without a sender there would be no listening.
        told.closed().await;
    }
}

/// Directories are watched and not files: editors, and Kubernetes with its links, put a new file in
/// the place of the old one.
#[cfg(target_os = "linux")]
fn watch_files(files: Vec<PathBuf>, told: mpsc::Sender<Cause>) {
    use futures::StreamExt;
    use inotify::{Inotify, WatchMask};
    if files.is_empty() {
        return;
    }
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
    let watch = || -> std::io::Result<_> {
        let inotify = Inotify::init()?;
        for file in &files {
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
            inotify.watches().add(dir.unwrap_or(Path::new(".")), mask)?;
        }
        inotify.into_event_stream([0; 4096])
    };
    match watch() {
        Ok(mut events) => {
            tokio::spawn(async move {
                let mut stamps: Vec<_> = files.iter().map(|file| stamp(file)).collect();
                while events.next().await.is_some() {
                    let now: Vec<_> = files.iter().map(|file| stamp(file)).collect();
                    // Other files of the directory are none of ours.
                    if now == stamps {
                        continue;
                    }
                    stamps = now;
                    if told.send(Cause::File).await.is_err() {
                        return;
                    }
                }
            });
        }
        Err(error) => tracing::warn!(%error, "changed files are noticed on SIGHUP only"),
    }
}

#[cfg(not(target_os = "linux"))]
fn watch_files(_files: Vec<PathBuf>, _told: mpsc::Sender<Cause>) {
    // SIGHUP is the way elsewhere.
}

/// What tells one version of a file from the next.
#[cfg(target_os = "linux")]
fn stamp(file: &Path) -> Option<(std::time::SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}
