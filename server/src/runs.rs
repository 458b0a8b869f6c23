//! Responses that are made in the background: what has happened so far, for whoever listens, and
//! a way to end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{Notify, watch};

use crate::sse::Frame;
use crate::tenant::Owner;

/// All that run. They leave when their end is in the store.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    by_id: Mutex<HashMap<(Owner, String), Arc<Run>>>,
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Run {
    /// Empty unless it is streamed.
    frames: Mutex<Vec<Frame>>,
    is_streamed: bool,
    progress: watch::Sender<Progress>,
    cancelled: Notify,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) n_frames: usize,
    /// Something has been generated.
    pub(crate) has_begun: bool,
    pub(crate) has_ended: bool,
}

impl Runs {
    pub(crate) fn get(&self, owner: Owner, id: &str) -> Option<Arc<Run>> {
        self.lock().get(&(owner, id.to_owned())).cloned()
    }

    /// A new run; it is listed until [`end`](Self::end).
    pub(crate) fn begin(&self, owner: Owner, id: &str, is_streamed: bool) -> Arc<Run> {
        let run = Arc::new(Run {
            frames: Mutex::default(),
            is_streamed,
            progress: watch::Sender::default(),
            cancelled: Notify::new(),
        });
        self.lock().insert((owner, id.to_owned()), Arc::clone(&run));
        run
    }

    /// Takes a run off the list and tells everybody.
    pub(crate) fn end(&self, owner: Owner, id: &str) {
        if let Some(run) = self.lock().remove(&(owner, id.to_owned())) {
            run.progress
                .send_modify(|progress| progress.has_ended = true);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Owner, String), Arc<Run>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Takes the next frame.
    pub(crate) fn push(&self, frame: Frame, has_begun: bool) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_streamed {
            frames.push(frame);
        }
        let n_frames = frames.len();
        drop(frames);
        self.progress.send_modify(|progress| {
            progress.n_frames = n_frames;
            progress.has_begun |= has_begun;
        });
    }

    /// Whether its events are kept.
    pub(crate) fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// All frames so far.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.clone()
    }

    /// Asks for its end.
    pub(crate) fn cancel(&self) {
        self.cancelled.notify_one();
    }

    /// Resolves when somebody has asked for its end.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }

    /// Resolves when its end is in the store.
    pub(crate) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // An error means that the run is gone, which says the same.
        progress.wait_for(|progress| progress.has_ended).await.ok();
    }

    /// Its frames from number `from` on, as they come.
    pub(crate) fn follow(self: Arc<Self>, from: usize) -> BoxStream<'static, Frame> {
        let progress = self.progress.subscribe();
        stream::unfold(
            (self, progress, from),
            |(run, mut progress, next)| async move {
                let seen = progress
                    .wait_for(|progress| progress.n_frames > next || progress.has_ended)
                    .await
                    .map(|progress| *progress)
                    .ok()?;
                if next >= seen.n_frames {
                    return None;
                }
                let frame = {
                    let frames = run.frames.lock().unwrap_or_else(PoisonError::into_inner);
                    frames[next].clone()
                };
                Some((frame, (run, progress, next + 1)))
            },
        )
        .boxed()
    }
}
